"""The thread that keeps the store up to date, and what a process finds when it begins."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.persistence.errors import StateInUse, StateNotOurs
from exporter.persistence.lock import LockFile
from exporter.persistence.store import StateStore
from exporter.persistence.writer import StateWriter
from exporter.privacy.encryption import Encryption
from exporter.process.clock import Clock
from tests.persistence.test_store import DAMAGES
from tests.support.logs import recorded_logs
from tests.support.old_state import VERSION_1, lines_of_version_1, write_old_state
from tests.support.process import wait_for

KEY = bytes(range(32))
UNUSABLE = "state file cannot be used: all logs are read again from their beginning"
IMPORTED = "state of an earlier version imported"
GOING_ON = "going on after a restart"


class Process:
    """A store of beams and what keeps it on disk."""

    def __init__(self, file: Path, key: bytes | None = None, interval_seconds: float = 0.1) -> None:
        self.store = BeamStore(StoreRules(), 0.0)
        encryption = None if key is None else Encryption(key)
        self.writer = StateWriter(file, interval_seconds, 400, self.store, Clock(), encryption)

    def resume(self) -> list[Any]:
        """Begin; what is logged."""
        with recorded_logs() as logs:
            self.writer.resume({"local"})
        return list(logs)

    def run(self) -> list[Any]:
        """Begin, write, and end."""
        logs = self.resume()
        self.writer.start()
        self.writer.stop()
        return logs

    def see(self, beam_id: str) -> None:
        """A row appears."""
        self.store.update_rows([BeamRow(BeamKey("c", beam_id), 1.0)], (), 1.0)

    @property
    def beams(self) -> list[str]:
        return [view.key.beam_id for view in self.store.snapshot(5.0).beams]

    @property
    def errors(self) -> int:
        return self.store.snapshot(5.0).errors["state"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def beams_on_disk(file: Path) -> int:
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        count: int = database.execute("SELECT count(*) FROM beams").fetchone()[0]
    database.close()
    return count


class TestWriting:
    @pytest.fixture
    def process(self, file: Path) -> Iterator[Process]:
        process = Process(file, interval_seconds=3600)
        process.resume()
        yield process
        process.writer.close()

    def test_a_change_is_on_disk_within_half_a_second(self, process: Process, file: Path) -> None:
        process.see("first")
        process.writer.start()
        wait_for(lambda: file.exists() and beams_on_disk(file) == 1, "the first beam")
        for number in range(2, 5):
            began = time.monotonic()
            process.see(f"beam {number}")
            wait_for(lambda: beams_on_disk(file) == number, "the next beam")  # noqa: B023
            assert time.monotonic() - began < 2, "an idle hour is not waited for"
        process.writer.stop()
        assert Process(file).resume()[-1]["beams"] == 4

    def test_nothing_is_to_be_written_while_nothing_changes(self, process: Process) -> None:
        process.see("first")
        assert process.writer._unsaved.is_set()
        process.store.advance(2.0)
        process.writer._save()
        for at in range(3, 30):
            process.see("first")
            process.store.advance(at)
            process.store.snapshot(at)
        assert not process.writer._unsaved.is_set()

    def test_the_last_changes_are_written_at_the_end(self, process: Process, file: Path) -> None:
        process.writer.start()
        process.see("last")
        process.writer.stop()
        assert sorted(os.listdir(file.parent)) == ["state.db", "state.db.lock"]
        assert beams_on_disk(file) == 1

    def test_a_store_that_is_deleted_is_written_again(self, process: Process, file: Path) -> None:
        process.see("first")
        process.writer.start()
        wait_for(lambda: file.exists() and beams_on_disk(file) == 1, "the first beam")
        file.unlink()
        process.see("second")
        wait_for(lambda: file.exists() and beams_on_disk(file) == 2, "both beams")
        process.writer.stop()

    def test_a_folder_that_is_not_there_is_said_once_counted_and_used_when_it_comes(self, tmp_path: Path) -> None:
        file = tmp_path / "later" / "state.db"
        process = Process(file)
        with recorded_logs() as logs:
            process.writer.resume(())
            process.see("first")
            process.writer.start()
            assert process.writer.up is False
            wait_for(lambda: process.errors > 3, "several attempts")
            assert [entry["event"] for entry in logs] == [
                "state cannot be written: after a restart logs are read again from their beginning"
            ]
            file.parent.mkdir()
            wait_for(lambda: len(logs) > 1, "the end of the trouble")
            assert process.writer.up is True
            process.writer.stop()
        assert logs[1]["event"] == "state is written again"
        assert Process(file).resume()[-1]["event"] == GOING_ON

    def test_a_disk_that_is_full_at_times_is_said_once_each_time(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = Process(file)
        full, write = True, StateStore._write

        def write_if_there_is_room(*args: Any) -> None:
            if full:
                raise sqlite3.OperationalError("database or disk is full")
            write(*args)

        monkeypatch.setattr(StateStore, "_write", write_if_there_is_room)
        with recorded_logs() as logs:
            process.writer.resume(())
            process.see("first")
            process.writer.start()
            wait_for(lambda: process.errors > 1, "two attempts")
            full = False
            wait_for(lambda: len(logs) == 2, "the end of the trouble")
            process.writer.stop()
        assert logs[0]["error"] == "database or disk is full"
        assert beams_on_disk(file) == 1

    def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers, asked = threading.Event(), threading.Event()
        write = StateStore._write

        def write_late(*args: Any) -> None:
            asked.set()
            answers.wait(30)
            write(*args)

        monkeypatch.setattr(StateStore, "_write", write_late)
        monkeypatch.setattr("exporter.persistence.writer._STOP_SECONDS", 0.1)
        process = Process(file)
        with recorded_logs() as logs:
            process.writer.resume(())
            process.see("first")
            process.writer.start()
            assert asked.wait(10)
            process.writer.stop()
            assert [entry["log_level"] for entry in logs] == ["error"]
            answers.set()
            wait_for(lambda: process.writer._worker.join(0.0), "the thread's end")

    def test_a_store_that_is_damaged_meanwhile_is_set_aside_and_begun_anew(self, process: Process, file: Path) -> None:
        process.see("first")
        process.writer.start()
        wait_for(lambda: file.exists() and beams_on_disk(file) == 1, "the first beam")
        with recorded_logs() as logs:
            file.write_bytes(b"not a database, and long enough to be none" * 1000)
            file.with_name("state.db-wal").write_bytes(b"")
            process.writer._disk.close()
            process.see("second")
            wait_for(lambda: any(each["event"] == UNUSABLE for each in logs), "the warning")
            process.see("third")
            wait_for(lambda: file.exists() and beams_on_disk(file) == 3, "all beams")
        process.writer.stop()
        assert [each["event"] for each in logs] == [UNUSABLE]


class TestResuming:
    @pytest.mark.parametrize("kind", DAMAGES)
    def test_what_cannot_be_used_is_set_aside_and_said_once(self, file: Path, kind: str) -> None:
        first = Process(file)
        first.resume()
        first.see("first")
        first.writer.start()
        first.writer.stop()
        damaged = DAMAGES[kind][0](file.read_bytes())
        file.write_bytes(damaged)
        process = Process(file)
        [entry] = process.resume()
        assert (entry["event"], entry["log_level"]) == (UNUSABLE, "warning")
        assert (entry["set_aside_as"], entry["state"]) == ("state.db.set-aside", str(file))
        assert file.with_name("state.db.set-aside").read_bytes() == damaged
        assert not file.exists()
        assert process.errors == 1
        process.see("second")
        process.writer.start()
        process.writer.stop()
        assert [entry["event"] for entry in Process(file).run()] == [GOING_ON]

    @pytest.mark.parametrize("what", ["state", "version"])
    def test_states_of_another_version_are_forgotten_and_the_history_of_runs_stays(self, file: Path, what: str) -> None:
        shutil.copyfile(VERSION_1, file.with_suffix(".json"))
        Process(file).run()
        with sqlite3.connect(file) as database:
            if what == "version":
                database.execute("UPDATE about SET value = '7' WHERE name = 'state_version'")
            else:
                state = database.execute("SELECT state FROM beams").fetchone()[0].replace('"failed"', '"flying"')
                row = (state, zlib.crc32(state.encode()))
                database.execute("UPDATE beams SET state = ?, checksum = ? WHERE id = 1", row)
        database.close()
        process = Process(file)
        [entry] = process.run()
        reasons = {"state": "holds what it should not: enum at state", "version": "by an exporter of another version"}
        assert reasons[what] in entry["reason"]
        assert (entry["event"], entry["kept"], process.errors) == (UNUSABLE, "the history of runs", 1)
        assert process.beams == []
        assert [entry["event"] for entry in Process(file).run()] == [GOING_ON]
        with sqlite3.connect(file) as database:
            assert database.execute("SELECT count(*) FROM runs").fetchone() == (3,)
        database.close()

    def test_a_database_or_a_folder_at_the_path_is_never_touched(self, file: Path, tmp_path: Path) -> None:
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE beams (beam_id TEXT)")
        database.close()
        for path in (file, tmp_path):
            with pytest.raises(StateNotOurs, match=r"set state\.file to another path"):
                Process(path).writer.resume(())
        assert file.read_bytes().startswith(b"SQLite")

    def test_a_second_exporter_is_refused_until_the_first_has_ended(self, file: Path) -> None:
        first, second = Process(file), Process(file)
        first.resume()
        reason = rf"^{file}: another exporter \(process {os.getpid()}\) uses this state file"
        with pytest.raises(StateInUse, match=reason):
            second.writer.resume(())
        first.writer.close()
        second.resume()
        second.writer.close()

    def test_a_killed_process_holds_no_lock(self, file: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from exporter.persistence.lock import LockFile\n"
            "LockFile(Path(sys.argv[1])).acquire(); print('locked', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(file)]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            lock = LockFile(file)
            with pytest.raises(StateInUse, match=f"process {other.pid}"):
                lock.acquire()
            other.kill()
            other.wait()
            lock.acquire()
            lock.release()

    def test_a_lock_file_that_is_another_name_of_some_file_is_refused_and_not_emptied(
        self, file: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.write_bytes(b"somebody's work")
        os.link(other, f"{file}.lock")
        lock = LockFile(file)
        for _ in range(2):
            with pytest.raises(OSError, match="is not a lock file of ours; remove it"):
                lock.acquire()
        assert other.read_bytes() == b"somebody's work"
        os.unlink(f"{file}.lock")
        lock.acquire()
        lock.release()


class TestImport:
    """Whoever upgrades need not change ``state.file``."""

    @pytest.mark.parametrize("named", ["state.json", "state.db", "state"])
    def test_the_json_file_of_an_earlier_version_is_imported_once(self, tmp_path: Path, named: str) -> None:
        old = tmp_path / ("state" if named == "state" else "state.json")
        shutil.copyfile(VERSION_1, old)
        process = Process(tmp_path / named)
        logs = process.run()
        [imported] = [entry for entry in logs if entry["event"] == IMPORTED]
        database = tmp_path / ("state" if named == "state" else "state.db")
        assert (imported["file"], imported["state"]) == (str(old), str(database))
        assert imported["its_file_was"] == f"renamed to {old.name}.imported"
        assert sorted(os.listdir(tmp_path)) == sorted([database.name, f"{database.name}.lock", f"{old.name}.imported"])
        assert (tmp_path / f"{old.name}.imported").read_bytes() == VERSION_1.read_bytes()
        again = Process(tmp_path / named)
        assert [entry["event"] for entry in again.run()][-1] == GOING_ON
        assert process.beams == again.beams == ["70010001_beam_3", "70010001_beam_2"]
        snapshot = again.store.snapshot(5.0)
        assert dict(snapshot.runs) == {("local", "succeeded", ""): 1, ("local", "failed", "error"): 2}
        assert snapshot.batch_durations["local"].total == 168.0
        assert [(run.key.beam_id, run.outcome) for run in snapshot.ended] == [
            ("70010001_beam_1", "succeeded"),
            ("70010001_beam_3", "failed"),
            ("70010001_beam_4", "failed"),
        ]
        views = {view.key.beam_id: (view.state, view.batches_completed, view.reason) for view in snapshot.beams}
        assert views == {"70010001_beam_3": ("failed", 1, "error"), "70010001_beam_2": ("running", 2, None)}
        found, _ = again.store.checkpoints("local")
        checkpoint = found[BeamKey("70010001", "70010001_beam_2")]
        assert checkpoint is not None
        assert (checkpoint.log.offset, checkpoint.parser.dialect) == (4791, "smc")

    def test_a_json_path_in_the_configuration_is_said_at_each_start(self, tmp_path: Path) -> None:
        for _ in range(2):
            process = Process(tmp_path / "state.json")
            process.see("first")
            assert "set state.file to that" in process.run()[0]["event"]
        assert (tmp_path / "state.db").exists()

    def test_a_store_that_is_there_already_is_not_overwritten(self, tmp_path: Path) -> None:
        process = Process(tmp_path / "state.db")
        process.see("first")
        process.run()
        shutil.copyfile(VERSION_1, tmp_path / "state.json")
        again = Process(tmp_path / "state.db")
        again.run()
        assert again.beams == ["first"]
        assert (tmp_path / "state.json").exists()

    def test_somebody_elses_json_beside_the_store_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "state.json").write_text('{"mine": true}\n', encoding="utf-8")
        assert Process(tmp_path / "state.db").run() == []
        assert (tmp_path / "state.json").read_text(encoding="utf-8") == '{"mine": true}\n'

    def test_an_exporter_of_an_earlier_version_that_still_runs_is_in_the_way(self, tmp_path: Path) -> None:
        shutil.copyfile(VERSION_1, tmp_path / "state.json")
        lock = LockFile(tmp_path / "state.json")
        lock.acquire()
        with pytest.raises(StateInUse, match="another exporter"):
            Process(tmp_path / "state.db").writer.resume(())
        lock.release()

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda data: data[:-30], "is cut off"),
            (lambda data: data.replace(b'"since":1', b'"since":2'), "its checksum is another"),
            (lambda data: data + b"{}\n", "is cut off"),
            (lambda data: data.replace(b'"version": 1', b'"version": 7'), "was written by another exporter"),
        ],
        ids=["cut", "changed", "appended", "newer"],
    )
    def test_a_damaged_one_is_set_aside_and_said_once(self, tmp_path: Path, change: Any, reason: str) -> None:
        old = tmp_path / "state.json"
        old.write_bytes(change(VERSION_1.read_bytes()))
        process = Process(tmp_path / "state.db")
        [entry] = process.run()
        assert (entry["event"], entry["state"]) == (UNUSABLE, str(old))
        assert reason in entry["reason"]
        assert (tmp_path / "state.json.set-aside").exists()

    @pytest.mark.parametrize("lines", [[], [b"{}"], [b"[]"], [b"7", b"{}"]], ids=repr)
    def test_a_whole_one_that_holds_something_else_is_set_aside(self, tmp_path: Path, lines: list[bytes]) -> None:
        write_old_state(tmp_path / "state.json", lines)
        [entry] = Process(tmp_path / "state.db").run()
        assert "holds what it should not" in entry["reason"]

    def test_a_plain_one_is_deleted_once_ids_must_not_be_readable(self, tmp_path: Path) -> None:
        shutil.copyfile(VERSION_1, tmp_path / "state.json")
        [imported, *_] = [each for each in Process(tmp_path / "state.db", KEY).run() if each["event"] == IMPORTED]
        assert imported["its_file_was"] == "deleted, since ids in it could be read"
        assert sorted(os.listdir(tmp_path)) == ["state.db", "state.db.lock"]
        assert b"70010001" not in (tmp_path / "state.db").read_bytes()

    def test_a_plain_one_that_is_damaged_is_deleted_then_too(self, tmp_path: Path) -> None:
        (tmp_path / "state.json").write_bytes(VERSION_1.read_bytes()[:-30])
        Process(tmp_path / "state.db", KEY).run()
        assert not (tmp_path / "state.json").exists()
        assert not (tmp_path / "state.json.set-aside").exists()

    def test_an_encrypted_one_is_imported_with_its_key(self, tmp_path: Path) -> None:
        write_old_state(tmp_path / "state.json", lines_of_version_1(), KEY)
        process = Process(tmp_path / "state.db", KEY)
        process.run()
        assert process.beams == ["70010001_beam_3", "70010001_beam_2"]
        assert (tmp_path / "state.json.imported").exists()

    @pytest.mark.parametrize(
        ("key", "reason"), [(bytes(32), "another key"), (None, "privacy.identifiers is plain")], ids=["other", "none"]
    )
    def test_an_encrypted_one_is_not_read_without_its_key(self, tmp_path: Path, key: bytes | None, reason: str) -> None:
        write_old_state(tmp_path / "state.json", lines_of_version_1(), KEY)
        [entry, *_] = Process(tmp_path / "state.db", key).run()
        assert reason in entry["reason"]


class TestReadableLeftovers:
    def test_a_store_set_aside_before_ids_were_encrypted_is_warned_of_until_it_is_gone(self, file: Path) -> None:
        process = Process(file)
        process.see("Doe")
        process.run()
        aside = file.with_name("state.db.set-aside")
        os.replace(file, aside)
        for there in (True, False):
            assert any("delete it" in entry["event"] for entry in Process(file, KEY).run()) == there
            aside.unlink(missing_ok=True)

    def test_a_plain_store_that_is_damaged_is_deleted_and_not_set_aside(self, file: Path) -> None:
        process = Process(file)
        process.see("Doe")
        process.run()
        file.write_bytes(file.read_bytes()[:5000])
        [entry] = Process(file, KEY).run()
        assert entry["event"] == UNUSABLE
        assert "set_aside_as" not in entry
        assert not file.with_name("state.db.set-aside").exists()
