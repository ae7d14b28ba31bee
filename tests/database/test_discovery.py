from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.snapshot import BeamKey
from exporter.database.beams_table import BeamsTable
from exporter.database.database_file import DatabaseFile
from exporter.database.discovery import DatabaseDiscovery, DirectoryDiscovery
from exporter.database.table_rows import TableRow
from exporter.database.unavailable import DatabaseUnavailable
from exporter.sources.source import LogStat
from tests.support import communicator_db as db


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return db.make(tmp_path / "mqi_communicator.db")


@pytest.fixture
def discovery(path: Path) -> DatabaseDiscovery:
    return DatabaseDiscovery(BeamsTable(path), retention_seconds=3600)


def age(path: Path, beam_id: str, minutes: int) -> None:
    db.execute(path, f"UPDATE beams SET updated_at = datetime('now', '-{minutes} minutes') WHERE beam_id = ?", beam_id)


class TestDatabase:
    def test_the_first_read_includes_beams_that_ended_within_the_retention_time(
        self, path: Path, discovery: DatabaseDiscovery
    ) -> None:
        for beam_id, status, minutes in (("old", "completed", 90), ("new", "completed", 30), ("runs", "pending", 900)):
            db.add(path, beam_id, status, f"case of {beam_id}")
            age(path, beam_id, minutes)
        now = time.time()
        assert {row.key.beam_id for row in discovery.find_beams(now, ()).rows} == {"new", "runs"}
        assert {row.key.beam_id for row in discovery.find_beams(now + 2, ()).rows} == {"runs"}

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
    def test_all_beams_of_an_open_case_are_read_however_long_ago_they_ended(
        self, path: Path, discovery: DatabaseDiscovery, status: str
    ) -> None:
        db.add(path, "long over", status, "환자 01")
        age(path, "long over", 60_000)
        db.add(path, "of another case", status, "P(02)")
        age(path, "of another case", 60_000)
        db.add(path, "queued", "pending", "환자 01")
        assert [row.key.beam_id for row in discovery.find_beams(time.time(), ()).rows] == ["queued", "long over"]

    def test_all_beams_of_a_case_are_read_when_one_is_retried(self, path: Path, discovery: DatabaseDiscovery) -> None:
        for beam_id in ("one", "two", "three"):
            db.add(path, beam_id, "completed")
            age(path, beam_id, 900)
        now = time.time()
        assert discovery.find_beams(now, ()).rows == ()
        db.execute(path, "UPDATE beams SET status = 'pending' WHERE beam_id = 'two'")
        assert {row.key.beam_id for row in discovery.find_beams(now + 2, ()).rows} == {"one", "two", "three"}
        assert {row.key.beam_id for row in discovery.find_beams(now + 4, ()).rows} == {"two"}, (
            "the others have been read"
        )

    def test_an_old_row_restored_into_an_open_case_is_found(self, path: Path, discovery: DatabaseDiscovery) -> None:
        db.add(path, "queued", "pending")
        now = time.time()
        discovery.find_beams(now, ())
        db.add(path, "restored", "completed")
        age(path, "restored", 900)
        assert "restored" in {row.key.beam_id for row in discovery.find_beams(now + 301, ()).rows}

    def test_the_database_is_not_opened_while_its_files_do_not_change(self, path: Path) -> None:
        at = 0.0
        file = DatabaseFile(path, timer=lambda: at)
        discovery = DatabaseDiscovery(BeamsTable(path, file=file), retention_seconds=3600, timer=lambda: at)
        db.add(path, "runs")
        db.add(path, "over", "completed")
        now = time.time()

        def found(seconds: float, *watched: str) -> tuple[set[str], bool]:
            """Read beams; return them and whether the database was opened."""
            nonlocal at
            at = seconds
            uses = []
            with pytest.MonkeyPatch.context() as patched:
                rows = BeamsTable.rows

                def counted(*arguments: Any) -> list[TableRow]:
                    uses.append(arguments)
                    return rows(*arguments)

                patched.setattr(BeamsTable, "rows", counted)
                look = discovery.find_beams(now + seconds, [BeamKey("c", beam_id) for beam_id in watched])
            assert {row.read_at for row in look.rows} <= {now + seconds}
            return {row.key.beam_id for row in look.rows}, bool(uses)

        assert found(0, "over") == ({"runs", "over"}, True)
        assert found(2, "over") == ({"runs", "over"}, True), "a change may have had the same time stamp"
        assert found(4, "over") == ({"runs", "over"}, True)
        assert found(6, "over") == ({"runs", "over"}, False)
        assert found(8) == ({"runs"}, False), "nobody asks for the other one any more, and it is over"
        assert found(10, "new") == ({"runs"}, True), "a row that was not asked for"
        db.add(path, "new")
        assert found(12, "new") == ({"runs", "new"}, True)
        for seconds in (14, 16):
            found(seconds)
        assert found(18) == ({"runs", "new"}, False)
        assert found(50) == ({"runs", "new"}, True), "now and then it is read all the same"

    def test_terminal_rows_are_read_again_if_the_database_may_have_been_restored(self, path: Path) -> None:
        table = BeamsTable(path, alone_in_process=True)
        discovery = DatabaseDiscovery(table, retention_seconds=3600)
        db.add(path, "over", "completed", "case 1")
        age(path, "over", 30)
        db.add(path, "long over", "completed", "case 2")
        age(path, "long over", 90)
        now = time.time()
        assert {row.key.beam_id for row in discovery.find_beams(now, ()).rows} == {"over"}
        assert discovery.find_beams(now + 2, ()).rows == ()
        backup = path.with_name("backup.db")
        shutil.copy(path, backup)
        shutil.copy(backup, path)
        assert {row.key.beam_id for row in discovery.find_beams(now + 4, ()).rows} == {"over"}
        assert discovery.find_beams(now + 6, ()).rows == ()

    def test_a_beam_that_starts_and_fails_between_two_reads_is_found(
        self, path: Path, discovery: DatabaseDiscovery
    ) -> None:
        discovery.find_beams(time.time(), ())
        db.add(path, "quick", "failed")
        assert [row.key.beam_id for row in discovery.find_beams(time.time() + 2, ()).rows] == ["quick"]

    def test_the_next_read_includes_what_a_failed_read_has_missed(
        self, path: Path, discovery: DatabaseDiscovery
    ) -> None:
        discovery.find_beams(time.time() - 1000, ())
        db.add(path, "quick", "failed")
        age(path, "quick", 10)
        path.rename(path.with_suffix(".away"))
        with pytest.raises(DatabaseUnavailable):
            discovery.find_beams(time.time() - 500, ())
        path.with_suffix(".away").rename(path)
        assert [row.key.beam_id for row in discovery.find_beams(time.time(), ()).rows] == ["quick"]

    def test_watched_beams_are_read_until_their_rows_are_gone(self, path: Path, discovery: DatabaseDiscovery) -> None:
        now = time.time()
        db.add(path, "b", "completed")
        age(path, "b", 900)
        key = BeamKey("c", "b")
        look = discovery.find_beams(now, [key, BeamKey("c", "gone")])
        assert [row.key for row in look.rows] == [key]
        assert look.missing == {BeamKey("c", "gone")}

    def test_all_columns_of_a_row_are_used(self, path: Path, discovery: DatabaseDiscovery) -> None:
        db.add(path, "70010001_beam_1", "simulation_running", "70010001")
        db.execute(path, "UPDATE beams SET hpc_job_id = '77', progress = 40.0, beam_path = '/data/x'")
        now = time.time()
        [row] = discovery.find_beams(now, ()).rows
        assert (row.key, row.beam_path, row.hpc_job_id, row.status, row.progress, row.read_at) == (
            BeamKey("70010001", "70010001_beam_1"),
            "/data/x",
            "77",
            "simulation_running",
            40.0,
            now,
        )

    @pytest.mark.parametrize(
        "beam_id",
        ["환자 01_재계획_Beam 1 (G90)", "04010004_beam_1", "1.2.840.10008.1.2.3_beam_1", "test_case_01_field_1"],
    )
    def test_real_ids_are_accepted(self, path: Path, discovery: DatabaseDiscovery, beam_id: str) -> None:
        db.add(path, beam_id)
        assert [row.key.beam_id for row in discovery.find_beams(time.time(), ()).rows] == [beam_id]

    @pytest.mark.parametrize(
        ("beam_id", "reason"),
        [
            ("../etc/passwd", "path_separator"),
            ("a/b", "path_separator"),
            ("a..b", "parent_directory"),
            ("", "empty"),
            ("a\nb", "control_character"),
            ("a\0b", "control_character"),
            (b"\x01\x02", "not_text"),
            ("환" * 100, "too_long"),
        ],
    )
    def test_unusable_ids_are_refused_once_and_affect_no_other_row(
        self, path: Path, discovery: DatabaseDiscovery, beam_id: object, reason: str
    ) -> None:
        db.add(path, beam_id)
        db.add(path, "good")
        look = discovery.find_beams(time.time(), ())
        assert dict(look.refused) == {reason: 1}
        assert [row.key.beam_id for row in look.rows] == ["good"]
        assert dict(discovery.find_beams(time.time(), ()).refused) == {}

    @pytest.mark.parametrize("column", ["beam_id", "parent_case_id"])
    def test_an_id_that_is_not_utf8_is_refused_and_later_reads_work(
        self, path: Path, discovery: DatabaseDiscovery, column: str
    ) -> None:
        db.add(path, "bad")
        db.add(path, "good")
        db.execute(path, f"UPDATE beams SET {column} = CAST(x'62ff' AS TEXT) WHERE beam_id = 'bad'")
        look = discovery.find_beams(time.time(), ())
        assert dict(look.refused) == {"not_utf8": 1}
        assert [row.key.beam_id for row in look.rows] == ["good"]
        # It ended long ago, so only the list of watched beams could read it again.
        db.execute(path, "UPDATE beams SET status = 'completed', updated_at = '2020-01-01 00:00:00'")
        later = discovery.find_beams(time.time(), [row.key for row in look.rows])
        assert [row.key.beam_id for row in later.rows] == ["good"]

    def test_a_case_id_is_checked(self, path: Path, discovery: DatabaseDiscovery) -> None:
        db.add(path, "b", case_id="a/../b")
        assert dict(discovery.find_beams(time.time(), ()).refused) == {"path_separator": 1}


def found(names: list[str], pattern: str | None = None) -> dict[str, tuple[str, str]]:
    files = {name: LogStat(1, 100.0) for name in names}
    look = DirectoryDiscovery(pattern).find_beams(1.0, {"/logs": files})
    return {row.log_path or "": (row.key.case_id, row.key.beam_id) for row in look.rows}


class TestDirectory:
    def test_old_logs_of_a_case_with_a_recent_log_are_returned_once(self) -> None:
        discovery = DirectoryDiscovery()
        files = {
            "c_b1.log": LogStat(1, 5.0),
            "c_b2.log": LogStat(1, 95.0),
            "c_..b3.log": LogStat(1, 5.0),
            "other_b1.log": LogStat(1, 5.0),
        }
        first = discovery.find_beams(100.0, {"/logs": files}, written_since=90.0)
        assert [(row.key.beam_id, row.log_path) for row in first.rows] == [
            ("b2", "/logs/c_b2.log"),
            ("b1", "/logs/c_b1.log"),
        ]
        again = discovery.find_beams(110.0, {"/logs": files}, written_since=90.0)
        assert [row.key.beam_id for row in again.rows] == ["b2"]

    def test_the_newer_of_two_old_logs_of_one_beam_counts(self) -> None:
        files = {"c_b2.log": LogStat(1, 95.0), "c_b1.log": LogStat(1, 7.0), "sim_c_c_b1.log": LogStat(1, 5.0)}
        pattern = "(sim_c_)?(?P<case_id>c)_(?P<beam_id>.*)[.]log"
        rows = DirectoryDiscovery(pattern).find_beams(100.0, {"/logs": files}, written_since=90.0).rows
        assert [row.log_path for row in rows] == ["/logs/c_b2.log", "/logs/c_b1.log"]

    @pytest.mark.parametrize(
        ("name", "case_id", "beam_id"),
        [
            ("70010001_70010001_2025042401440800.log", "70010001", "70010001_2025042401440800"),
            ("test_case_01_test_case_01_field_1.log", "test_case_01", "test_case_01_field_1"),
            ("환자 01_재계획_환자 01_재계획_빔_2.log", "환자 01_재계획", "환자 01_재계획_빔_2"),
            ("sim_70010001_beam_10.log", "70010001", "70010001_beam_10"),
            ("sim_test_case_01_beam_2.log", "test_case_01", "test_case_01_beam_2"),
            ("sim_70010001_70010001_2025042401440800.log", "70010001", "70010001_2025042401440800"),
            ("sim_70010001_70010001_beam_1.log", "70010001", "70010001_beam_1"),
            ("04010004_beam_1.log", "04010004", "beam_1"),
            ("1.2.840.10008_1.log", "1.2.840.10008", "1"),
        ],
    )
    def test_ids_are_read_from_the_file_name(self, name: str, case_id: str, beam_id: str) -> None:
        assert found([name]) == {f"/logs/{name}": (case_id, beam_id)}

    def test_other_files_are_skipped(self) -> None:
        assert found(["notes.txt", "nounderscore.log", ".log", "a_b.log.1"]) == {}

    def test_a_site_can_set_its_own_pattern(self) -> None:
        names = ["run-7-case-A.txt", "70010001_beam_1.log"]
        pattern = r"run-(?P<beam_id>\d+)-case-(?P<case_id>\w+)\.txt"
        assert found(names, pattern) == {"/logs/run-7-case-A.txt": ("A", "7")}

    def test_an_unchanged_file_keeps_its_row_object(self) -> None:
        discovery = DirectoryDiscovery()
        idle, grows = "c_b1.log", "c_b2.log"
        first = discovery.find_beams(10.0, {"/logs": {idle: LogStat(1, 5.0), grows: LogStat(1, 5.0)}}).rows
        again = discovery.find_beams(20.0, {"/logs": {idle: LogStat(1, 5.0), grows: LogStat(2, 15.0)}}).rows
        assert again[0] is first[0]
        assert (again[1].updated_at, again[1].read_at) == (15.0, 20.0)
        assert again[1].key is first[1].key
        assert again[1].log_path is first[1].log_path
        assert discovery.find_beams(30.0, {"/logs": {}}).rows == ()
        assert discovery.find_beams(40.0, {"/logs": {idle: LogStat(1, 5.0)}}).rows[0] is not first[0]

    def test_the_last_written_of_two_files_of_one_beam_counts_in_every_call(self) -> None:
        stats = {"c_b1.log": 5.0, "sim_c_b1.log": 7.0}
        discovery = DirectoryDiscovery("(sim_)?(?P<case_id>c)_(?P<beam_id>b1)[.]log")
        for written, meant in (({}, "sim_c_b1.log"), ({"c_b1.log": 9.0}, "c_b1.log"), ({}, "c_b1.log")):
            stats |= written
            (row,) = discovery.find_beams(10.0, {"/logs": {name: LogStat(1, at) for name, at in stats.items()}}).rows
            assert row.log_path == f"/logs/{meant}"
            assert row.updated_at == stats[meant]

    def test_the_newest_of_two_files_of_one_beam_counts(self) -> None:
        look = DirectoryDiscovery().find_beams(
            1.0, {"/a": {"c_b.log": LogStat(1, 100.0)}, "/b": {"c_b.log": LogStat(1, 200.0)}}
        )
        [row] = look.rows
        assert (row.log_path, row.updated_at) == ("/b/c_b.log", 200.0)

    def test_unusable_ids_in_file_names_are_refused_once(self) -> None:
        discovery = DirectoryDiscovery()
        files = {"a_..b.log": LogStat(1, 1.0)}
        assert dict(discovery.find_beams(1.0, {"/a": files}).refused) == {"parent_directory": 1}
        assert dict(discovery.find_beams(2.0, {"/a": files}).refused) == {}
