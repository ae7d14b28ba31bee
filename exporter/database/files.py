"""Inspects the files of an SQLite database and finds out whether another process uses them.

SQLite keeps committed changes in a file ``-wal`` beside the database. In other journal modes it keeps the old pages in
a file ``-journal``. The last process that closes the database removes these files. A killed process leaves them behind,
and the next process that opens the database applies them. This damages a database that was restored from a backup in
the meantime. So these files and SQLite's locks are checked before the database is opened.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_LOCK = "hhqqi"
"""``struct flock`` on 64-bit Linux: type, whence, start, length, pid."""

_DATABASE_LOCKS = (0x40000000, 512)
"""Offset and number of the bytes that SQLite locks in the database file (https://www.sqlite.org/fileformat.html, "the
lock-byte page"). A connection in WAL mode holds its shared lock there until it is closed."""

_SHM_LOCK = (128, 1)
"""Offset and number of the bytes of ``-shm`` on which every connection in WAL mode holds a shared lock
(``UNIX_SHM_DMS`` in ``os_unix.c``)."""

_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BTIME_AT = 0x50
_STATX_BYTES = 256
"""``struct statx`` (``linux/stat.h``): flag and offset of the birth time, and size of the structure."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Result of ``stat``. It changes whenever the file changes, except for two changes within one clock tick."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    born: tuple[int, int] | None
    """Birth time, seconds and nanoseconds. It is needed because a new file often gets the inode of a deleted one."""

    def is_same_file(self, other: FileState) -> bool:
        """Whether both describe the same file."""
        return (self.device, self.inode, self.born) == (other.device, other.inode, other.born)


@dataclass(frozen=True, slots=True)
class DatabaseFiles:
    """The database and the files beside it. ``None`` means that a file is missing or empty."""

    database: FileState
    wal: FileState | None
    journal: FileState | None

    @property
    def unfinished(self) -> FileState | None:
        """The ``-wal`` or ``-journal`` if it has content. The next process may have to apply it to the database."""
        return self.wal or self.journal

    @property
    def newest_ns(self) -> int:
        """Time of the last change of any of them, nanoseconds since the epoch."""
        return max(each.changed_ns for each in (self.database, self.wal, self.journal) if each is not None)


def companion(path: Path, suffix: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database: ``-wal``, ``-shm`` or ``-journal``."""
    return path.with_name(f"{path.name}{suffix}")


def resolve(path: Path) -> Path:
    """Resolve links: SQLite keeps ``-wal`` and ``-shm`` beside the real file."""
    return Path(os.path.realpath(path))


def stat_files(path: Path) -> DatabaseFiles:
    """Get the state of a database's files.

    Args:
        path: the database file.

    Raises:
        OSError: there is no such file, or it is a folder.
    """
    path = resolve(path)
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return DatabaseFiles(
        _state(path, status), _state_of(companion(path, "-wal")), _state_of(companion(path, "-journal"))
    )


class FileUser(Enum):
    """Who uses a database file, according to the locks on it."""

    NOBODY = "nobody"
    OTHERS = "others"
    OTHERS_OF_PREVIOUS_FILE = "others, of the previous file"
    """Others use the ``-shm`` beside the database, but the database that they opened is no longer at the path."""
    THIS_PROCESS = "this process"


def find_user(path: Path) -> FileUser:
    """Find out who has the database at this path open.

    In WAL mode these are all open connections. In other modes it is a process that reads or writes at this instant.

    This process must have no connection open, because closing a file gives up all its locks on that file. If this
    process uses the database anyway, the file is left open so that its locks stay. Do not call this again then.
    """
    path = resolve(path)
    descriptors = [_opened(each) for each in (companion(path, "-shm"), path)]
    shm, database = descriptors
    # A closing process releases -shm first.
    of_shm, of_database = _lock_holder(shm, *_SHM_LOCK), _lock_holder(database, *_DATABASE_LOCKS)
    if os.getpid() in (of_shm, of_database):
        return FileUser.THIS_PROCESS
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
    if of_database is not None:
        return FileUser.OTHERS
    return FileUser.NOBODY if of_shm is None else FileUser.OTHERS_OF_PREVIOUS_FILE


def not_writable(path: Path, *, folder: bool) -> Path | None:
    """Return the first file that SQLite must write and this account may not write; ``None`` if there is none.

    Args:
        path: the database.
        folder: whether the folder must be writable, too, to create or remove ``-wal``, ``-shm`` and ``-journal``.
    """
    path = resolve(path)
    places = [path, companion(path, "-wal"), companion(path, "-shm")]
    for place in [*places, path.parent] if folder else places:
        if os.path.exists(place) and not _may_write(place):
            return place
    return None


def _may_write(place: Path) -> bool:
    needed = os.W_OK | os.X_OK if place.is_dir() else os.W_OK
    return os.access(place, needed, effective_ids=os.access in os.supports_effective_ids)


def _state(path: Path, status: os.stat_result) -> FileState:
    born = _born(path)
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, born)


def _state_of(path: Path) -> FileState | None:
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return _state(path, status) if status.st_size > 0 else None
    return None


def _born(path: Path) -> tuple[int, int] | None:
    """Return the birth time of a file; ``None`` if the system does not know it. ``os.stat`` lacks it on Linux."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    [mask] = struct.unpack_from("I", answer)
    seconds, nanoseconds = struct.unpack_from("qI", answer, _STATX_BTIME_AT)
    return (seconds, nanoseconds) if mask & _STATX_BTIME else None


def _opened(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _lock_holder(descriptor: int | None, start: int, length: int) -> int | None:
    """Return the process id that holds a lock on these bytes (0 if it is not visible); ``None`` if there is none."""
    if descriptor is None:
        return None
    asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    # Asking as an open file description also finds locks of this process.
    answer: tuple[int, ...] = struct.unpack(_LOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    kind, _, _, _, process = answer
    return None if kind == fcntl.F_UNLCK else process
