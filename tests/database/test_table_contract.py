"""What every kind of table does, asked of SQLite and of a real PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from exporter.config import DatabaseSettings
from exporter.database.open_table import open_table
from exporter.database.table import ProgressUpdate, Table, UpdateKind
from exporter.database.unavailable import DatabaseUnavailable
from tests.support import communicator_db as sqlite
from tests.support.postgresql import BEAMS, EXPORTER, OWNER, PostgresDatabase, PostgresServer


class Place(Protocol):
    """A database as its owner sees it."""

    def settings(self) -> DatabaseSettings: ...

    def add(self, beam_id: str, status: str = ..., case_id: str = ...) -> None: ...

    def set(self, beam_id: str, column: str, value: object) -> None: ...

    def age(self, beam_id: str, minutes: float) -> None: ...

    def get(self, beam_id: str, column: str) -> object: ...

    def refuse(self, beam_id: str) -> None: ...


class SqlitePlace:
    def __init__(self, path: Path, beams: str) -> None:
        self.path = sqlite.make(path, beams)

    def settings(self) -> DatabaseSettings:
        return DatabaseSettings(path=self.path)

    def add(self, beam_id: str, status: str = "simulation_running", case_id: str = "c") -> None:
        sqlite.add(self.path, beam_id, status, case_id)

    def set(self, beam_id: str, column: str, value: object) -> None:
        sqlite.execute(self.path, f"UPDATE beams SET {column} = ? WHERE beam_id = ?", value, beam_id)

    def age(self, beam_id: str, minutes: float) -> None:
        stamp = f"datetime('now', '-{minutes} minutes')"
        sqlite.execute(self.path, f"UPDATE beams SET updated_at = {stamp} WHERE beam_id = ?", beam_id)

    def get(self, beam_id: str, column: str) -> object:
        [(value,)] = sqlite.execute(self.path, f"SELECT {column} FROM beams WHERE beam_id = ?", beam_id)
        return value

    def refuse(self, beam_id: str) -> None:
        body = "BEGIN SELECT RAISE(ABORT, 'no'); END"
        sqlite.execute(self.path, f"CREATE TRIGGER no BEFORE UPDATE ON beams WHEN NEW.beam_id = '{beam_id}' {body}")


class PostgresPlace:
    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database

    def settings(self) -> DatabaseSettings:
        return DatabaseSettings(url=self.database.url, password_file=self.database.password_file)

    def add(self, beam_id: str, status: str = "simulation_running", case_id: str = "c") -> None:
        self.database.add(beam_id, status, case_id)

    def set(self, beam_id: str, column: str, value: object) -> None:
        self.database.execute(f"UPDATE beams SET {column} = %s WHERE beam_id = %s", value, beam_id)

    def age(self, beam_id: str, minutes: float) -> None:
        stamp = f"now() AT TIME ZONE 'UTC' - interval '{minutes} minutes'"
        self.database.execute(f"UPDATE beams SET updated_at = {stamp} WHERE beam_id = %s", beam_id)

    def get(self, beam_id: str, column: str) -> object:
        [(value,)] = self.database.execute(f"SELECT {column} FROM beams WHERE beam_id = %s", beam_id)
        return value

    def refuse(self, beam_id: str) -> None:
        self.database.execute(f"ALTER TABLE beams ADD CHECK (beam_id <> '{beam_id}' OR progress = 0)")


Make = Callable[[bool], Place]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a database with or without the column progress."""

    def of_kind(has_progress: bool = True) -> Place:
        if request.param == "sqlite":
            beams = sqlite.NEWEST_BEAMS if has_progress else sqlite.PLAN_BEAMS
            return SqlitePlace(tmp_path / "mqi_communicator.db", beams)
        server: PostgresServer = request.getfixturevalue("server")
        if has_progress:
            return PostgresPlace(server.database())
        grants = f"ALTER TABLE beams OWNER TO {EXPORTER}; GRANT ALL ON beams TO {OWNER}"
        database = server.database(BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", "hpc"), "")
        server.execute(database.name, grants)
        return PostgresPlace(database)

    return of_kind


@pytest.fixture
def place(make: Make) -> Place:
    return make(True)


@pytest.fixture
def table(place: Place) -> Iterator[Table]:
    with contextlib.closing(open_table(place.settings())) as table:
        yield table


def written(table: Table, value: float, kind: UpdateKind = "raise", beam_id: str = "b", **options: Any) -> bool:
    return beam_id in table.write([ProgressUpdate(beam_id, value, kind, **options)]).written


class TestMigration:
    def test_migration_adds_the_missing_column_with_default_zero(self, make: Make) -> None:
        place = make(False)
        place.add("b", "hpc_running")
        table = open_table(place.settings())
        assert not table.has_progress()
        assert [row.progress for row in table.rows()] == [None]
        assert table.migrate()
        assert table.has_progress()
        place.add("later", "pending")
        assert (place.get("b", "progress"), place.get("later", "progress")) == (0.0, 0.0)
        assert not table.migrate()
        assert written(table, 5.0)
        table.close()

    def test_a_write_without_the_column_says_who_adds_it(self, make: Make) -> None:
        table = open_table(make(False).settings())
        with pytest.raises(DatabaseUnavailable, match=r"migrate|ALTER TABLE beams ADD COLUMN progress") as caught:
            table.write([ProgressUpdate("b", 5.0)])
        assert caught.value.kind == "no_column"
        table.close()


class TestRows:
    def test_open_rows_recently_updated_rows_and_requested_rows_are_read(self, place: Place, table: Table) -> None:
        for beam_id, status, minutes in (
            ("running", "simulation_running", 90),
            ("odd", "whatever", 90),
            ("fresh", "completed", 1),
            ("old", "failed", 90),
            ("watched", "completed", 90),
        ):
            place.add(beam_id, status)
            place.age(beam_id, minutes)
        found = [row.beam_id for row in table.rows(time.time() - 600, ["watched", "none"])]
        assert sorted(map(str, found)) == ["fresh", "odd", "running", "watched"]
        assert sorted(str(row.beam_id) for row in table.rows()) == ["odd", "running"]

    def test_the_rows_updated_last_come_first(self, place: Place, table: Table) -> None:
        for minutes in (3, 1, 2):
            place.add(f"b{minutes}")
            place.age(f"b{minutes}", minutes)
        assert [row.beam_id for row in table.rows()] == ["b1", "b2", "b3"]

    def test_every_column_is_read(self, place: Place, table: Table) -> None:
        place.add("환자_1", "pending", "환자")
        place.set("환자_1", "hpc_job_id", "4711")
        place.set("환자_1", "progress", 66.67)
        [row] = table.rows()
        assert (row.beam_id, row.case_id, row.beam_path) == ("환자_1", "환자", "/data")
        assert (row.status, row.hpc_job_id, row.too_long) == ("pending", "4711", False)
        assert row.progress == pytest.approx(66.67, abs=1e-4)
        assert row.updated_at == pytest.approx(time.time(), abs=60)

    def test_many_ids_can_be_requested(self, place: Place, table: Table) -> None:
        for number in range(3):
            place.add(f"b{number}", "completed")
        assert len(table.rows(None, [f"b{number}" for number in range(2500)])) == 3

    def test_all_rows_of_a_case_are_read(self, place: Place, table: Table) -> None:
        for beam_id, case_id in (("a_1", "a"), ("a_2", "a"), ("b_1", "b")):
            place.add(beam_id, "completed", case_id)
        assert sorted(str(row.beam_id) for row in table.rows_of_cases(["a", "none"])) == ["a_1", "a_2"]
        assert table.rows_of_cases([]) == []

    def test_all_rows_are_read_block_by_block(
        self, place: Place, table: Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("beams_table", "postgresql"):
            monkeypatch.setattr(f"exporter.database.{module}.ROWS_AT_ONCE", 2)
        for number in range(5):
            place.add(f"b{number}", "completed")
        assert sorted(str(row.beam_id) for row in table.iter_rows()) == ["b0", "b1", "b2", "b3", "b4"]

    def test_of_a_long_value_only_the_beginning_is_read(self, place: Place, table: Table) -> None:
        place.add("good")
        place.add("bad")
        place.set("bad", "beam_path", "x" * 1_000_000)
        rows = {row.beam_id: row for row in table.rows()}
        assert (rows["good"].too_long, rows["bad"].too_long) == (False, True)
        assert len(rows["bad"].beam_path or "") < 5000


class TestWrites:
    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    @pytest.mark.parametrize("kind", ["raise", "lower"])
    def test_terminal_rows_are_not_written(self, place: Place, table: Table, status: str, kind: UpdateKind) -> None:
        place.add("b", status)
        assert not written(table, 50.0, kind)
        assert place.get("b", "progress") == 0.0

    @pytest.mark.parametrize("status", ["pending", "simulation_running", "new word"])
    def test_other_rows_are_raised_and_never_lowered(self, place: Place, table: Table, status: str) -> None:
        place.add("b", status)
        assert written(table, 66.67)
        assert not written(table, 66.67), "the stored value is compared in the column's own precision"
        assert not written(table, 5.0)
        assert place.get("b", "progress") == pytest.approx(66.67, abs=1e-4)
        assert place.get("b", "status") == status

    def test_a_lowering_update_replaces_any_value(self, place: Place, table: Table) -> None:
        place.add("b")
        written(table, 100.0)
        assert written(table, 5.56, "lower")
        assert not written(table, 5.56, "lower")
        assert place.get("b", "progress") == pytest.approx(5.56, abs=1e-4)

    def test_a_missing_value_is_replaced(self, place: Place, table: Table) -> None:
        place.add("b")
        place.set("b", "progress", None)
        assert written(table, 5.0)

    def test_only_a_completed_row_is_completed_and_only_upwards(self, place: Place, table: Table) -> None:
        for beam_id, status in (("done", "completed"), ("bad", "failed"), ("runs", "simulation_running")):
            place.add(beam_id, status)
            assert written(table, 100.0, "complete", beam_id) == (beam_id == "done")
        assert not written(table, 90.0, "complete", "done")
        assert place.get("done", "progress") == 100.0

    def test_a_row_that_was_reset_is_not_written(self, place: Place, table: Table) -> None:
        place.add("b", "pending")
        assert not written(table, 50.0, unless=("pending",))
        assert written(table, 50.0, unless=("queued",))

    def test_many_rows_are_written_at_once(self, place: Place, table: Table) -> None:
        ids = [f"b{number}" for number in range(100)]
        for beam_id in ids[:3]:
            place.add(beam_id)
        assert table.write([ProgressUpdate(beam_id, 10.0) for beam_id in ids]).written == set(ids[:3])

    def test_a_write_updates_the_time_stamp(self, place: Place, table: Table) -> None:
        place.add("b")
        place.age("b", 5000)
        written(table, 5.0)
        [row] = table.rows()
        assert row.updated_at == pytest.approx(time.time(), abs=60)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 100.1])
    def test_impossible_values_are_refused_before_anything_is_written(
        self, place: Place, table: Table, value: float
    ) -> None:
        place.add("b")
        with pytest.raises(ValueError, match="within 0 and 100"):
            table.write([ProgressUpdate("b", 5.0), ProgressUpdate("b", value)])
        assert place.get("b", "progress") == 0.0

    def test_a_row_refused_by_a_constraint_blocks_no_other_row(self, place: Place, table: Table) -> None:
        place.add("a")
        place.add("b")
        place.refuse("b")
        result = table.write([ProgressUpdate("b", 5.0), ProgressUpdate("a", 5.0)])
        assert (result.written, result.locked) == (frozenset("a"), frozenset())
        assert (place.get("a", "progress"), place.get("b", "progress")) == (5.0, 0.0)


class TestAccess:
    def test_a_check_whether_it_can_be_written_changes_nothing(self, place: Place, table: Table) -> None:
        place.add("b")
        before = place.get("b", "updated_at")
        table.check_writable()
        assert (place.get("b", "progress"), place.get("b", "updated_at")) == (0.0, before)

    def test_a_closed_table_can_be_used_again(self, place: Place, table: Table) -> None:
        place.add("b")
        table.rows()
        table.close()
        assert written(table, 5.0)

    def test_the_name_is_that_of_the_configuration(self, place: Place, table: Table) -> None:
        assert table.name == place.settings().name
        assert "correct" not in table.name
