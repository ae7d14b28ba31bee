"""The demo, driven by a clock that is held."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.demo.demo import DemoCommunicator, demo_simulations
from tests.support.process import wait_for
from tests.support.terminal import TerminalProcess

ENDS = {
    "DEMO0001_beam_1": "completed",
    "DEMO0001_beam_2": "completed",
    "DEMO0001_beam_3": "completed",
    "DEMO0002_beam_1": "failed",
    "DEMO0002_beam_2": "simulation_running",
    "DEMO0002_beam_3": "completed",
}


@pytest.fixture
def communicator(tmp_path: Path) -> Iterator[DemoCommunicator]:
    demo = DemoCommunicator(tmp_path / "demo")
    demo.prepare()
    yield demo
    demo.close()


def select(demo: DemoCommunicator, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(demo.database_path)) as database:
        return database.execute(query).fetchall()


def column(demo: DemoCommunicator, name: str) -> dict[str, Any]:
    """A column of the beams table by beam."""
    return {row[0]: row[1] for row in select(demo, f"SELECT beam_id, {name} FROM beams")}


def statuses(demo: DemoCommunicator) -> dict[str, Any]:
    return column(demo, "status")


def play_until(demo: DemoCommunicator, start: float, end: float) -> None:
    """Steps whenever the demo asks for it, from ``start`` to ``end``."""
    at: float | None = start
    while at is not None and at <= end:
        at = demo.step(at)


def play_until_status(demo: DemoCommunicator, start: float, beam_id: str, status: str) -> float:
    """Steps until the beam has that status; returns the time of the next step."""
    at: float | None = start
    while at is not None and at <= start + 200.0:
        at = demo.step(at)
        if statuses(demo)[beam_id] == status:
            return at if at is not None else math.inf
    raise AssertionError(f"{beam_id} never became {status}")


def history(demo: DemoCommunicator, beam_id: str, end: float) -> list[tuple[str, bool]]:
    """The statuses of a beam in order, each with whether its log exists at that moment."""
    seen: list[tuple[str, bool]] = []
    at: float | None = 0.0
    while at is not None and at <= end:
        at = demo.step(at)
        status = statuses(demo)[beam_id]
        if not seen or seen[-1][0] != status:
            seen.append((status, demo.log_path(beam_id).exists()))
    return seen


def test_every_beam_but_the_stalled_one_ends_within_three_minutes(communicator: DemoCommunicator) -> None:
    play_until(communicator, 0.0, 185.0)
    assert statuses(communicator) == ENDS
    assert communicator.step(185.0) == math.inf
    assert select(communicator, "SELECT case_id, status, retry_count FROM cases ORDER BY case_id") == [
        ("DEMO0001", "completed", 1),
        ("DEMO0002", "processing", 0),
    ]


def test_the_logs_show_the_outcome_of_each_beam(communicator: DemoCommunicator) -> None:
    play_until(communicator, 0.0, 185.0)
    last_lines = {beam_id: communicator.log_path(beam_id).read_bytes().splitlines()[-1] for beam_id in ENDS}
    for beam_id in ("DEMO0001_beam_1", "DEMO0001_beam_2", "DEMO0001_beam_3", "DEMO0002_beam_3"):
        assert last_lines[beam_id].startswith(b"Time taken by MC engine: ")
    assert last_lines["DEMO0002_beam_1"].startswith(b"CUDA error after (transport particle table)")
    assert last_lines["DEMO0002_beam_2"] == b"Particle generation complete!"
    assert b"(7 of 20 batches)" in communicator.log_path("DEMO0002_beam_2").read_bytes()


def test_a_beam_goes_through_the_communicators_statuses(communicator: DemoCommunicator) -> None:
    assert history(communicator, "DEMO0001_beam_1", 120.0) == [
        ("pending", False),
        ("csv_interpreting", False),
        ("tps_generation", False),
        ("pending", False),
        ("simulation_running", True),
        ("postprocessing", True),
        ("completed", True),
    ]


def test_a_killed_beam_is_reset_and_run_again_from_a_new_log(communicator: DemoCommunicator) -> None:
    beam_id = "DEMO0001_beam_3"
    log = communicator.log_path(beam_id)

    at = play_until_status(communicator, 0.0, beam_id, "failed")
    assert log.read_bytes().endswith(b"Killed\n")
    row = f"SELECT progress, error_message FROM beams WHERE beam_id = '{beam_id}'"
    assert select(communicator, row) == [(0.0, "Simulation failed with exit code 137")]
    with closing(sqlite3.connect(communicator.database_path)) as database, database:
        database.execute("UPDATE beams SET progress = 33.3")  # as our mirror would

    at = play_until_status(communicator, at, beam_id, "pending")
    assert select(communicator, row) == [(0.0, "")]
    assert select(communicator, "SELECT DISTINCT progress FROM beams WHERE status != 'pending'") == [(33.3,)]
    assert log.read_bytes().endswith(b"Killed\n"), "the old log stands until the launch"

    with log.open("rb") as old_log:
        play_until_status(communicator, at, beam_id, "simulation_running")
        assert old_log.read().endswith(b"Killed\n"), "removed, not truncated"
    assert b"Killed" not in log.read_bytes()


def test_the_demo_leaves_progress_to_the_mirror(communicator: DemoCommunicator) -> None:
    play_until(communicator, 0.0, 6.0)
    with closing(sqlite3.connect(communicator.database_path)) as database, database:
        database.execute("UPDATE beams SET progress = 12.5")
    play_until(communicator, 6.0, 185.0)
    progress = column(communicator, "progress")
    assert progress.pop("DEMO0001_beam_3") == 0.0, "reset by its retry"
    assert set(progress.values()) == {12.5}


def test_the_database_is_what_the_newest_communicator_makes(communicator: DemoCommunicator) -> None:
    assert select(communicator, "PRAGMA journal_mode") == [("wal",)]
    columns = [row[1] for row in select(communicator, "PRAGMA table_info(beams)")]
    assert columns == [
        "beam_id",
        "parent_case_id",
        "beam_path",
        "beam_number",
        "status",
        "progress",
        "hpc_job_id",
        "error_message",
        "created_at",
        "updated_at",
    ]
    play_until(communicator, 0.0, 1.0)
    rows = select(communicator, "SELECT DISTINCT progress, typeof(progress), length(updated_at) FROM beams")
    assert rows == [(0.0, "real", len("2026-01-31 12:00:00"))]


def test_a_second_start_on_the_same_folder_begins_anew_and_touches_nothing_else(tmp_path: Path) -> None:
    demo = DemoCommunicator(tmp_path)
    demo.prepare()
    play_until(demo, 0.0, 60.0)
    (tmp_path / "logs" / "other.log").write_text("not ours")
    again = DemoCommunicator(tmp_path)
    again.prepare()
    demo.close()
    assert select(again, "SELECT * FROM beams") == []
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["other.log"]
    assert list((tmp_path / "dose").iterdir()) == []
    play_until(again, 1000.0, 1185.0)
    assert statuses(again) == ENDS
    again.close()


def test_a_run_that_succeeded_has_written_its_dose(communicator: DemoCommunicator) -> None:
    play_until(communicator, 0.0, 185.0)
    written = {beam_id for beam_id in ENDS if communicator.dose_path(beam_id).is_file()}
    assert written == {beam_id for beam_id, status in ENDS.items() if status == "completed"}


def test_closing_the_terminal_ends_the_demo_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with TerminalProcess(
        "demo", "--web.listen-address", "127.0.0.1:0", environment={"TMPDIR": str(tmp_path)}
    ) as process:
        wait_for(lambda: "Ctrl-C ends it" in process.output, "the demo to run")
        process.hang_up()
        process.wait()
    assert list(tmp_path.iterdir()) == []
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in command for command in commands)


def test_speed_shortens_everything(tmp_path: Path) -> None:
    demo = DemoCommunicator(tmp_path, speed=10.0)
    demo.prepare()
    play_until(demo, 0.0, 18.5)
    assert statuses(demo) == ENDS
    demo.close()
    stall = yaml.safe_load(demo.configuration("127.0.0.1:0"))["progress_tracking"]["stall"]
    assert stall["minimum_seconds"] == pytest.approx(1.5)


def test_a_late_step_changes_nothing_but_the_time(communicator: DemoCommunicator) -> None:
    communicator.step(0.0)
    assert communicator.step(1000.0) == math.inf
    assert statuses(communicator) == ENDS


def test_running_ends_at_once_when_stopped(tmp_path: Path) -> None:
    demo = DemoCommunicator(tmp_path, speed=1000.0)
    demo.prepare()
    stop = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            demo.run(stop)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    player = threading.Thread(target=run)
    player.start()
    deadline = time.monotonic() + 30
    while statuses(demo) != ENDS and time.monotonic() < deadline and player.is_alive():
        time.sleep(0.01)
    assert statuses(demo) == ENDS
    stop.set()
    player.join(timeout=10)
    assert not player.is_alive()
    assert errors == []


def test_a_database_that_somebody_locks_for_longer_than_the_communicator_waits_is_waited_for(
    communicator: DemoCommunicator,
) -> None:
    path = communicator.database_path
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(6.0, other.rollback)
        release.start()
        play_until(communicator, 0.0, 30.0)
        release.join()
    assert "simulation_running" in statuses(communicator).values()


def test_a_database_that_went_away_ends_the_demo_with_its_error(communicator: DemoCommunicator) -> None:
    communicator.database_path.unlink()
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        communicator.run(threading.Event())


def test_an_unprepared_demo_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        DemoCommunicator(tmp_path).step(0.0)


@pytest.mark.parametrize("speed", [0.0, -2.0, math.nan])
def test_a_speed_that_is_not_positive_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        DemoCommunicator(tmp_path, speed=speed)


def test_the_configuration_follows_this_demo(tmp_path: Path) -> None:
    demo = DemoCommunicator(tmp_path / "a folder: with, signs")
    settings = yaml.safe_load(demo.configuration("127.0.0.1:10813"))
    assert settings["database"]["path"] == str(demo.database_path)
    assert settings["base_directory"] == str(demo.base_directory)
    assert settings["web"] == {"listen_address": "127.0.0.1:10813"}
    assert settings["mirror"]["enabled"] is True
    assert settings["progress_tracking"]["monitoring"]["poll_interval_seconds"] == 0.5
    (template,) = settings["sources"][0]["log_path"]
    rendered = template.format(base_directory=settings["base_directory"], beam_id="DEMO0001_beam_1")
    assert Path(rendered) == demo.log_path("DEMO0001_beam_1")
    (template,) = settings["sources"][0]["output_path"]
    rendered = template.format(base_directory=settings["base_directory"], beam_id="DEMO0001_beam_1")
    assert Path(rendered) == demo.dose_path("DEMO0001_beam_1")


def test_the_beams_of_the_demo_show_every_outcome() -> None:
    cast = demo_simulations()
    assert {beam.case_id for beam in cast} == {"DEMO0001", "DEMO0002"}
    assert len({beam.beam_id for beam in cast}) == len(cast) == 6
    assert {run.failure for beam in cast for run in beam.runs} == {None, "killed", "cuda", "hang"}
    assert "moqui" in {run.dialect for beam in cast for run in beam.runs}
