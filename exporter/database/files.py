"""The files of an SQLite database: what they are now, and whether another process uses them.

SQLite keeps committed changes in a file ``-wal`` beside the database (or, in other journal modes, the old pages in a
file ``-journal``). The last process that closes the database empties and removes these files. A process that is killed
leaves them behind, and whoever opens the database next applies them. That damages a database that was restored from a
backup in the meantime. Therefore we look at these files, and at SQLite's locks, before we open anything.
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
"""First byte and number of the bytes that SQLite locks in the database file (https://www.sqlite.org/fileformat.html,
"the lock-byte page"). A connection in WAL mode holds its shared lock there until it is closed."""

_SHM_LOCK = (128, 1)
"""The byte of ``-shm`` that every connection in WAL mode holds a shared lock on (``UNIX_SHM_DMS`` in ``os_unix.c``)."""


_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BTIME_AT = 0x50
_STATX_BYTES = 256
"""Of ``struct statx``: the flag and the place of the time of birth, and its size (``linux/stat.h``)."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What ``stat`` says of a file. It changes with each change of the file, but for two within one clock tick."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int
    born: tuple[int, int] | None
    """When the file was made, seconds and nanoseconds; a new file often gets the inode of one that was deleted."""

    def is_same_file(self, other: FileState) -> bool:
        """Whether both are states of one file."""
        return (self.device, self.inode, self.born) == (other.device, other.inode, other.born)


@dataclass(frozen=True, slots=True)
class DatabaseFiles:
    """The database and the files beside it at one moment; ``None`` where a file is not there or is empty."""

    database: FileState
    wal: FileState | None
    journal: FileState | None

    @property
    def unfinished(self) -> FileState | None:
        """A ``-wal`` or ``-journal`` with content: an opening process may have to apply it to the database."""
        return self.wal or self.journal

    @property
    def newest_ns(self) -> int:
        """When one of them was last changed, nanoseconds since the epoch."""
        return max(each.changed_ns for each in (self.database, self.wal, self.journal) if each is not None)


def companion(path: Path, suffix: str) -> Path:
    """One of the files that SQLite keeps beside a database: ``-wal``, ``-shm`` or ``-journal``."""
    return path.with_name(f"{path.name}{suffix}")


def resolve(path: Path) -> Path:
    """Where the database is that a link leads to: SQLite keeps ``-wal`` and ``-shm`` there."""
    return Path(os.path.realpath(path))


def stat_files(path: Path) -> DatabaseFiles:
    """The files of a database now.

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
    """Who uses a database file, by the locks on it."""

    NOBODY = "nobody"
    OTHERS = "others"
    OTHERS_OF_ANOTHER_FILE = "others, of another file"
    """They use the ``-shm`` that lies beside the database, but the database they opened is not at the path any more."""
    THIS_PROCESS = "this process"


def find_user(path: Path) -> FileUser:
    """Who has the database at this path open.

    In WAL mode that is everybody who has used it since, in other modes who reads or writes at this moment.

    No connection of our own may be open: when a process closes a file, it gives up all its locks on that file. If this
    process turns out to use the database all the same, the file is left open, so that its locks stay. Do not ask again.
    """
    path = resolve(path)
    descriptors = [_opened(each) for each in (companion(path, "-shm"), path)]
    shm, database = descriptors
    # Who closes the database lets go of -shm first.
    of_shm, of_database = _lock_holder(shm, *_SHM_LOCK), _lock_holder(database, *_DATABASE_LOCKS)
    if os.getpid() in (of_shm, of_database):
        return FileUser.THIS_PROCESS
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
    if of_database is not None:
        return FileUser.OTHERS
    return FileUser.NOBODY if of_shm is None else FileUser.OTHERS_OF_ANOTHER_FILE


def not_writable(path: Path, *, folder: bool) -> Path | None:
    """The first of the files SQLite must write that this account may not write; ``None`` if it may write all.

    Args:
        path: the database.
        folder: the folder must be writable, too. It is needed to make or remove ``-wal``, ``-shm`` and ``-journal``.
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
    """When a file was made; ``None`` where the system does not tell. Python's ``os.stat`` never does on Linux."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    [told] = struct.unpack_from("I", answer)
    seconds, nanoseconds = struct.unpack_from("qI", answer, _STATX_BTIME_AT)
    return (seconds, nanoseconds) if told & _STATX_BTIME else None


def _opened(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None


def _lock_holder(descriptor: int | None, start: int, length: int) -> int | None:
    """The process that holds a lock on some of these bytes (0 if it is out of sight); ``None`` if there is none."""
    if descriptor is None:
        return None
    asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    # A lock of an open file description is in the way of this process's own locks, too.
    answer: tuple[int, ...] = struct.unpack(_LOCK, fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    kind, _, _, _, process = answer
    return None if kind == fcntl.F_UNLCK else process
