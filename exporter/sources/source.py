"""Where logs are read from: the small door that the local file system and an SSH host both answer.

A source knows paths and bytes, nothing of beams. It is used by one thread. Whatever is wrong with one log is a
:class:`LogProblem` of that log; :class:`SourceUnavailable` means that none can be read at present.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogStat:
    """Size and age of a log at one look.

    Args:
        size_bytes: its length.
        modified_at: when it was last written, epoch seconds by the source's own clock.
        identity: what tells one file from another of the same name (device and inode), where the source knows it. It
            proves nothing alone: inodes are reused.
    """

    size_bytes: int
    modified_at: float
    identity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Bytes wanted: at most ``length`` from ``offset`` on."""

    path: str
    offset: int
    length: int


class LogProblem(Exception):
    """One log (or one folder) cannot be read.

    Args:
        kind: a short snake_case word for metrics: ``permission``, ``not_a_file``, ``link``, ``io``, ``path``.
        message: what was tried, with which path.
        advice: what to do about it, in words that are the same for every path.
    """

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.kind = kind
        self.advice = advice


def link_leads_outside(path: str) -> LogProblem:
    """A log whose path leads, by a symbolic link, to where the source's logs must not be."""
    return LogProblem(
        "link",
        f"{path} is not read: a link in it leads out of the folder of log_path (`realpath` shows where)",
        "put the log into that folder, or set log_root to a folder that holds both, or follow_links: anywhere",
    )


class SourceUnavailable(Exception):
    """Nothing of a source can be read now.

    Args:
        kind: a short snake_case word for metrics.
        message: what was tried and what to do about it.
    """

    advice = "docs/remote-logs.md says what to do"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnexpectedError(SourceUnavailable):
    """A poll of a source raised an exception that nobody foresaw; it is the ``__cause__``.

    Args:
        error: the exception.
    """

    def __init__(self, error: Exception) -> None:
        words = " ".join(str(error).split())[:_WORDS_LIMIT]
        super().__init__("unexpected", f"unexpected error: {type(error).__name__}{': ' if words else ''}{words}")
        self.__cause__ = error


_WORDS_LIMIT = 300
"""An exception's message may quote what a host has sent."""


ENTRIES_LIMIT = 250_000
"""Most entries of one folder that are gone through or kept, and most that are kept of all folders of a source."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One entry of a folder: a regular file with its ``stat``, or a folder (``stat`` is ``None``)."""

    name: str
    stat: LogStat | None


def too_many_entries(folder: str) -> LogProblem:
    """A folder has too many entries to go through."""
    return LogProblem(
        "too_many",
        f"{folder} has more than {ENTRIES_LIMIT} entries",
        "name the file more exactly: a last part without a glob is looked up directly; or move old files away",
    )


NO_KNOWN_STATS: Mapping[str, LogStat] = MappingProxyType({})


class LogSource(Protocol):
    """Logs on one file system."""

    @property
    def name(self) -> str:
        """The source's name in the configuration and in the label ``source``."""
        ...

    @property
    def kind(self) -> str:
        """``local`` or ``ssh``."""
        ...

    @property
    def round_trips(self) -> int:
        """Requests made and awaited since the start (system calls are not counted: 0 for a local source)."""
        ...

    @property
    def reconnects(self) -> int:
        """Connections made after the first (0 for a local source)."""
        ...

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        """Sizes of many logs at once.

        Args:
            paths: those to be told of; where nothing is, the answer says nothing.
            known: how others looked before; only those that look other now are told of, with ``None`` for one that is
                no longer there. To an idle log this is all that happens, so it takes little more than asking for it.

        Raises:
            SourceUnavailable: none can be asked now.
        """
        ...

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        """Bytes of several logs, in the order of ``requests``; shorter than asked at the end of a log.

        Raises:
            SourceUnavailable: none can be asked now.
        """
        ...

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        """The regular files of ``folder`` by name, without those in folders below it; empty where it does not exist.

        Raises:
            LogProblem: the folder cannot be listed.
            SourceUnavailable: none can be asked now.
        """
        ...

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """Those of ``folders`` that do not exist, or are no folders.

        One that may not be looked at does not count: nobody knows whether it exists.

        Raises:
            SourceUnavailable: none can be asked now.
        """
        ...

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """Show files and folders of ``folder``, one by one; nothing is read of them and nothing is kept.

        Args:
            folder: where to look; one that does not exist has no entries.
            names: the name of the only entry asked for, or a pattern that whole names must match.
            visit: called with each entry; returns ``True`` to stop. After a lost connection it may get entries again.
            within: folders that hold what may be shown, wherever links lead; ``None`` where links may lead anywhere.
                Entries elsewhere are left out.

        Raises:
            LogProblem: the folder cannot be listed, leads elsewhere, or has more than :data:`ENTRIES_LIMIT` entries.
            SourceUnavailable: none can be asked now.
        """
        ...

    def close(self) -> None:
        """Give back what the source holds open. May be called from any thread, to end a wait of its own."""
        ...
