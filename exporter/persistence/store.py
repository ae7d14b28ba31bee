"""A file that is whole or not there, for one process: lines of JSON between a head and a checksum.

It is written beside its place and renamed into it, so whoever reads it after a crash finds the one before or the one
after. A process holds a lock on ``PATH.lock`` while it uses ``PATH``: the file itself is another one after each write.
What is found there may be anything: nothing in it is believed before head and checksum are right.

With a :class:`~exporter.privacy.encryption.Seal` the lines are encrypted; only the head of the file can be read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from exporter import __version__
from exporter.persistence.old_state import upgraded_lines
from exporter.privacy.encryption import Seal, SealBroken

FORMAT = "mqi-beam-exporter state"
VERSION = 2
"""Goes up when a state is no longer what it was; what an older or newer exporter has written is not read."""

LARGEST_BYTES = 64 << 20
"""Ten thousand beams are about 17 MB."""

_SQLITE_MAGIC = b"SQLite format 3\0"
_SEALED = "sealed"
_LONGEST_HEAD_BYTES = 1024


class StateInUse(Exception):
    """Another process uses the file."""


class StateUnusable(Exception):
    """What stands in the file cannot be used; the message says why, without naming the file or anything in it."""


class StateReadable(StateUnusable):
    """The same of a file of ours that is not sealed although it should be: whatever stands in it can be read."""


class StateNotOurs(StateUnusable):
    """The file is somebody's database, or no file at all: it must not be touched."""


class StateTooLarge(OSError):
    """More would be written than a file may hold."""


class StateFile:
    """One state file. Used by one thread at a time.

    Args:
        path: the file; its folder must exist.
        seal: seals what is written; nothing is sealed without.
    """

    def __init__(self, path: Path, seal: Seal | None = None) -> None:
        self.path = path
        self._seal = seal
        self._lock: int | None = None

    def lock(self) -> None:
        """Keep others off the file until :meth:`close`.

        Raises:
            StateInUse: another process has done so.
            OSError: the folder cannot be written, so nobody can.
        """
        if self._lock is not None:
            return
        name = f"{self.path}.lock"
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(lock)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                # Somebody else's file may be linked to this name; it would be emptied below.
                raise OSError(errno.EEXIST, f"{name} is not a lock file of ours; remove it")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            process = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise StateInUse(
                f"another exporter (process {process or 'unknown'}) uses this state file; give each exporter its own "
                "state.file, or end the other one"
            ) from None
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def close(self) -> None:
        """Let others have the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> list[bytes] | None:
        """The lines that were written last, sealed or not; ``None`` where there is no file.

        Raises:
            StateReadable: it is not a whole file of this version, and not sealed although there is a seal.
            StateUnusable: it is not a whole file of this format and version, or is sealed with another key.
        """
        try:
            # A pipe at the path must not hold up the start.
            opened = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnusable(f"cannot be read: {error.strerror}") from error
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            os.close(opened)
            raise StateNotOurs("is not a file")
        with open(opened, "rb") as file:
            try:
                data = file.read(LARGEST_BYTES + 1)
            except OSError as error:
                raise StateUnusable(f"cannot be read: {error.strerror}") from error
        if data.startswith(_SQLITE_MAGIC):
            raise StateNotOurs("is an SQLite database")
        if status.st_uid not in (os.geteuid(), 0):
            raise StateUnusable("belongs to another user")
        if self._seal is None or _is_sealed(data):
            return self._checked(data)
        try:
            return self._checked(data)
        except StateUnusable as error:
            if _head(data).get("format") != FORMAT:
                raise  # somebody else's file
            raise StateReadable(str(error)) from None

    def write(self, lines: Iterable[bytes], at: float) -> None:
        """Put ``lines`` in the place of what stood there.

        Args:
            lines: JSON, each without a newline.
            at: now, epoch seconds.

        Raises:
            StateTooLarge: there are too many; what stood there still does.
            OSError: they cannot be written; what stood there still does.
        """
        beside = f"{self.path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(opened, "wb") as file:
                digest = hashlib.sha256()
                size = 0
                head = {"format": FORMAT, "version": VERSION, "exporter": __version__, "written_at": at}
                if self._seal is not None:
                    head[_SEALED] = True
                    lines = self._seal.sealed(lines)
                for line in itertools.chain([json.dumps(head).encode()], lines):
                    data = line + b"\n"
                    size += len(data)
                    if size > LARGEST_BYTES:
                        raise StateTooLarge(f"the state is larger than {LARGEST_BYTES} bytes")
                    digest.update(data)
                    file.write(data)
                file.write(json.dumps({"sha256": digest.hexdigest()}).encode() + b"\n")
                file.flush()
                os.fsync(opened)
            os.replace(beside, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self) -> Path:
        """Give the file another name, so that it can be looked at; an earlier one of that name is lost.

        Raises:
            OSError: it cannot be renamed.
        """
        os.replace(self.path, self.aside)
        return self.aside

    @property
    def aside(self) -> Path:
        """The other name."""
        return self.path.with_name(f"{self.path.name}.set-aside")

    def remove(self) -> None:
        """Delete the file.

        Raises:
            OSError: it cannot be deleted.
        """
        os.unlink(self.path)

    def _checked(self, data: bytes) -> list[bytes]:
        """The lines between head and checksum, as they were before they were sealed.

        Raises:
            StateUnusable: they are not there, or not as they were written.
        """
        lines = _checked(data)
        if _is_sealed(data):
            if self._seal is None:
                raise StateUnusable("is sealed, and privacy.identifiers is plain: there is no key to open it")
            try:
                lines = self._seal.opened(lines)
            except SealBroken as error:
                raise StateUnusable(str(error)) from None
        if _head(data).get("version") == VERSION:
            return lines
        try:
            return upgraded_lines(lines)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StateUnusable("holds what it should not") from None


def is_readable(path: Path) -> bool:
    """Whether a file is there that is not sealed.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return not _is_sealed(file.readline(_LONGEST_HEAD_BYTES))
    except FileNotFoundError:
        return False


def _is_sealed(data: bytes) -> bool:
    return _head(data).get(_SEALED) is True


def _head(data: bytes) -> dict[str, object]:
    return _parsed(data[: data.find(b"\n") + 1])


def _checked(data: bytes) -> list[bytes]:
    """The lines between head and checksum.

    Raises:
        StateUnusable: they are not there, or not as they were written.
    """
    if not data:
        raise StateUnusable("is empty")
    if len(data) > LARGEST_BYTES:
        raise StateUnusable(f"is larger than {LARGEST_BYTES} bytes")
    head = _head(data)
    if head.get("format") != FORMAT:
        raise StateUnusable("was not written by this exporter, or its beginning is damaged")
    version = head.get("version")
    if version not in (1, VERSION):
        newer = isinstance(version, int) and version > VERSION
        raise StateUnusable(
            f"was written by {'a newer' if newer else 'another'} exporter (version {version!r}, not {VERSION})"
        )
    last = data.rfind(b"\n", 0, -1) + 1
    checksum = _parsed(data[last:])
    if not data.endswith(b"\n") or "sha256" not in checksum:
        raise StateUnusable("is cut off")
    if checksum["sha256"] != hashlib.sha256(data[:last]).hexdigest():
        raise StateUnusable("is damaged: its checksum is another")
    return data[:last].splitlines()[1:]


def _parsed(line: bytes) -> dict[str, object]:
    """A line that should be a JSON object; an empty one where it is not."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
