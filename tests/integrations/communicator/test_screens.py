"""A database of the plan's revision, migrated and written by us, as its screens show it after the plan's phase 7.

The query and the rules are those that docs/communicator.md describes in words: phase 7 names them, and the revisions
that followed it have them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.beams.snapshot import BeamKey
from exporter.database.beams_table import BeamsTable
from exporter.database.table import ProgressUpdate
from tests.support import communicator_db as db

CASE = "70010001"
BEAMS = tuple(BeamKey(CASE, f"{CASE}_2025042401{minute}") for minute in ("440800", "501400", "552900"))

PHASE_7_QUERY = """
    SELECT beam_id, status, progress, created_at, updated_at, hpc_job_id, error_message
    FROM beams
    WHERE parent_case_id = ?
    ORDER BY beam_id ASC
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """As the plan's revision leaves it: three beams, one of which failed, and no column ``progress``."""
    path = db.make(tmp_path / "mqi_communicator.db", db.PLAN_BEAMS)
    for beam, status in zip(BEAMS, ("csv_interpreting", "hpc_running", "failed"), strict=True):
        db.add(path, beam.beam_id, status, CASE)
    return path


@pytest.fixture
def table(database: Path) -> Iterator[BeamsTable]:
    table = BeamsTable(database)
    yield table
    table.close()


def read_as_phase_7_does(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        rows = connection.execute(PHASE_7_QUERY, (CASE,)).fetchall()
    finally:
        connection.close()
    return [
        {
            "beam_id": row["beam_id"],
            "status": row["status"],
            "progress": row["progress"],
            "created_at": datetime.fromisoformat(row["created_at"]),
            "updated_at": datetime.fromisoformat(row["updated_at"]) if row["updated_at"] else None,
            "hpc_job_id": row["hpc_job_id"],
            "error_message": row["error_message"],
        }
        for row in rows
    ]


def bar(progress: float) -> str:
    """Twenty cells and one decimal, of the number as it stands in the column."""
    cells = int(progress / 100 * 20)
    return f"[{'#' * cells}{'-' * (20 - cells)}] {progress:.1f}%"


def test_before_the_migration_the_plans_query_of_progress_fails(database: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such column: progress"):
        read_as_phase_7_does(database)


def test_after_the_migration_every_beam_has_a_number_that_can_be_shown(database: Path, table: BeamsTable) -> None:
    assert table.migrate()
    beams = read_as_phase_7_does(database)
    assert [beam["beam_id"] for beam in beams] == [key.beam_id for key in BEAMS]
    assert [beam["progress"] for beam in beams] == [0.0, 0.0, 0.0]
    assert {bar(beam["progress"]) for beam in beams} == {"[--------------------] 0.0%"}


def test_progress_is_shown_as_the_exporter_writes_it(database: Path, table: BeamsTable) -> None:
    table.migrate()
    table.write([ProgressUpdate(BEAMS[0].beam_id, 27.78), ProgressUpdate(BEAMS[1].beam_id, 100.0)])
    assert not table.update_beam_progress(BEAMS[2].beam_id, 50.0), "a row that is over stays as it was"
    assert [bar(beam["progress"]) for beam in read_as_phase_7_does(database)] == [
        "[#####---------------] 27.8%",
        "[####################] 100.0%",
        "[--------------------] 0.0%",
    ]


def test_the_exporter_changes_nothing_but_progress(database: Path, table: BeamsTable) -> None:
    before = db.execute(
        database, "SELECT beam_id, parent_case_id, beam_path, status, hpc_job_id, error_message FROM beams"
    )
    table.migrate()
    table.write([ProgressUpdate(BEAMS[0].beam_id, 27.78)])
    after = db.execute(
        database, "SELECT beam_id, parent_case_id, beam_path, status, hpc_job_id, error_message FROM beams"
    )
    assert after == before


def test_the_plans_own_queries_know_nothing_of_the_new_column(database: Path, table: BeamsTable) -> None:
    """It inserts and reads by names: what it did before the migration it can do after it."""
    table.migrate()
    db.add(database, f"{CASE}_2025042402000000", "pending", CASE)
    beams = read_as_phase_7_does(database)
    assert (beams[-1]["status"], beams[-1]["progress"]) == ("pending", 0.0)
