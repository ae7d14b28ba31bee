"""Logs on this machine's file systems (network mounts included).

Nothing is held open between looks: a log may be deleted, replaced or unmounted at any time, and the communicator must
be able to. Only regular files are opened, and without blocking, so that a FIFO or a device where a log should be
neither holds up the loop nor is read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping, Sequence

from exporter.logs.source import LogProblem, LogStat, ReadRequest

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})
_ADVICE = {
    "permission": "give the exporter's user read access to it and search access to the folders above",
    "not_a_file": "a regular file is expected there; check log_path",
    "path": "check log_path and the beam's id",
    "io": "check the file system it is on",
}

_REMEMBERED_MORE = 20_000
"""So many more answers are remembered than logs are asked for at once: each look may ask for some of them."""


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


class LocalSource:
    """The local file system as a :class:`~exporter.logs.source.LogSource`.

    Args:
        name: the source's name.
    """

    kind = "local"
    round_trips = 0
    reconnects = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: dict[str, LogStat] = {}

    def stat(self, paths: Collection[str]) -> Mapping[str, LogStat | LogProblem]:
        """See :meth:`LogSource.stat`.

        A log that has not changed is answered with the very object of the time before: making one takes as long as
        asking the kernel, and to whoever asks, ten thousand idle logs are ten thousand comparisons by identity.
        """
        found: dict[str, LogStat | LogProblem] = {}
        known = self._found
        if len(known) > _REMEMBERED_MORE + 2 * len(paths):
            known.clear()
        for path in paths:
            try:
                status = os.stat(path)
            except (OSError, ValueError) as error:
                if not (isinstance(error, OSError) and error.errno in _MISSING):
                    found[path] = _problem("look at", path, error)
                continue
            before = known.get(path)
            if (
                before is not None
                and before.size_bytes == status.st_size
                and before.modified_at == status.st_mtime
                and before.identity == (status.st_dev, status.st_ino)
            ):
                found[path] = before
            elif stat.S_ISREG(status.st_mode):
                found[path] = known[path] = _log_stat(status)
            else:
                known.pop(path, None)
                found[path] = _not_a_file(path)
        return found

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        """See :meth:`LogSource.read`."""
        return [self._read(request) for request in requests]

    def _read(self, request: ReadRequest) -> bytes | LogProblem:
        try:
            descriptor = os.open(request.path, _OPEN_FLAGS)
        except (OSError, ValueError) as error:
            return _problem("open", request.path, error)
        try:
            # The name may mean something else than when it was looked at.
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return _not_a_file(request.path)
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
                            found[entry.name] = _log_stat(entry.stat())
                    except OSError as error:
                        # Gone between the listing and the look, or a link that leads nowhere, in a circle or to where
                        # we may not look: no log, and no reason to see none of the others.
                        if error.errno not in _MISSING and not entry.is_symlink():
                            raise
        except OSError as error:
            if error.errno not in _MISSING:
                raise _problem("list", folder, error) from error
        return found

    def folder_mark(self, folder: str) -> object:
        """Something that is another after a name has come or gone; ``None`` where the folder cannot be looked at.

        A change within the granularity of the file system's time stamps may leave it as it was.
        """
        try:
            status = os.stat(folder)
        except (OSError, ValueError):
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino

    def close(self) -> None:
        """Nothing is held open."""


def _log_stat(status: os.stat_result) -> LogStat:
    return LogStat(status.st_size, status.st_mtime, (status.st_dev, status.st_ino))


def _not_a_file(path: str) -> LogProblem:
    return LogProblem("not_a_file", f"{path} is not a regular file", _ADVICE["not_a_file"])
