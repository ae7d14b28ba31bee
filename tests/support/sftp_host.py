"""A scripted SFTP server over real files, which tells of them what a test wants it to tell."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

INIT, OPEN, CLOSE, READ, LSTAT, OPENDIR, READDIR, REALPATH, STAT = 1, 3, 4, 5, 7, 11, 12, 16, 17
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, UNSUPPORTED = 0, 1, 2, 3, 4, 8


@dataclass(frozen=True)
class Told:
    """What the server tells of a file; ``None`` where it does not."""

    size: int | None
    mode: int | None
    modified: int | None

    @property
    def packed(self) -> bytes:
        """The attributes as they are sent."""
        flags, body = 0, b""
        if self.size is not None:
            flags, body = flags | 1, body + struct.pack(">Q", self.size)
        if self.mode is not None:
            flags, body = flags | 4, body + struct.pack(">I", self.mode)
        if self.modified is not None:
            flags, body = flags | 8, body + struct.pack(">II", 0, self.modified)
        return struct.pack(">I", flags) + body


Telling = Callable[[Told], Told]


def everything(told: Told) -> Told:
    """As OpenSSH tells."""
    return told


def nothing(_: Told) -> Told:
    """No attribute at all."""
    return Told(None, None, None)


def without_size(told: Told) -> Told:
    return replace(told, size=None)


def without_time(told: Told) -> Told:
    return replace(told, modified=None)


def without_mode(told: Told) -> Told:
    return replace(told, mode=None)


def without_type(told: Told) -> Told:
    """A mode that holds permissions alone."""
    return replace(told, mode=None if told.mode is None else stat.S_IMODE(told.mode))


class SftpHost:
    """Answers as a channel to its SFTP subsystem would. For one thread.

    Args:
        listed: what a listing tells of each entry.
        lstat: what LSTAT tells; ``None``: it is not supported.
        stat: what STAT tells.
        names_at_once: entries in one answer to READDIR.

    Attributes:
        asked: how often each kind of question was asked.
    """

    def __init__(
        self,
        listed: Telling = everything,
        lstat: Telling | None = everything,
        stat: Telling = everything,
        names_at_once: int = 100,
    ) -> None:
        self.listed, self.lstat, self.stat = listed, lstat, stat
        self.asked: dict[int, int] = {}
        self._names_at_once = names_at_once
        self._received = b""
        self._answers = bytearray()
        self._folders: dict[bytes, tuple[Path, list[str]]] = {}
        self._files: dict[bytes, Path] = {}
        self._handles = 0

    def sendall(self, data: bytes, /) -> None:
        """Take questions, and have their answers ready."""
        self._received += data
        while len(self._received) >= 4:
            end = 4 + struct.unpack_from(">I", self._received)[0]
            if len(self._received) < end:
                return
            packet, self._received = self._received[4:end], self._received[end:]
            self._answer(packet[0], packet[1:])

    def recv(self, size: int, /) -> bytes:
        """The next bytes of the answers."""
        data = bytes(self._answers[:size])
        del self._answers[:size]
        return data

    def close(self) -> None:
        """End the session."""

    def _send(self, kind: int, number: bytes, body: bytes) -> None:
        self._answers += struct.pack(">IB", 1 + len(number) + len(body), kind) + number + body

    def _status(self, number: bytes, code: int) -> None:
        self._send(STATUS, number, struct.pack(">I", code) + _string(b"no") + _string(b""))

    def _answer(self, kind: int, body: bytes) -> None:
        if kind == INIT:
            self._send(2, b"", struct.pack(">I", 3))
            return
        self.asked[kind] = self.asked.get(kind, 0) + 1
        number, text = body[:4], _text(body)
        try:
            self._do(kind, number, text, body)
        except FileNotFoundError:
            self._status(number, NO_SUCH_FILE)
        except OSError:
            self._status(number, FAILURE)

    def _do(self, kind: int, number: bytes, text: bytes, body: bytes) -> None:
        path = Path(os.fsdecode(text))
        if kind in (LSTAT, STAT):
            telling = self.lstat if kind == LSTAT else self.stat
            if telling is None:
                self._status(number, UNSUPPORTED)
                return
            self._send(ATTRS, number, telling(_of(path, follow=kind == STAT)).packed)
        elif kind == REALPATH:
            self._send(NAME, number, _names([(os.path.realpath(path), Told(None, None, None))]))
        elif kind == OPENDIR:
            self._folders[self._handle(number)] = (path, sorted([*os.listdir(path), ".", ".."]))
        elif kind == READDIR:
            folder, names = self._folders[text]
            if not names:
                self._status(number, EOF)
                return
            some, names[:] = names[: self._names_at_once], names[self._names_at_once :]
            self._send(NAME, number, _names([(name, self.listed(_of(folder / name, follow=False))) for name in some]))
        elif kind == OPEN:
            path.stat()
            self._files[self._handle(number)] = path
        elif kind == READ:
            offset, length = struct.unpack_from(">QI", body, 8 + len(text))
            with self._files[text].open("rb") as file:
                file.seek(offset)
                data = file.read(length)
            if data:
                self._send(DATA, number, _string(data))
            else:
                self._status(number, EOF)
        else:
            self._status(number, OK if kind == CLOSE else UNSUPPORTED)

    def _handle(self, number: bytes) -> bytes:
        self._handles += 1
        handle = str(self._handles).encode()
        self._send(HANDLE, number, _string(handle))
        return handle


def _of(path: Path, *, follow: bool) -> Told:
    status = path.stat() if follow else path.lstat()
    return Told(status.st_size, status.st_mode, int(status.st_mtime))


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _text(body: bytes) -> bytes:
    return body[8 : 8 + struct.unpack_from(">I", body, 4)[0]]


def _names(entries: Sequence[tuple[str, Told]]) -> bytes:
    packed = [_string(os.fsencode(name)) + _string(b"") + told.packed for name, told in entries]
    return struct.pack(">I", len(entries)) + b"".join(packed)
