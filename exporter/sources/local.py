"""Logs on this machine's file systems (network mounts included).

No file is held open between polls, so that others can delete, replace or unmount a log at any time. Only regular files
are opened, and without blocking: a FIFO or a device in the place of a log is not read, and holds nothing up.

Somebody who may write into a folder of logs could put a link there, to a file that only the exporter may read. So a log
outside its folder is not read. Where a link leads is found out from the opened file (``/proc/self/fd``): nobody can
exchange the file between that check and the read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from exporter.sources.log_paths import inside
from exporter.sources.source import (
    ENTRIES_LIMIT,
    NO_KNOWN_STATS,
    FolderEntry,
    LogProblem,
    LogStat,
    ReadRequest,
    link_leads_outside,
    too_many_entries,
)

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FIND_FLAGS = os.O_PATH | os.O_CLOEXEC
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_ADVICE = {
    "permission": "give the exporter's user read access to it and search access to the folders above",
    "not_a_file": "a regular file is expected there; check log_path",
    "path": "check log_path and the beam's id",
    "io": "check the file system it is on",
}

_REMEMBERED_MORE = 1000
"""Files remembered beyond twice the number of logs in one poll: each poll may be of other logs."""


def _problem(action: str, path: str, error: OSError | ValueError) -> LogProblem:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EPERM):
        kind = "permission"
    elif number in (errno.ENAMETOOLONG, errno.ELOOP) or isinstance(error, ValueError):
        kind = "path"
    elif number in (errno.ENXIO, errno.EISDIR):
        kind = "not_a_file"
    else:
        kind = "io"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return LogProblem(kind, f"cannot {action} {path}: {reason}", _ADVICE[kind])


class LocalLogSource:
    """The local file system as a :class:`~exporter.sources.source.LogSource`.

    Args:
        name: the source's name.
        folders: folders that must hold the logs after links are resolved; ``None`` if links may lead anywhere.
    """

    kind = "local"
    round_trips = 0
    reconnects = 0

    def __init__(self, name: str, folders: Collection[str] | None = None) -> None:
        self.name = name
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._identities_before: dict[str, tuple[int, int] | None] = {}
        self._folders = folders
        self._real_folders: tuple[str, ...] | None = None

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        """See :meth:`LogSource.stat`.

        Where a log's path leads is checked only when another file than before is found there.
        """
        found: dict[str, LogStat | LogProblem | None] = {}
        self._real_folders = None  # they may be links themselves, and lead elsewhere than at the last poll
        get_stat = os.stat
        for path, seen in known.items():
            try:
                status = get_stat(path)
            except (OSError, ValueError) as error:
                found[path] = _missing_or_problem(path, error)
                continue
            if (
                status.st_mtime != seen.modified_at
                or status.st_size != seen.size_bytes
                or (status.st_dev, status.st_ino) != seen.identity
            ):
                found[path] = self._checked(path, status, seen.identity)
        if len(self._identities) > _REMEMBERED_MORE + 2 * len(paths):
            # Forget the paths that were not polled since the last time: logs come and go.
            self._identities_before, self._identities = self._identities, {}
        for path in paths:
            try:
                status = get_stat(path)
            except (OSError, ValueError) as error:
                answer: LogStat | LogProblem | None = _missing_or_problem(path, error)
            else:
                before = self._identities.get(path) or self._identities_before.get(path)
                answer = self._checked(path, status, before)
            if isinstance(answer, LogStat):
                self._identities[path] = answer.identity
            else:
                self._identities.pop(path, None)
                self._identities_before.pop(path, None)
            if answer is not None:
                found[path] = answer
        return found

    def _checked(
        self, path: str, status: os.stat_result, before: tuple[int, int] | None
    ) -> LogStat | LogProblem | None:
        """Return what to report about a log; ``before`` is the identity of the file that was there before."""
        if not stat.S_ISREG(status.st_mode):
            return _not_a_file(path)
        if before == (status.st_dev, status.st_ino):
            return LogStat(status.st_size, status.st_mtime, before)
        return _log_stat(status) if self._folders is None else self._new_file(path)

    def _new_file(self, path: str) -> LogStat | LogProblem | None:
        """Return the stat of a new file at ``path`` if it is where logs must be; ``None`` if it is gone."""
        try:
            descriptor = os.open(path, _FIND_FLAGS)
        except OSError as error:
            return None if error.errno in _MISSING else _problem("access", path, error)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return _not_a_file(path)
            return link_leads_outside(path) if self._is_outside_folders(descriptor) else _log_stat(status)
        except OSError as error:
            return _problem("access", path, error)
        finally:
            os.close(descriptor)

    def _is_outside_folders(self, descriptor: int) -> bool:
        """Return whether an opened file is outside the folders of logs."""
        if self._folders is None:
            return False
        if self._real_folders is None:
            self._real_folders = tuple(os.path.realpath(folder) for folder in self._folders)
        try:
            where = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            raise OSError(errno.ENOTSUP, "cannot find out where it is without /proc") from None
        return not inside(where, self._real_folders)

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        """See :meth:`LogSource.read`."""
        return [self._read(request) for request in requests]

    def _read(self, request: ReadRequest) -> bytes | LogProblem:
        try:
            descriptor = os.open(request.path, _OPEN_FLAGS)
        except (OSError, ValueError) as error:
            return _problem("open", request.path, error)
        try:
            # The path may lead to another file than at the poll.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return _not_a_file(request.path)
            if self._is_outside_folders(descriptor):
                return link_leads_outside(request.path)
            return os.pread(descriptor, request.length, request.offset)
        except OSError as error:
            return _problem("read", request.path, error)
        finally:
            os.close(descriptor)

    def listing(self, folder: str) -> Mapping[str, LogStat]:
        """See :meth:`LogSource.listing`."""
        found = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        if entry.is_file():
                            found[entry.name] = _log_stat(self._status(entry))
                    except OSError as error:
                        # Gone meanwhile, or a link that leads nowhere, in a circle or to a forbidden place: no log, and
                        # no reason to leave out the others.
                        if error.errno not in _MISSING and not entry.is_symlink():
                            raise
        except OSError as error:
            if error.errno not in _MISSING:
                raise _problem("list", folder, error) from error
        return found

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result:
        """Return the stat of an entry's file, or of the link itself if it leads outside: its poll will report that."""
        if self._folders is None or not entry.is_symlink():
            return entry.stat()
        descriptor = os.open(entry.path, _FIND_FLAGS)
        try:
            return entry.stat(follow_symlinks=False) if self._is_outside_folders(descriptor) else os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        """See :meth:`LogSource.missing_folders`."""
        return frozenset(folder for folder in folders if _is_missing(folder))

    def entries(
        self,
        folder: str,
        names: str | re.Pattern[str],
        visit: Callable[[FolderEntry], bool],
        within: Collection[str] | None,
    ) -> None:
        """See :meth:`LogSource.entries`."""
        roots = None if within is None else [f"{os.path.realpath(each).rstrip('/')}/" for each in within]
        try:
            if isinstance(names, str):
                # Search access to the folder is enough for one name.
                descriptor = os.open(folder, _FIND_FLAGS | os.O_DIRECTORY)
            else:
                descriptor = os.open(folder, _FOLDER_FLAGS)
            try:
                if _is_outside(descriptor, roots):
                    raise link_leads_outside(folder)
                for name in (names,) if isinstance(names, str) else _names(descriptor, names, folder):
                    entry = _entry(descriptor, name, roots)
                    if entry is not None and visit(entry):
                        return
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            if not isinstance(error, OSError) or error.errno not in _MISSING:
                raise _problem("list", folder, error) from error

    def folder_stamp(self, folder: str) -> object:
        """Return a value that changes when a name comes or goes; ``None`` if the folder has no stat.

        Changes within the resolution of the file system's time stamps may leave it the same.
        """
        try:
            status = os.stat(folder)
        except (OSError, ValueError):
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino

    def close(self) -> None:
        """Do nothing: no file is held open."""


def _is_missing(folder: str) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(folder).st_mode)
    except OSError as error:
        return error.errno in _MISSING
    except ValueError:
        return True  # no path at all


def _names(descriptor: int, names: re.Pattern[str], folder: str) -> Iterator[str]:
    """Yield the names in an opened folder that match as a whole."""
    with os.scandir(descriptor) as entries:
        for number, entry in enumerate(entries):
            if number >= ENTRIES_LIMIT:
                raise too_many_entries(folder)
            if names.fullmatch(entry.name):
                yield entry.name


def _entry(folder: int, name: str, roots: Collection[str] | None) -> FolderEntry | None:
    """Return a file or folder of an opened folder; ``None`` if it is neither, is gone, or is outside ``roots``."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        try:
            descriptor = os.open(name, _FIND_FLAGS, dir_fd=folder)
        except OSError:
            return None  # leads nowhere, in a circle, or to a forbidden place
        try:
            if _is_outside(descriptor, roots):
                return None
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        return FolderEntry(name, None)
    return FolderEntry(name, _log_stat(status)) if stat.S_ISREG(status.st_mode) else None


def _is_outside(descriptor: int, roots: Collection[str] | None) -> bool:
    """Return whether an opened file is in none of ``roots``, which end with a slash; each root is in itself."""
    if roots is None:
        return False
    try:
        where = os.readlink(f"/proc/self/fd/{descriptor}").rstrip("/")
    except FileNotFoundError:
        raise OSError(errno.ENOTSUP, "cannot find out where it is without /proc") from None
    return not any(f"{where}/".startswith(root) for root in roots)


def _missing_or_problem(path: str, error: OSError | ValueError) -> LogProblem | None:
    if isinstance(error, OSError) and error.errno in _MISSING:
        return None
    return _problem("access", path, error)


def _log_stat(status: os.stat_result) -> LogStat:
    return LogStat(status.st_size, status.st_mtime, (status.st_dev, status.st_ino))


def _not_a_file(path: str) -> LogProblem:
    return LogProblem("not_a_file", f"{path} is not a regular file", _ADVICE["not_a_file"])
