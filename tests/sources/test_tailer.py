from __future__ import annotations

import os
import shutil
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from exporter.logs.events import Anomaly
from exporter.logs.parser import LINE_LIMIT, TpsLogParser
from exporter.sources import tailer as tailer_module
from exporter.sources.line_follower import LocalLogTailer
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, LogStat
from exporter.sources.tailer import ANCHOR_BYTES, READ_BYTES, Tailer
from tests.support.process import PATIENCE_SECONDS, wait_for


class Follower:
    """A log followed to its end at each look; ``content`` is what a reader would believe to be in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = LocalLogSource("local")
        self.tailer = Tailer(str(path))
        self.content = b""
        self.replacements = 0

    def look(self, meanwhile: Callable[[], None] = lambda: None) -> bytes:
        """Read all that is new; returns it. ``meanwhile`` happens to the log between each look and its read."""
        new = b""
        stat = self.source.stat([str(self.path)]).get(str(self.path))
        if not isinstance(stat, LogStat) or not self.tailer.changed(stat):
            return new
        more = True
        while more:
            request = self.tailer.request(stat)
            meanwhile()
            [data] = self.source.read([request])
            if isinstance(data, LogProblem):
                return new
            chunk = self.tailer.receive(data)
            if chunk is None:
                continue
            if chunk.replaced:
                self.replacements += 1
                self.content = new = b""
            self.content += chunk.data
            new += chunk.data
            more = chunk.more
        return new


@pytest.fixture
def followed(tmp_path: Path) -> Follower:
    return Follower(tmp_path / "a.log")


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_only_new_bytes_are_read(followed: Follower) -> None:
    append(followed.path, b"one\ntw")
    assert followed.look() == b"one\ntw"
    assert followed.look() == b""
    append(followed.path, b"o\n")
    assert followed.look() == b"o\n"
    assert followed.replacements == 0


def test_a_truncated_log_is_read_from_its_beginning(followed: Follower) -> None:
    append(followed.path, b"first run\n" * 100)
    followed.look()
    followed.path.write_bytes(b"second\n")
    assert followed.look() == b"second\n"
    assert followed.replacements == 1


def test_a_log_truncated_to_nothing_is_detected_at_once(followed: Follower) -> None:
    append(followed.path, b"first run\n")
    followed.look()
    followed.path.write_bytes(b"")
    assert followed.look() == b""
    assert followed.replacements == 1


def test_a_log_rewritten_longer_in_the_same_inode_is_detected(followed: Follower) -> None:
    append(followed.path, b"first run\n" * 10)
    followed.look()
    inode = followed.path.stat().st_ino
    with followed.path.open("r+b") as file:
        file.truncate(0)
        file.write(b"another run\n" * 50)
    assert followed.path.stat().st_ino == inode
    assert followed.look() == b"another run\n" * 50
    assert followed.replacements == 1


def test_a_log_rewritten_with_the_same_size_is_detected(followed: Follower) -> None:
    append(followed.path, b"a" * 1000)
    followed.look()
    followed.path.write_bytes(b"b" * 1000)
    os.utime(followed.path, ns=(0, followed.path.stat().st_mtime_ns + 1_000_000))
    assert followed.look() == b"b" * 1000


def test_a_log_replaced_by_another_file_is_detected(followed: Follower, tmp_path: Path) -> None:
    append(followed.path, b"first run\n" * 10)
    followed.look()
    other = tmp_path / "other"
    other.write_bytes(b"another run\n" * 50)
    os.replace(other, followed.path)
    assert followed.look() == b"another run\n" * 50


def test_a_copy_that_replaced_its_original_is_continued(followed: Follower, tmp_path: Path) -> None:
    append(followed.path, b"first run\n" * 10)
    followed.look()
    other = tmp_path / "other"
    shutil.copy(followed.path, other)
    append(other, b"goes on\n")
    os.replace(other, followed.path)
    assert followed.look() == b"goes on\n"
    assert followed.replacements == 0


def test_a_deleted_log_may_return_unchanged_or_as_another_log(followed: Follower) -> None:
    append(followed.path, b"first run\n" * 10)
    followed.look()
    followed.path.unlink()
    assert followed.look() == b""
    followed.path.write_bytes(b"first run\n" * 10 + b"more\n")
    assert followed.look() == b"more\n"
    followed.path.unlink()
    followed.look()
    followed.path.write_bytes(b"second run\n" * 20)
    assert followed.look() == b"second run\n" * 20
    assert followed.replacements == 1


def test_bytes_written_during_a_poll_are_read_once(followed: Follower) -> None:
    append(followed.path, b"one\n")
    assert followed.look(lambda: append(followed.path, b"two\n")) == b"one\ntwo\n"
    assert followed.look() == b""
    assert followed.content == followed.path.read_bytes()


def test_a_poll_ends_even_if_the_writer_never_pauses(followed: Follower) -> None:
    append(followed.path, b"one\n")
    looks = []

    def write() -> None:
        looks.append(1)
        append(followed.path, b"x" * 100_000)

    followed.look(write)
    assert len(looks) <= 2
    followed.look()
    assert followed.content == followed.path.read_bytes()


def test_a_log_longer_than_one_read_is_read_in_several_reads(followed: Follower) -> None:
    data = os.urandom(2 * READ_BYTES + 5)
    append(followed.path, data)
    turns = []
    assert followed.look(lambda: turns.append(1)) == data
    assert len(turns) == 3


def test_a_log_replaced_between_two_reads_is_not_mixed_with_the_old_one(followed: Follower) -> None:
    append(followed.path, b"a" * (2 * READ_BYTES))
    replacements = iter([b"b" * (3 * READ_BYTES)])
    turns = []

    def replace() -> None:
        turns.append(1)
        if len(turns) == 2:
            followed.path.write_bytes(next(replacements))

    followed.look(replace)
    followed.look()
    assert followed.content == b"b" * (3 * READ_BYTES)
    assert followed.replacements == 1


def test_a_log_missing_between_stat_and_read_is_continued_when_it_returns(followed: Follower) -> None:
    append(followed.path, b"one\n")
    followed.look()
    append(followed.path, b"two\n")
    assert followed.look(followed.path.unlink) == b""
    followed.path.write_bytes(b"one\ntwo\nthree\n")
    assert followed.look() == b"two\nthree\n"


def test_a_hole_left_by_a_truncation_starts_a_new_log(followed: Follower) -> None:
    with followed.path.open("wb", buffering=0) as writer:
        writer.write(b"first run\n" * 100)
        followed.look()
        os.truncate(followed.path, 0)
        writer.write(b"goes on\n")
    assert followed.look() == bytes(1000) + b"goes on\n"
    assert followed.replacements == 1


def test_a_log_that_shrinks_between_stat_and_read_is_read_again(followed: Follower) -> None:
    append(followed.path, b"first run\n" * 100)
    followed.look()
    append(followed.path, b"x" * 10)
    stat = followed.source.stat([str(followed.path)])[str(followed.path)]
    assert isinstance(stat, LogStat)
    request = followed.tailer.request(stat)
    followed.path.write_bytes(b"new\n")
    [data] = followed.source.read([request])
    assert isinstance(data, bytes)
    assert followed.tailer.receive(data) is None
    assert followed.look() == b"new\n"


NUL_TO_TEXT = bytes.maketrans(b"\0", b"y")


def test_a_gigabyte_without_a_newline_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.log"
    with path.open("wb") as file:
        file.write(b"x" * 1000)
        file.seek(1 << 30)
        file.write(b"\nTime taken by MC engine: 1\n")
    source, tailer, parser = LocalLogSource("local"), Tailer(str(path)), TpsLogParser()
    stat = source.stat([str(path)])[str(path)]
    assert isinstance(stat, LogStat)
    events = []
    tracemalloc.start()
    more = True
    while more:
        [data] = source.read([tailer.request(stat)])
        assert isinstance(data, bytes)
        chunk = tailer.receive(data)
        assert chunk is not None
        # Holes are NUL bytes, which the parser drops; a log of text must be bounded, too.
        events += parser.feed(chunk.data.translate(NUL_TO_TEXT))
        more = chunk.more
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tailer.offset == stat.size_bytes
    assert events[0] == Anomaly("line_too_long")
    assert len(events) == 2
    assert peak < 16 << 20


class RandomLog(RuleBasedStateMachine):
    """Writes, truncations, rotations, deletions and looks against what is in the file.

    Contents are never repeated, as those of different runs are not: a number is written into each piece. Reads are
    short, so that a look takes several, and things happen between them.
    """

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(tailer_module, "READ_BYTES", 2000)
        self.folder = Path(tempfile.mkdtemp())
        self.follower = Follower(self.folder / "a.log")
        self.number = 0
        self.clock = 1_000_000_000_000_000_000

    def teardown(self) -> None:
        # Also called where not even begin() was.
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.folder)

    def piece(self, size: int) -> bytes:
        self.number += 1
        return (b"%d:" % self.number * (size // 3 + 1))[:size] + b"%d;" % self.number

    def touched(self) -> None:
        # A clock as fine as the file system's own may not tell two quick writes apart.
        self.clock += 1_000_000
        os.utime(self.follower.path, ns=(self.clock, self.clock))

    @rule(size=st.sampled_from([0, 1, 10, ANCHOR_BYTES - 1, ANCHOR_BYTES, 5000]), newline=st.booleans())
    def write(self, size: int, newline: bool) -> None:
        append(self.follower.path, self.piece(size) + (b"\n" if newline else b""))
        self.touched()

    @rule(size=st.integers(0, 3000))
    def rewrite_in_place(self, size: int) -> None:
        self.follower.path.write_bytes(self.piece(size))
        self.touched()

    @rule(keep=st.integers(0, 400))
    def truncate(self, keep: int) -> None:
        if self.follower.path.exists():
            with self.follower.path.open("r+b") as file:
                file.truncate(min(keep, self.follower.path.stat().st_size))
            self.touched()

    @rule(size=st.integers(0, 3000))
    def rotate(self, size: int) -> None:
        if self.follower.path.exists():
            os.replace(self.follower.path, self.folder / "a.log.1")
        self.follower.path.write_bytes(self.piece(size))
        self.touched()

    @rule()
    def delete(self) -> None:
        self.follower.path.unlink(missing_ok=True)

    @rule()
    def look(self) -> None:
        self.follower.look()

    @rule(
        size=st.integers(0, 5000),
        reads=st.integers(0, 3),
        act=st.sampled_from(["write", "rewrite_in_place", "truncate", "rotate", "delete"]),
    )
    def look_while_something_happens(self, size: int, reads: int, act: str) -> None:
        turns = iter(range(100))

        def meanwhile() -> None:
            if next(turns, None) != reads:
                return
            if act == "write":
                self.write(size, newline=False)
            elif act == "delete":
                self.delete()
            else:
                getattr(self, act)(size)

        self.follower.look(meanwhile)

    @invariant()
    def what_was_read_is_what_is_there(self) -> None:
        if not hasattr(self, "follower") or not self.follower.path.exists():
            return
        self.follower.look()
        assert self.follower.content == self.follower.path.read_bytes()


class LazyRandomLog(RandomLog):
    """The same with looks only now and then, so that several things happen between two."""

    @invariant()
    def what_was_read_is_what_is_there(self) -> None:
        pass

    @rule()
    def look(self) -> None:
        if self.follower.path.exists():
            self.follower.look()
            assert self.follower.content == self.follower.path.read_bytes()


RandomLog.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
LazyRandomLog.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRandomLog = RandomLog.TestCase
TestLazyRandomLog = LazyRandomLog.TestCase


class Recorder:
    """A logger like the communicator's own."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, Any]] = []

    def info(self, message: str, context: Any) -> None: ...

    def warning(self, message: str, context: Any) -> None:
        self.warnings.append((message, context))

    def error(self, message: str, context: Any) -> None: ...


class TestLocalLogTailer:
    def test_a_tailer_yields_complete_lines_and_ends_at_its_timeout(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_bytes("eins\r\nzwei ✓\n\xff\nunfinished".encode("latin-1", "replace"))
        lines = list(LocalLogTailer(log, Recorder(), 0.01).tail(timeout=0.1))
        assert lines == ["eins", "zwei ?", "\ufffd"]

    def test_a_tailer_waits_for_the_log_and_for_more_lines(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        tailer = LocalLogTailer(str(log), poll_interval=0.01)
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(tailer.tail()))
        thread.start()
        try:
            append(log, b"one\n")
            append(log, b"two\n")
            log.unlink()
            log.write_bytes(b"another run, longer than the first\n")
            wait_for(lambda: lines[-1:] == ["another run, longer than the first"], "the line of the second run")
        finally:
            tailer.stop()
            thread.join(30)
        assert not thread.is_alive()

    def test_a_log_that_never_appears_is_logged_once(self, tmp_path: Path) -> None:
        recorder = Recorder()
        assert list(LocalLogTailer(tmp_path / "none.log", recorder, 0.01).tail(timeout=0.05)) == []
        [(_, context)] = recorder.warnings
        assert str(tmp_path / "none.log") in context["path"]

    def test_an_unreadable_log_is_logged_once_and_tried_again(self, tmp_path: Path) -> None:
        recorder = Recorder()
        assert list(LocalLogTailer(tmp_path, recorder, 0.01).tail(timeout=0.1)) == []
        assert len([1 for message, _ in recorder.warnings if "regular file" in str(_)]) == 1

    def test_a_tailer_starts_again_with_a_replaced_log(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_bytes(b"one\nunfinished")
        tailer = LocalLogTailer(log, poll_interval=0.01)
        lines = tailer.tail(timeout=PATIENCE_SECONDS)
        assert next(lines) == "one"
        other = tmp_path / "other"
        other.write_bytes(b"another run\n")
        os.replace(other, log)
        assert next(lines) == "another run"
        tailer.stop()
        assert list(lines) == []

    def test_a_line_that_is_too_long_is_cut_and_affects_no_other(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_bytes(b"x" * (3 * READ_BYTES) + b"\nnext\n")
        assert list(LocalLogTailer(log, poll_interval=0.01).tail(timeout=0)) == ["x" * LINE_LIMIT, "next"]

    def test_stop_from_another_thread_ends_the_wait_at_once(self, tmp_path: Path) -> None:
        tailer = LocalLogTailer(tmp_path / "none.log", poll_interval=10 * PATIENCE_SECONDS)
        thread = threading.Thread(target=lambda: list(tailer.tail()))
        thread.start()
        tailer.stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()

    def test_a_tailer_stopped_before_its_start_yields_nothing(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_bytes(b"one\n")
        tailer = LocalLogTailer(log)
        tailer.stop()
        assert list(tailer.tail()) == []

    def test_a_log_that_becomes_readable_is_read(self, tmp_path: Path) -> None:
        log, recorder = tmp_path / "a.log", Recorder()
        log.mkdir()
        tailer = LocalLogTailer(log, recorder, 0.01)
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(tailer.tail()))
        thread.start()
        try:
            wait_for(lambda: bool(recorder.warnings), "a warning that it is a folder")
            log.rmdir()
            log.write_bytes(b"one\n")
            wait_for(lambda: lines == ["one"], "the line")
        finally:
            tailer.stop()
            thread.join(PATIENCE_SECONDS)
        assert len(recorder.warnings) == 1
