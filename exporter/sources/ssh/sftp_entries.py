"""Reads the entries of one folder over SFTP, and converts SFTP attributes to values of a source."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Callable, Collection, Mapping, Sequence

from exporter.sources.log_paths import inside
from exporter.sources.source import FolderEntry, LogProblem, LogStat
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_messages import Attributes, SftpRefusal

_REQUESTS_PER_FOLDER = 500
"""Most entries of one folder that need a request of their own: links, or entries with incomplete attributes."""


class FolderReader:
    """Passes the entries of one folder to a visitor.

    Args:
        session: the SFTP session.
        folder: the folder.
        visit: see :meth:`exporter.sources.source.LogSource.entries`.
        roots: resolved folders that links must lead into; ``None`` if links may lead anywhere.
        lstat: returns the attributes of paths; links are not followed.
    """

    def __init__(
        self,
        session: SftpSession,
        folder: str,
        visit: Callable[[FolderEntry], bool],
        roots: Collection[str] | None,
        lstat: Callable[[Sequence[str]], list[Attributes | SftpRefusal]],
    ) -> None:
        self._session = session
        self._lstat = lstat
        self._folder = folder
        self._visit = visit
        self._roots = roots
        self._requests_left = _REQUESTS_PER_FOLDER

    def read(self, entries: Mapping[str, Attributes]) -> bool:
        """Pass some entries to the visitor.

        Args:
            entries: attributes from a listing, by name.

        Returns:
            Whether the visitor wants no more.
        """
        for name, listed in entries.items():
            attributes = self._followed(posixpath.join(self._folder, name), listed)
            if attributes is None:
                continue
            if not attributes.folder and not attributes.regular:
                continue
            entry = FolderEntry(name, None)
            if not attributes.folder:
                found = to_log_stat(posixpath.join(self._folder, name), attributes)
                if isinstance(found, LogProblem):
                    raise found
                entry = FolderEntry(name, found)
            if self._visit(entry):
                return True
        return False

    def _followed(self, path: str, listed: Attributes) -> Attributes | None:
        """Return the attributes of an entry; links are followed. ``None`` if it is gone or leads outside."""
        attributes = listed
        if not listed.complete:
            self._count_request()
            [answer] = self._lstat([path])
            if isinstance(answer, SftpRefusal):
                if not answer.missing:
                    raise to_problem("stat", path, answer)
                return None
            attributes = answer
        if attributes.plain:
            return attributes
        self._count_request()
        if attributes.link or not attributes.type_known:
            [real] = [None] if self._roots is None else self._session.real_paths([encode_path(path)])
            if self._roots is not None and not (
                isinstance(real, bytes) and inside(f"{decode_path(real)}/", self._roots)
            ):
                return None
        [answer] = self._session.stat([encode_path(path)])
        if isinstance(answer, SftpRefusal):
            return None
        return merge_attributes(answer, attributes)

    def _count_request(self) -> None:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise LogProblem(
                "too_many",
                f"{self._folder} has more than {_REQUESTS_PER_FOLDER} matching links",
                "name the file more exactly",
            )


def encode_path(path: str) -> bytes:
    """Encode a path for SFTP."""
    return path.encode("utf-8", "surrogateescape")


def decode_path(path: bytes) -> str:
    """Decode a path from SFTP; bytes that are not UTF-8 are kept."""
    return path.decode("utf-8", "surrogateescape")


def is_missing_folder(answer: Attributes | SftpRefusal) -> bool:
    """Whether a folder does not exist or is not a folder."""
    if isinstance(answer, SftpRefusal):
        return answer.missing
    return answer.mode is not None and stat.S_IFMT(answer.mode) != 0 and not stat.S_ISDIR(answer.mode)


def to_problem(action: str, path: str, refusal: SftpRefusal) -> LogProblem:
    """Convert a refusal to a problem with advice."""
    if refusal.forbidden:
        advice = "give the account read access to it and search access to the folders above"
        return LogProblem("permission", f"cannot {action} {path}: permission denied", advice)
    return LogProblem("io", f"cannot {action} {path}: {refusal}", "check the file system it is on")


def to_log_stat(path: str, attributes: Attributes) -> LogStat | LogProblem:
    """Convert attributes to size and time of a log."""
    if not attributes.regular:
        return LogProblem("not_a_file", f"{path} is not a regular file", "check log_path")
    if attributes.size_bytes is None or attributes.modified_at is None:
        needed = {"size": attributes.size_bytes, "modification time": attributes.modified_at}
        missing = [name for name, value in needed.items() if value is None]
        return LogProblem(
            "attributes",
            f"the host's SFTP server does not send the {' and '.join(missing)} of {path}",
            "both are needed; OpenSSH's server (`Subsystem sftp internal-sftp`) sends them",
        )
    return LogStat(attributes.size_bytes, attributes.modified_at)


def merge_attributes(first: Attributes, second: Attributes) -> Attributes:
    """Combine two answers about one file. The first one counts if both have a value; a link as second is ignored."""
    if second.link or not second.type_known:
        return first
    return Attributes(
        second.size_bytes if first.size_bytes is None else first.size_bytes,
        second.modified_at if first.modified_at is None else first.modified_at,
        first.mode if first.type_known else second.mode,
    )
