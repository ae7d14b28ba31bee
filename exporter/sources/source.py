"""The interface of all sources of logs: the local file system, and SSH hosts.

A source knows paths and bytes, and nothing about beams. One thread uses it. A problem with one log is a
:class:`LogProblem`; :class:`SourceUnavailable` means that no log of the source can be read now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogStat:
    """Size, age and identity of a log at one poll.

    Args:
        size_bytes: its size.
        modified_at: its modification time, epoch seconds by the source's clock.
        identity: device and inode, which tell it from another file of the same name; ``None`` if the source does not
            know them. Equal identities prove nothing: inodes are reused.
    """

    size_bytes: int
    modified_at: float
    identity: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request for at most ``length`` bytes of a log, from ``offset`` on."""

    path: str
    offset: int
    length: int


class LogProblem(Exception):
    """One log (or one folder) cannot be read.

    Args:
        kind: one snake_case word for metrics: ``permission``, ``not_a_file``, ``link``, ``io``, ``path``, ``too_many``.
        message: what failed, with the path.
        advice: what to do about it; the same text for every path.
    """

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.kind = kind
        self.advice = advice


def link_leads_outside(path: str) -> LogProblem:
    """Return the problem of a log whose path leads out of the source's folders by a symbolic link."""
    return LogProblem(
        "link",
        f"{path} is not read: a link in it leads out of the folder of log_path (`realpath` shows where)",
        "put the log into that folder, or set log_root to a folder that holds both, or follow_links: anywhere",
    )


class SourceUnavailable(Exception):
    """Nothing of a source can be read now.

    Args:
        kind: one snake_case word for metrics.
        message: what failed, and what to do about it.
    """

    advice = "docs/remote-logs.md says what to do"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnexpectedError(SourceUnavailable):
    """A poll of a source raised an unforeseen exception.

    Args:
        error: the exception; it becomes the ``__cause__``.
    """

    def __init__(self, error: Exception) -> None:
        words = " ".join(str(error).split())[:_WORDS_LIMIT]
        super().__init__("unexpected", f"unexpected error: {type(error).__name__}{': ' if words else ''}{words}")
        self.__cause__ = error


_WORDS_LIMIT = 300
"""Longest message of an exception, in characters: it may quote what a host has sent."""


ENTRIES_LIMIT = 250_000
"""Most entries that are read of one folder, and most that are kept of all folders of a source."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """An entry of a folder: a regular file with its stat, or a folder, whose ``stat`` is ``None``."""

    name: str
    stat: LogStat | None


def too_many_entries(folder: str) -> LogProblem:
    """Return the problem of a folder with more than :data:`ENTRIES_LIMIT` entries."""
    return LogProblem(
        "too_many",
        f"{folder} has more than {ENTRIES_LIMIT} entries",
        "name the file more exactly: a last part without a glob is looked up directly; or move old files away",
    )


NO_KNOWN_STATS: Mapping[str, LogStat] = MappingProxyType({})


class LogSource(Protocol):
    """The logs of one file system."""

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
        """Requests over the network that were awaited since the start; 0 for a local source."""
        ...

    @property
    def reconnects(self) -> int:
        """Connections made after the first (0 for a local source)."""
        ...

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        """Return the stats of many logs at once.

        Args:
            paths: logs whose stat is returned if they exist.
            known: other logs with their last stat. They are returned only if that has changed, with ``None`` if the
                log is gone. Idle logs are polled in this way, so it must cost little more than the system call.

        Returns:
            A stat or a problem for each path; missing logs of ``paths`` are left out.

        Raises:
            SourceUnavailable: the source does not answer.
        """
        ...

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        """Return bytes of several logs in the order of ``requests``; fewer than requested at the end of a log.

        Raises:
            SourceUnavailable: the source does not answer.
        """
        ...

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        """Return the regular files of ``folder`` by name, without its subfolders; nothing if it does not exist.

        Raises:
            LogProblem: the folder cannot be listed.
            SourceUnavailable: the source does not answer.
        """
        ...

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """Return those of ``folders`` that do not exist, or are not folders.

        A folder without access does not count as missing: it may exist.

        Raises:
            SourceUnavailable: the source does not answer.
        """
        ...

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """Visit the files and folders of ``folder`` one by one. Nothing of them is read or kept.

        Args:
            folder: the folder; one that does not exist has no entries.
            names: the name of the only entry to visit, or a pattern that whole names must match.
            visit: called with each entry; returns ``True`` to stop. After a lost connection it may get entries again.
            within: folders that must hold the entries after links are resolved; ``None`` if links may lead anywhere.
                Other entries are left out.

        Raises:
            LogProblem: the folder cannot be listed, leads elsewhere, or has more than :data:`ENTRIES_LIMIT` entries.
            SourceUnavailable: the source does not answer.
        """
        ...

    def close(self) -> None:
        """Close connections. May be called from any thread, to end a wait of the source's thread."""
        ...
