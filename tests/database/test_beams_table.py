from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.database.beams_table import BeamsTable
from exporter.database.table import ProgressUpdate, UpdateKind
from exporter.database.unavailable import DatabaseUnavailable
from tests.support import communicator_db as db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return db.make(tmp_path / "mqi_communicator.db")


def written(path: Path, value: float, kind: UpdateKind = "raise", beam_id: str = "b") -> bool:
    table = BeamsTable(path)
    try:
        return beam_id in table.write([ProgressUpdate(beam_id, value, kind)]).written
    finally:
        table.close()


def unavailable(table: BeamsTable) -> DatabaseUnavailable:
    with pytest.raises(DatabaseUnavailable) as caught:
        table.write([ProgressUpdate("b", 1.0)])
    assert str(table.path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


class TestMigration:
    def test_migration_accepts_that_another_process_adds_the_column_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = db.make(tmp_path / "plan.db", db.PLAN_BEAMS)
        table = BeamsTable(path)
        table.rows()
        columns = table._columns

        def race(connection: sqlite3.Connection) -> frozenset[str]:
            found = columns(connection)
            db.execute(path, "ALTER TABLE beams ADD COLUMN progress REAL DEFAULT 0.0")
            return found

        monkeypatch.setattr(table, "_columns", race)
        assert not table.migrate()

    def test_a_write_without_the_column_advises_to_migrate(self, tmp_path: Path) -> None:
        path = db.make(tmp_path / "plan.db", db.PLAN_BEAMS)
        error = unavailable(BeamsTable(path))
        assert error.kind == "no_column"
        assert "mqi-exporter migrate" in str(error)


class TestRows:
    def test_columns_may_be_in_any_order(self, tmp_path: Path) -> None:
        path = db.make(tmp_path / "plan.db", db.PLAN_BEAMS)
        db.execute(path, "ALTER TABLE beams ADD COLUMN beam_number INTEGER")
        BeamsTable(path).migrate()
        db.add(path, "b")
        db.execute(path, "UPDATE beams SET progress = 12.5, beam_number = 3")
        [row] = BeamsTable(path).rows()
        assert (row.beam_id, row.case_id, row.status, row.progress) == ("b", "c", "simulation_running", 12.5)

    @pytest.mark.parametrize("value", [None, 7, 1.5, "text", b"\xff\x00", "", float("inf")])
    @pytest.mark.parametrize(
        "column", ["beam_path", "status", "progress", "hpc_job_id", "updated_at", "parent_case_id"]
    )
    def test_a_value_of_any_type_affects_no_other_row(self, tmp_path: Path, column: str, value: object) -> None:
        path = db.make(tmp_path / "loose.db", db.NEWEST_BEAMS.replace(" NOT NULL", ""))
        db.add(path, "good")
        db.add(path, "bad")
        db.execute(path, f"UPDATE beams SET {column} = ? WHERE beam_id = 'bad'", value)
        rows = {row.beam_id: row for row in BeamsTable(path).rows(0.0)}
        assert rows["good"].updated_at == pytest.approx(time.time(), abs=60)
        progress = rows["bad"].progress
        assert progress is None or isinstance(progress, float)
        assert BeamsTable(path).write([ProgressUpdate("good", 5.0)]).written == {"good"}

    def test_a_text_that_is_not_utf8_affects_no_other_row(self, path: Path) -> None:
        db.add(path, "good")
        db.execute(
            path,
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES "
            "(CAST(x'fffe' AS TEXT), 'c', CAST(x'ff' AS TEXT), 'pending')",
        )
        assert {row.beam_id for row in BeamsTable(path).rows()} == {"good", "\udcff\udcfe"}

    @pytest.mark.parametrize(
        ("stamp", "moment"),
        [
            ("2025-10-03 14:04:08", 1759500248.0),
            ("2025-10-03T14:04:08", 1759500248.0),
            ("2025-10-03T14:04:08Z", 1759500248.0),
            ("2025-10-03 23:04:08+09:00", 1759500248.0),
            ("2025-10-03 14:04:08.500000", 1759500248.5),
            ("yesterday", None),
            (1759500248, None),
            (None, None),
        ],
    )
    def test_time_stamps_are_utc(self, path: Path, stamp: object, moment: float | None) -> None:
        db.add(path, "b")
        db.execute(path, "UPDATE beams SET updated_at = ?", stamp)
        [row] = BeamsTable(path).rows()
        assert row.updated_at == moment

    def test_no_transaction_stays_open(self, path: Path) -> None:
        db.add(path, "b")
        table = BeamsTable(path)
        table.rows(0.0)
        # An open read would prevent the checkpoint of the -wal.
        db.execute(path, "UPDATE beams SET status = 'pending'")
        [(busy, *_)] = db.execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert busy == 0
        table.close()


class TestWrites:
    @pytest.mark.parametrize("value", [None, "abc", b"\x00"])
    def test_a_value_that_is_not_a_number_is_replaced(self, path: Path, value: object) -> None:
        db.add(path, "b")
        db.execute(path, "UPDATE beams SET progress = ?", value)
        assert written(path, 5.0)
        assert db.progress(path, "b") == 5.0

    def test_a_write_updates_the_time_stamp_in_the_communicators_format(self, path: Path) -> None:
        db.add(path, "b")
        db.execute(path, "UPDATE beams SET updated_at = '2020-01-01 00:00:00'")
        written(path, 5.0)
        [(stamp,)] = db.execute(path, "SELECT updated_at FROM beams")
        assert isinstance(stamp, str)
        assert len(stamp) == 19
        assert stamp > "2026"

    def test_a_failed_transaction_writes_nothing(self, path: Path) -> None:
        db.add(path, "a")
        db.add(path, "b")
        db.execute(
            path,
            "CREATE TRIGGER no BEFORE UPDATE ON beams WHEN NEW.beam_id = 'b' BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        )
        with pytest.raises(DatabaseUnavailable):
            BeamsTable(path).write([ProgressUpdate("a", 5.0), ProgressUpdate("b", 5.0)])
        assert db.progress(path, "a") == 0.0


class TestUpdateBeamProgress:
    """Phase 2 of the development plan."""

    @pytest.mark.parametrize(
        ("value", "stored"),
        [(0, 0.0), (50.5, 50.5), (100, 100.0), (130, 100.0), (-5, 0.0), (float("inf"), 100.0), (10**400, 100.0)],
    )
    def test_progress_is_clamped_to_0_and_100(self, path: Path, value: float, stored: float) -> None:
        db.add(path, "b")
        db.execute(path, "UPDATE beams SET progress = 70.0")
        assert BeamsTable(path).update_beam_progress("b", value)
        assert db.progress(path, "b") == stored

    @pytest.mark.parametrize("value", [float("nan"), None, "50", True])
    def test_progress_that_is_not_a_number_is_refused(self, path: Path, value: object) -> None:
        db.add(path, "b")
        with pytest.raises(ValueError, match="must be a number"):
            BeamsTable(path).update_beam_progress("b", value)  # type: ignore[arg-type]
        assert db.progress(path, "b") == 0.0

    def test_the_result_tells_whether_a_row_was_changed(self, path: Path) -> None:
        db.add(path, "done", "completed")
        assert not BeamsTable(path).update_beam_progress("done", 50)
        assert not BeamsTable(path).update_beam_progress("none", 50)


class TestUnavailable:
    def test_a_missing_database_is_reported_and_never_created(self, tmp_path: Path) -> None:
        error = unavailable(BeamsTable(tmp_path / "none.db"))
        assert error.kind == "missing"
        assert not (tmp_path / "none.db").exists()

    def test_a_locked_database_is_reported_soon_and_the_lock_holder_is_not_affected(self, path: Path) -> None:
        db.add(path, "b")
        locker = db.Locker(path)
        table = BeamsTable(path, busy_timeout_ms=50)
        assert unavailable(table).kind == "locked"
        assert len(table.rows()) == 1, "reading goes on"
        locker.release()
        assert table.write([ProgressUpdate("b", 5.0)]).written == {"b"}
        table.close()

    def test_a_database_without_write_permission_is_reported(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents:
            if parent.stat().st_uid == os.geteuid():
                parent.chmod(parent.stat().st_mode | 0o055)
        path = db.make(tmp_path / "mqi.db")
        db.add(path, "b")
        path.chmod(0o644)
        script = (
            "import os, sys; os.setuid(65534) if os.getuid() == 0 else None\n"
            "from pathlib import Path\n"
            "from exporter.database.beams_table import *\n"
            "try: BeamsTable(Path(sys.argv[1])).write([ProgressUpdate('b', 5.0)])\n"
            "except DatabaseUnavailable as error: print(error.kind, error)\n"
        )
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", "import exporter.database.beams_table\n" + script, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            timeout=60,
        )
        assert done.stdout.split()[0] in ("read_only", "permission")
        assert "let the exporter's user" in done.stdout

    def test_a_path_to_a_folder_is_reported_as_folder(self, path: Path) -> None:
        trouble = unavailable(BeamsTable(path.parent))
        assert (trouble.kind, trouble.advice) == ("folder", "name the database file in it (database.path)")
        assert f"{path.parent}: it is a folder; name the database file in it" in str(trouble)

    def test_a_file_that_is_not_a_database_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "text.db"
        path.write_text("this is no database, only a text that is long enough\n" * 100, encoding="utf-8")
        assert unavailable(BeamsTable(path)).kind == "not_a_database"

    def test_a_corrupt_database_is_reported(self, path: Path) -> None:
        for number in range(200):
            db.add(path, f"b{number}")
        db.execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
        data = bytearray(path.read_bytes())
        for page in range(2, len(data) // 4096):
            data[page * 4096 : page * 4096 + 200] = b"\xaa" * 200
        path.write_bytes(bytes(data))
        with pytest.raises(DatabaseUnavailable) as caught:
            BeamsTable(path).rows()
        assert caught.value.kind == "corrupt"

    def test_a_database_without_the_table_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        db.execute(path, "CREATE TABLE x (y)")
        with pytest.raises(DatabaseUnavailable) as caught:
            BeamsTable(path).rows()
        assert caught.value.kind == "no_table"

    def test_a_full_disk_is_reported(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        db.add(path, "b")
        table = BeamsTable(path)
        connect = sqlite3.connect

        def without_room(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

        db.execute(
            path,
            "CREATE TRIGGER grow AFTER UPDATE ON beams BEGIN "
            "INSERT INTO cases SELECT hex(randomblob(9000)), 'x', 0; END",
        )
        with monkeypatch.context() as patched:
            patched.setattr("exporter.database.database_file.sqlite3.connect", without_room)
            with pytest.raises(DatabaseUnavailable) as caught:
                table.write([ProgressUpdate("b", 5.0)])
        assert caught.value.kind == "disk_full"
        assert db.progress(path, "b") == 0.0

    def test_a_replaced_database_is_detected_before_anything_is_written_into_the_old_file(
        self, tmp_path: Path, path: Path
    ) -> None:
        db.add(path, "b")
        table = BeamsTable(path)
        table.write([ProgressUpdate("b", 5.0)])
        generation = table.generation
        other = db.make(tmp_path / "other.db")
        db.add(other, "b")
        db.execute(other, "PRAGMA wal_checkpoint(TRUNCATE)")
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(other, path)
        assert table.generation == generation + 1
        assert table.write([ProgressUpdate("b", 6.0)]).written == {"b"}
        assert db.progress(path, "b") == 6.0
        table.close()

    def test_a_database_that_was_deleted_and_created_again_is_used(self, path: Path) -> None:
        table = BeamsTable(path)
        table.rows()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        assert unavailable(table).kind == "missing"
        db.make(path)
        db.add(path, "b")
        assert table.write([ProgressUpdate("b", 6.0)]).written == {"b"}
        table.close()


@pytest.mark.parametrize("name", ["with space.db", "what?.db", "a#b.db", "50%20.db", "환자.db"])
def test_the_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = db.make(tmp_path / name)
    db.add(path, "b")
    assert written(path, 5.0)
    assert db.progress(path, "b") == 5.0


def test_the_path_may_begin_with_two_slashes(tmp_path: Path) -> None:
    path = db.make(tmp_path / "mqi_communicator.db")
    db.add(path, "b")
    assert written(Path(f"/{path}"), 5.0)
    assert db.progress(path, "b") == 5.0
