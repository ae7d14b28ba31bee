"""The state file, whatever becomes of it: damaged, foreign, used twice, on a full disk, without its folder."""

from __future__ import annotations

import base64
import errno
import json
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.beams.rules import StoreRules
from exporter.beams.store import BeamStore
from exporter.persistence import store as state_file
from exporter.persistence.store import StateFile, StateInUse, StateNotOurs, StateTooLarge, StateUnusable, is_readable
from exporter.persistence.writer import Continuity
from exporter.privacy.encryption import Seal, SealBroken
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.process.clock import Clock
from tests.support.logs import recorded_logs
from tests.support.process import wait_for

LINES = [b'{"since":1.0}', b'{"row":"\xc3\xa4"}', b"{}"]


KEY = bytes(range(32))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[StateFile]:
    file = StateFile(tmp_path / "state.json")
    yield file
    file.close()


def test_what_was_written_is_read(file: StateFile) -> None:
    assert file.read() is None
    file.write(LINES, 5.0)
    assert file.read() == LINES
    file.write(LINES[:1], 6.0)
    assert file.read() == LINES[:1]


def test_it_is_for_its_owner_alone_and_leaves_nothing_beside_it(file: StateFile) -> None:
    before = os.umask(0)
    try:
        file.lock()
        file.write(LINES, 5.0)
    finally:
        os.umask(before)
    assert sorted(os.listdir(file.path.parent)) == ["state.json", "state.json.lock"]
    for path in file.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(file: StateFile) -> None:
    file.write(LINES, 5.0)
    file.path.chmod(0o644)
    file.write(LINES, 6.0)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_each_line_is_json(file: StateFile) -> None:
    file.write(LINES, 5.0)
    head, *_, checksum = [json.loads(line) for line in file.path.read_bytes().splitlines()]
    assert (head["format"], head["version"], head["written_at"]) == (state_file.FORMAT, state_file.VERSION, 5.0)
    assert list(checksum) == ["sha256"]


def test_what_a_killed_writer_left_beside_it_is_no_hindrance(file: StateFile) -> None:
    file.path.with_name("state.json.new").write_bytes(b"half a st")
    file.write(LINES, 5.0)
    assert file.read() == LINES
    assert os.listdir(file.path.parent) == ["state.json"]


def test_a_link_beside_it_is_not_followed(file: StateFile, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious", encoding="utf-8")
    file.path.with_name("state.json.new").symlink_to(precious)
    file.write(LINES, 5.0)
    assert precious.read_text(encoding="utf-8") == "precious"


def test_too_much_is_not_written(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(LINES, 5.0)
    monkeypatch.setattr(state_file, "LARGEST_BYTES", 1000)
    with pytest.raises(StateTooLarge, match="larger than 1000 bytes"):
        file.write(iter(lambda: b"{}", b"never"), 6.0)
    assert file.read() == LINES
    assert os.listdir(file.path.parent) == ["state.json"]


def test_a_full_disk_leaves_the_file_as_it_was(file: StateFile) -> None:
    file.write(LINES, 5.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.write(LINES, 6.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read() == LINES


def _head(**changed: object) -> bytes:
    return json.dumps({"format": state_file.FORMAT, "version": state_file.VERSION, **changed}).encode() + b"\n"


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "is empty"),
    "zeros": (lambda data: bytes(len(data)), "was not written by this exporter"),
    "half": (lambda data: data[: len(data) // 2], "is cut off"),
    "without_its_last_byte": (lambda data: data[:-1], "is cut off"),
    "without_its_checksum": (lambda data: data[: data.rindex(b"\n", 0, -1) + 1], "is cut off"),
    "another_byte": (lambda data: data.replace(b'"since":1.0', b'"since":2.0'), "its checksum is another"),
    "appended_to": (lambda data: data + b"{}\n", "is cut off"),
    "twice": (lambda data: data + data, "its checksum is another"),
    "text": (lambda data: b"log: {level: info}\n", "was not written by this exporter"),
    "json": (lambda data: b'{"beams": []}\n', "was not written by this exporter"),
    "deep": (lambda data: b"[" * 100_000 + b"\n", "was not written by this exporter"),
    "newer": (lambda data: _head(version=3) + data, r"was written by a newer exporter \(version 3, not 2\)"),
    "older": (lambda data: _head(version=0) + data, r"was written by another exporter \(version 0, not 2\)"),
    "no_version": (lambda data: _head(version="x") + data, "was written by another exporter"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_refused(file: StateFile, kind: str) -> None:
    damage, reason = DAMAGES[kind]
    file.write(LINES, 5.0)
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(StateUnusable, match=reason):
        file.read()


def test_a_file_beyond_the_limit_is_refused(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(LINES, 5.0)
    monkeypatch.setattr(state_file, "LARGEST_BYTES", 100)
    with pytest.raises(StateUnusable, match="is larger than 100 bytes"):
        file.read()


@given(st.data())
def test_no_change_of_one_byte_goes_unnoticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = StateFile(tmp_path_factory.mktemp("state") / "state.json")
    file.write(LINES, 5.0)
    written = bytearray(file.path.read_bytes())
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    file.path.write_bytes(written)
    with pytest.raises(StateUnusable):
        file.read()


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_state(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = StateFile(tmp_path_factory.mktemp("state") / "state.json")
    file.path.write_bytes(data)
    with pytest.raises(StateUnusable):
        file.read()


def test_a_database_or_a_folder_at_the_path_is_never_touched(file: StateFile, tmp_path: Path) -> None:
    with sqlite3.connect(file.path) as database:
        database.execute("CREATE TABLE beams (beam_id TEXT)")
    database.close()
    for path in (file.path, tmp_path):
        store = BeamStore(StoreRules(), 0.0)
        continuity = Continuity(path, 10.0, store, PlainIdentifiers(), Clock())
        with pytest.raises(StateNotOurs, match=r"set state\.file to another path"):
            continuity.resume(())
    assert file.path.read_bytes().startswith(b"SQLite")


def test_a_pipe_does_not_hold_up_the_start(file: StateFile) -> None:
    os.mkfifo(file.path)
    with pytest.raises(StateNotOurs):
        file.read()


def test_a_second_user_is_refused_until_the_first_has_ended(file: StateFile) -> None:
    file.lock()
    file.lock()
    other = StateFile(file.path)
    with pytest.raises(StateInUse, match=rf"another exporter \(process {os.getpid()}\) uses this state file"):
        other.lock()
    file.write(LINES, 5.0)
    with pytest.raises(StateInUse):
        other.lock()
    file.close()
    other.lock()
    other.close()


def test_a_killed_process_holds_no_lock(file: StateFile) -> None:
    code = (
        "import sys; from pathlib import Path; from exporter.persistence.store import StateFile\n"
        "file = StateFile(Path(sys.argv[1])); file.lock(); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(file.path)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StateInUse, match=f"process {other.pid}"):
            file.lock()
        other.kill()
        other.wait()
        file.lock()


def test_a_lock_file_that_is_another_name_of_some_file_is_refused_and_not_emptied(
    file: StateFile, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody's work")
    os.link(other, f"{file.path}.lock")
    for _ in range(2):
        with pytest.raises(OSError, match="is not a lock file of ours; remove it"):
            file.lock()
    assert other.read_bytes() == b"somebody's work"
    os.unlink(f"{file.path}.lock")
    file.lock()


class TestSealed:
    @pytest.fixture
    def sealed(self, file: StateFile) -> StateFile:
        return StateFile(file.path, Seal(KEY))

    def test_what_was_written_is_read_and_stands_nowhere(self, sealed: StateFile) -> None:
        lines = [b'{"case":"Doe"}', *LINES]
        for written in (lines, lines[:1], []):
            sealed.write(written, 5.0)
            assert sealed.read() == written
            data = sealed.path.read_bytes()
            assert b"Doe" not in data
            assert base64.b64encode(lines[0])[:16] not in data

    def test_the_same_lines_never_look_alike(self, sealed: StateFile) -> None:
        sealed.write(LINES, 5.0)
        first = sealed.path.read_bytes().splitlines()
        sealed.write(LINES, 5.0)
        again = sealed.path.read_bytes().splitlines()
        assert set(first[1:]).isdisjoint(again[1:])

    def test_another_key_does_not_open_it(self, sealed: StateFile) -> None:
        sealed.write(LINES, 5.0)
        with pytest.raises(StateUnusable, match="another key"):
            StateFile(sealed.path, Seal(bytes(32))).read()

    def test_without_a_key_it_is_not_taken_for_damaged(self, sealed: StateFile, file: StateFile) -> None:
        sealed.write(LINES, 5.0)
        with pytest.raises(StateUnusable, match=r"sealed, and privacy\.identifiers is plain"):
            file.read()

    @pytest.mark.parametrize(
        "change",
        [
            lambda lines: lines[:-1],
            lambda lines: [*lines[:-2], lines[-1]],
            lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
            lambda lines: [*lines, lines[-1]],
            lambda lines: lines[1:],
            lambda lines: [lines[0], *LINES, lines[-1]],
            lambda lines: [],
        ],
        ids=["no end", "a line gone", "another order", "twice the end", "no salt", "readable", "nothing"],
    )
    def test_what_is_not_as_it_was_does_not_open(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        seal = Seal(KEY)
        lines = list(seal.sealed(LINES))
        assert seal.opened(lines) == LINES
        with pytest.raises(SealBroken):
            seal.opened(change(lines))

    def test_what_was_written_readable_is_taken_over_and_sealed_by_the_next_write(
        self, file: StateFile, sealed: StateFile
    ) -> None:
        file.write(LINES, 5.0)
        lines = sealed.read()
        assert lines == LINES
        sealed.write(lines, 6.0)
        assert not is_readable(file.path)

    def test_a_readable_one_that_is_damaged_is_deleted_and_not_set_aside(self, file: StateFile) -> None:
        file.write(LINES, 5.0)
        file.path.write_bytes(file.path.read_bytes()[:-30])
        with recorded_logs() as logs:
            self.resume(file.path)
        assert [entry["event"] for entry in logs] == [
            "state file cannot be used: all logs are read again from their beginning"
        ]
        assert "set_aside_as" not in logs[0]
        assert os.listdir(file.path.parent) == ["state.json.lock"]

    def test_somebody_elses_file_is_set_aside_and_not_deleted(self, file: StateFile) -> None:
        file.path.write_bytes(b"a letter\n")
        self.resume(file.path)
        assert file.path.with_name("state.json.set-aside").read_bytes() == b"a letter\n"

    def test_one_that_is_set_aside_since_its_beginning_is_damaged_is_warned_of_at_once(self, file: StateFile) -> None:
        file.write(LINES, 5.0)
        file.path.write_bytes(bytes(8) + file.path.read_bytes()[8:])
        with recorded_logs() as logs:
            self.resume(file.path)
        assert logs[0]["set_aside_as"] == "state.json.set-aside"
        assert "delete it" in logs[1]["event"]

    def test_one_that_was_set_aside_readable_is_warned_of_until_it_is_gone(self, file: StateFile) -> None:
        file.write(LINES, 5.0)
        aside = file.set_aside()
        for there in (True, False):
            with recorded_logs() as logs:
                self.resume(file.path)
            assert ["delete it" in entry["event"] for entry in logs] == [True] * there
            aside.unlink(missing_ok=True)

    def resume(self, path: Path) -> None:
        store = BeamStore(StoreRules(), 0.0)
        continuity = Continuity(path, 0.1, store, PlainIdentifiers(), Clock(), Seal(KEY))
        continuity.resume(())
        continuity.close()


class TestContinuity:
    def continuity(self, path: Path, store: BeamStore | None = None) -> Continuity:
        store = store or BeamStore(StoreRules(), 0.0)
        clock = Clock(wall=lambda: 7.0, uptime=lambda: 7.0)
        return Continuity(path, 0.1, store, PlainIdentifiers(), clock)

    @pytest.mark.parametrize("kind", DAMAGES)
    def test_what_cannot_be_used_is_set_aside_and_said_once(self, tmp_path: Path, kind: str) -> None:
        damage, _ = DAMAGES[kind]
        path = tmp_path / "state.json"
        StateFile(path).write(LINES, 5.0)
        damaged = damage(path.read_bytes())
        path.write_bytes(damaged)
        store = BeamStore(StoreRules(), 0.0)
        continuity = self.continuity(path, store)
        with recorded_logs() as logs:
            continuity.resume(())
        [entry] = logs
        assert entry["log_level"] == "warning"
        assert "read again from their beginning" in entry["event"]
        assert (entry["set_aside_as"], entry["state"]) == ("state.json.set-aside", str(path))
        assert path.with_name("state.json.set-aside").read_bytes() == damaged
        assert not path.exists()
        assert store.snapshot(0.0).errors == {"state": 1}
        continuity.start()
        wait_for(path.exists, "the new state")
        continuity.stop()
        self.goes_on(path)

    def goes_on(self, path: Path) -> None:
        with recorded_logs() as logs:
            continuity = self.continuity(path)
            continuity.resume(())
            continuity.close()
        assert [entry["event"] for entry in logs] == ["going on after a restart"]

    def test_a_whole_file_that_holds_something_else_is_set_aside(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        for lines in ([], LINES, [b"[]"]):
            StateFile(path).write(lines, 5.0)
            continuity = self.continuity(path)
            with recorded_logs() as logs:
                continuity.resume(())
            continuity.close()
            assert len(logs) == 1
            assert logs[0]["reason"].startswith("holds ")

    def test_it_is_written_at_once_and_once_more_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        store = BeamStore(StoreRules(), 0.0)
        continuity = Continuity(path, 3600.0, store, PlainIdentifiers(), Clock())
        continuity.resume(())
        continuity.start()
        wait_for(path.exists, "the first state")
        first = path.stat().st_ino, path.stat().st_mtime_ns
        continuity.stop()
        assert (path.stat().st_ino, path.stat().st_mtime_ns) != first
        assert StateFile(path).read() is not None

    def test_a_folder_that_is_not_there_is_said_once_counted_and_used_when_it_comes(self, tmp_path: Path) -> None:
        path = tmp_path / "later" / "state.json"
        store = BeamStore(StoreRules(), 0.0)
        continuity = self.continuity(path, store)
        with recorded_logs() as logs:
            continuity.resume(())
            continuity.start()
            wait_for(lambda: store.snapshot(0.0).errors["state"] > 3, "several attempts")
            assert [entry["event"] for entry in logs] == [
                "state cannot be written: after a restart logs are read again from their beginning"
            ]
            path.parent.mkdir()
            wait_for(lambda: len(logs) > 1, "the end of the trouble")
            continuity.stop()
        assert logs[1]["event"] == "state is written again"
        self.goes_on(path)

    def test_a_disk_that_is_full_at_times_is_said_once_each_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "state.json"
        store = BeamStore(StoreRules(), 0.0)
        continuity = self.continuity(path, store)
        full = True
        fsync = os.fsync

        def write(opened: int) -> None:
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(opened)

        monkeypatch.setattr(os, "fsync", write)
        with recorded_logs() as logs:
            continuity.resume(())
            continuity.start()
            wait_for(lambda: store.snapshot(0.0).errors["state"] > 1, "two attempts")
            full = False
            wait_for(lambda: len(logs) == 2, "the end of the trouble")
            continuity.stop()
        assert logs[0]["error"] == "No space left on device"

    def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, asked = threading.Event(), threading.Event()
        fsync = os.fsync

        def write(opened: int) -> None:
            asked.set()
            answers.wait(30)
            fsync(opened)

        monkeypatch.setattr(os, "fsync", write)
        monkeypatch.setattr("exporter.persistence.writer._STOP_SECONDS", 0.1)
        continuity = self.continuity(tmp_path / "state.json")
        with recorded_logs() as logs:
            continuity.resume(())
            continuity.start()
            assert asked.wait(10)
            continuity.stop()
            assert [entry["log_level"] for entry in logs] == ["error"]
            answers.set()
            wait_for(lambda: continuity._loop.join(0.0), "the thread's end")

    def test_a_file_that_another_exporter_uses_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        first, second = self.continuity(path), self.continuity(path)
        first.resume(())
        with pytest.raises(StateInUse, match=f"^{path}: another exporter"):
            second.resume(())
        first.close()
