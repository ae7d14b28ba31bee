"""Answers of an SFTP server, as they should be and as nobody would send them: data or one error, and never too much.

The first byte of an input says what is asked, how the server begins and whether it ever ends; then come its answers.
Each is a byte that says its kind, whose question it answers and how true its length is, then the length and the body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from exporter.sources.source import LogProblem, LogStat, ReadRequest
from exporter.sources.ssh import sftp, sftp_messages
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_logs import SftpLogs
from exporter.sources.ssh.sftp_messages import SftpError
from tests.fuzz.choices import Choices
from tests.fuzz.target import Check, Target

STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
_KINDS = (STATUS, HANDLE, DATA, NAME, ATTRS, 2, 0, 255)
_ENTRIES, _ANSWERS_BYTES, _READDIRS = 40, 4_000, 4
"""Instead of a million, 256 MiB and 512."""
_MOST_BYTES = 2 * sftp_messages.PACKET_LIMIT
"""More than this need not be read of any server: one packet, and answers in all, are bounded."""


class _Host:
    """A server that answers from a script; one that never ends gives its last answer again and again."""

    def __init__(self, script: bytes, endless: bool, greeting: bytes) -> None:
        self.sent_bytes = 0
        self._choices = Choices(script)
        self._endless = endless
        self._last = (0, b"")
        self._ready = greeting
        self._asked: list[int] = []
        self._buffer = b""

    def sendall(self, data: bytes, /) -> None:
        self._buffer += data
        while len(self._buffer) >= 4 and len(self._buffer) >= 4 + (length := struct.unpack(">I", self._buffer[:4])[0]):
            packet, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            if packet[0] != 1:
                self._asked.append(struct.unpack(">I", packet[1:5])[0])

    def recv(self, size: int, /) -> bytes:
        if not self._ready:
            self._ready = self._answer()
        data, self._ready = self._ready[:size], self._ready[size:]
        self.sent_bytes += len(data)
        assert self.sent_bytes < _MOST_BYTES, "an endless server must be given up"
        return data

    def _answer(self) -> bytes:
        if self._choices.left:
            self._last = self._choices.number(), self._choices.text()
        elif not self._endless:
            return b""
        form, body = self._last
        match (form >> 3) & 3:
            case 3:
                number = form * 0x01010101 & 0xFFFFFFFF
            case 2 if self._asked:
                number = self._asked.pop()
            case _:
                number = self._asked.pop(0) if self._asked else 0
        length = len(body) + 5
        match form >> 5:
            case 6:
                length += 1
            case 7:
                return struct.pack(">IB", 0xFFFFFFFF, form) + body
        return struct.pack(">IBI", length, _KINDS[form & 7], number) + body

    def close(self) -> None:
        pass


@contextmanager
def _opened() -> Iterator[Check]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sftp, "ENTRIES_LIMIT", _ENTRIES)
        patch.setattr(sftp, "ANSWERS_LIMIT_BYTES", _ANSWERS_BYTES)
        patch.setattr(sftp, "_READDIRS_AT_ONCE", _READDIRS)
        yield _check


def _check(data: bytes) -> None:
    first, script = (data[0], data[1:]) if data else (0, b"")
    greeting = script[:8] if first & 16 else struct.pack(">IBI", 5, 2, 3)
    with suppress(SftpError):
        folders = ["/l"] if first & 32 else None
        _ask(SftpLogs(SftpSession(_Host(script, bool(first & 8), greeting)), folders), first & 3)


def _ask(logs: SftpLogs, question: int) -> None:
    if question == 0:
        for answer in logs.stat(["/l/a.log", "/l/b.log", "/m/c.log"]).values():
            assert isinstance(answer, LogStat) or len(str(answer)) < 1000
    elif question == 1:
        with suppress(LogProblem):
            assert all(isinstance(stat, LogStat) for stat in logs.listing("/l").values())
    else:
        wanted = [ReadRequest("/l/a.log", 0, 40_000), ReadRequest("/l/b.log", 7, 100)]
        for request, read in zip(wanted, logs.read(wanted), strict=True):
            assert isinstance(read, LogProblem) or len(read) <= request.length


def _said(form: int, body: bytes) -> bytes:
    return bytes([form, len(body)]) + body


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


_ATTRIBUTES = struct.pack(">IQIIIII", 15, 4096, 0, 0, 0o100644, 0, 1_700_000_000)
_ENTRY = _string(b"a.log") + _string(b"-rw-r--r-- a.log") + _ATTRIBUTES
_END = _said(0, struct.pack(">I", 1) + _string(b"End of file") + _string(b""))
_NO = _said(0, struct.pack(">I", 3) + _string(b"Permission denied") + _string(b""))
_OPEN = _said(1, _string(b"handle"))
_LINK = _string(b"b.log") + _string(b"") + struct.pack(">II", 4, 0o120777)


def _seeds() -> Iterator[bytes]:
    entries = _said(3, struct.pack(">I", 2) + _ENTRY + _LINK)
    for endless in (0, 8):
        yield bytes([endless]) + _OPEN + _OPEN + entries + _END + _END + entries + _END + _END + _said(4, _ATTRIBUTES)
        yield bytes([1 | endless]) + _OPEN + entries + _END + _END + _said(4, _ATTRIBUTES)
        yield bytes([1 | endless]) + _OPEN + _said(3, struct.pack(">I", 0))
        yield bytes([1 | endless]) + _NO
        yield bytes([2 | endless]) + _OPEN + _OPEN + _said(2, _string(b"x" * 90)) + _END + _END
        yield bytes([2 | endless]) + _OPEN + _NO + _said(2, _string(b"x" * 90)) * 3
        yield bytes([16 | endless]) + b"Welcome to our cluster!\r\n"


TARGET = Target(
    _opened,
    _seeds,
    words=(
        *(_ENTRY, _LINK, _ATTRIBUTES, _END, _NO, _OPEN, struct.pack(">I", 0xFFFFFFFF), struct.pack(">I", 0)),
        *(bytes([kind | whose << 3 | length << 5]) for kind in range(5) for whose in (0, 2, 3) for length in (0, 6, 7)),
    ),
    longest_bytes=600,
    examples=120,
)
