"""What can happen to a log between two looks, and during one: what is read is what a simple reader would believe.

An input is a list of happenings, each a byte and what belongs to it. The reader it is held against keeps all it has
read: at each look it goes on where the log still holds the bytes it compares, and begins again where it does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.sources import tailer as tailer_module
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogStat
from exporter.sources.tail_lines import LAST_BYTES
from exporter.sources.tailer import Tailer
from tests.fuzz.choices import Choices
from tests.fuzz.target import Check, Target, scratch

_ANCHOR, _READ, _SLACK = 4, 32, 8
"""Instead of 256 bytes, 1 MiB and 4 KiB: all edges are met by short logs."""
_HAPPENINGS = ("append", "look", "truncate", "rewrite", "replace", "delete", "restart", "append during the look")


class _Log:
    """The log, and how it is followed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = LocalLogSource("local")
        self.tailer = Tailer(str(path))
        self.saved = self.tailer.position
        self.read = b""
        self.expected = b""
        self._time = 1_000_000_000
        path.unlink(missing_ok=True)

    @property
    def content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def write(self, content: bytes) -> None:
        """Let it hold this; each time the clock has gone on."""
        self.path.write_bytes(content)
        self._time += 1
        os.utime(self.path, (self._time, self._time))

    def replace(self, content: bytes) -> None:
        """Another file of the same name."""
        self.path.unlink(missing_ok=True)
        self.write(content)

    def look(self, meanwhile: bytes = b"") -> None:
        """Read all there is; ``meanwhile`` is written between the look and the read."""
        name = str(self.path)
        stat = self.source.stat([name]).get(name)
        if not isinstance(stat, LogStat) or not self.tailer.changed(stat):
            return
        if meanwhile:
            self.write(self.content + meanwhile)
        content, offset = self.content, self.tailer.offset
        compared = self._compared()
        goes_on = stat.size_bytes >= offset and content[max(0, offset - compared) : offset] == self.read[-compared:]
        more, rounds = True, 0
        while more:
            [data] = self.source.read([self.tailer.request(stat)])
            assert isinstance(data, bytes)
            assert len(data) <= _READ + LAST_BYTES
            rounds += 1
            assert rounds <= 3 + len(content) // _READ, "a look must come to its end"
            chunk = self.tailer.receive(data)
            if chunk is None:
                continue
            if chunk.replaced:
                self.read = b""
            self.read += chunk.data
            self.saved = self.tailer.position
            more = chunk.more
        assert self.tailer.offset == len(self.read)
        assert len(self.tailer.last_bytes) <= LAST_BYTES
        assert self.read.endswith(self.tailer.last_bytes)
        before = self.expected if goes_on else b""
        # What is written during the look comes along as far as it is asked for; the next look brings the rest.
        assert stat.size_bytes <= len(self.read) <= len(content)
        self.expected = before + content[len(before) : len(self.read)]
        assert self.read == self.expected

    def _compared(self) -> int:
        """So many bytes before its offset are compared."""
        saved = self.tailer._before
        return saved.before_bytes if saved is not None else min(_ANCHOR, len(self.tailer.last_bytes))

    def restart(self) -> None:
        """Go on as the next process does, with what was saved after the last read."""
        self.tailer = Tailer.at(self.saved)


@contextmanager
def _opened() -> Iterator[Check]:
    with pytest.MonkeyPatch.context() as patch, scratch() as folder:
        patch.setattr(tailer_module, "ANCHOR_BYTES", _ANCHOR)
        patch.setattr(tailer_module, "READ_BYTES", _READ)
        patch.setattr(tailer_module, "_SLACK_BYTES", _SLACK)
        path = folder / "a.log"
        yield lambda data: _check(data, path)


def _check(data: bytes, path: Path) -> None:
    choices, log = Choices(data), _Log(path)
    while choices.left:
        match choices.one_of(_HAPPENINGS):
            case "append":
                log.write(log.content + choices.text())
            case "look":
                log.look()
            case "truncate":
                log.write(log.content[: choices.number()])
            case "rewrite":
                log.write(choices.text())
            case "replace":
                log.replace(choices.text())
            case "delete":
                log.path.unlink(missing_ok=True)
            case "restart":
                log.restart()
            case _:
                log.look(meanwhile=choices.text())
    log.look()


def _step(happening: str, text: bytes | None = None) -> bytes:
    return bytes([_HAPPENINGS.index(happening)]) + (b"" if text is None else bytes([len(text)]) + text)


def _seeds() -> Iterator[bytes]:
    look, restart = _step("look"), _step("restart")
    grown = _step("append", b"first run\n" * 9) + look
    yield grown + _step("append", b"more\n") + look
    yield grown + _step("append during the look", b"more\n" * 20) + look + look
    yield grown + _step("rewrite", b"second run\n" * 12) + look
    yield grown + _step("replace", b"first run\n" * 12) + restart + look
    yield grown + restart + _step("append", b"more\n") + look
    yield grown + _step("delete") + look + _step("append", b"first run\n" * 9) + look
    yield grown + bytes([_HAPPENINGS.index("truncate"), 20]) + look


TARGET = Target(
    _opened,
    _seeds,
    words=(*(bytes([each]) for each in range(len(_HAPPENINGS))), b"run\n", b"\x04run\n", b"\x05\x04run\n"),
    longest_bytes=300,
    examples=80,
)
