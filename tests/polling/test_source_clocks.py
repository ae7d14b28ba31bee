"""Sources whose files are dated by a clock that is behind or ahead of ours."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.beams.snapshot import BeamKey, SourceView
from exporter.logs.parser import SitePatterns
from exporter.polling.poller import SourcePoller
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from tests.support.world import BEAM, World, captured, quick, upto

OFFSETS = [-3600.0, -300.0, -30.0, -10.0, -3.0, 0.0, 3.0, 10.0, 300.0, 3600.0]
OTHER = BeamKey("70010002", "70010002_beam_1")
FAILED = upto("v2_b18", b"(2 of 18") + b"GPUassert: out of memory f 3\n"
SECOND_BATCH = upto("v2_b18", b"(2 of 18")[len(upto("v2_b18", b"(1 of 18")) :]
"""What is written when the first batch is done."""


@pytest.fixture(params=OFFSETS, ids=lambda seconds: f"{seconds:+.0f}s")
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    world = World(tmp_path, quick())
    world.at += 0.25  # whole seconds are what SFTP tells
    world.file_clock_seconds = request.param
    return world


def passes(world: World, seconds: float) -> None:
    """Time passes, with polls twice a second."""
    for _ in range(round(seconds * 2)):
        world.look(0.5)


def source(world: World) -> SourceView:
    [view] = world.snapshot().sources
    return view


def other_log_grows(world: World) -> None:
    """A second beam runs on the same source, so that the offset of its clock is learned."""
    world.row(key=OTHER)
    world.look()
    world.write(upto("v2_b18", b"(1 of 18"), OTHER)
    world.look()
    world.write(SECOND_BATCH, OTHER)
    world.look()
    assert source(world).clock_offset_seconds == pytest.approx(world.file_clock_seconds, abs=0.52)


def shown(world: World) -> tuple[str, int, str | None]:
    """State, run and reason."""
    view = world.view()
    return view.state.value, view.run_number, view.reason


class TestALogThatAppearedWhileWeWatched:
    def test_run_that_fails_at_once_is_failed_with_its_reason(self, world: World) -> None:
        world.row("pending")
        world.look(5)
        world.row("simulation_running")
        world.look(5)
        world.write(FAILED)
        world.look()
        assert shown(world) == ("failed", 1, "out_of_memory")
        world.look(15)
        assert world.runs == {("failed", "out_of_memory"): 1}

    def test_run_that_fails_at_once_is_failed_where_its_row_is_read_late(self, world: World) -> None:
        world.row("pending")
        world.look(5)
        world.at += 5
        world.write(FAILED)
        world.look(0)
        world.row("simulation_running")
        world.look(0.5)
        assert shown(world) == ("failed", 1, "out_of_memory")

    def test_retry_that_fails_at_once_is_run_2(self, world: World) -> None:
        world.row("simulation_running")
        world.look(5)
        world.write(captured("v2_b2"))
        world.look()
        world.look(15)
        world.row("completed", 100.0)
        world.look(5)
        world.row("pending")
        world.look(5)
        assert shown(world) == ("waiting", 2, None)
        world.row("simulation_running")
        world.look(5)
        world.log().unlink()
        world.write(FAILED)
        world.look()
        assert shown(world) == ("failed", 2, "out_of_memory")

    def test_requeued_run_whose_old_log_was_deleted_before_is_run_2(self, world: World) -> None:
        world.row("simulation_running")
        world.look(5)
        world.write(FAILED)
        world.look()
        world.look(15)
        world.row("failed")
        world.look(5)
        world.row("pending")
        world.log().unlink()
        world.look(5)
        world.row("simulation_running")
        world.look(5)
        world.write(captured("v2_b2"))
        world.look()
        assert shown(world) == ("succeeded", 2, None)


def test_logs_of_a_folder_that_comes_back_are_judged_by_their_dates(tmp_path: Path) -> None:
    """A file system that is mounted late brings the logs of earlier runs: they did not appear while we watched."""
    folder = tmp_path / "logs"
    folder.mkdir()
    world = World(folder, quick())
    world.write(captured("v2_b2"))
    folder.rename(tmp_path / "away")
    world.at += 60
    world.row("pending")
    passes(world, 10)
    (tmp_path / "away").rename(folder)
    passes(world, 20)
    assert shown(world) == ("waiting", 1, None)
    world.row("simulation_running")
    passes(world, 1)
    world.write(FAILED, anew=True)
    passes(world, 1)
    assert shown(world) == ("failed", 1, "out_of_memory")


class TestALogThatStoodThere:
    """Nobody can tell its age before the source's clock is known."""

    def test_log_of_the_run_before_stays_the_run_befores_once_the_clock_is_known(self, world: World) -> None:
        world.write(captured("v2_b2"))
        world.at += 60
        world.row("pending")
        world.at += 5
        world.row("simulation_running")
        other_log_grows(world)
        assert world.state == "waiting"
        world.write(upto("v2_b18", b"(1 of 18"), anew=True)
        world.look()
        assert shown(world)[0] == "running"
        assert world.view().batch_current == 1

    def test_log_of_this_run_is_this_runs_once_the_clock_is_known(self, world: World) -> None:
        world.row("simulation_running")
        world.at += 60
        world.write(FAILED)
        finished_at = world.at
        world.at += 60
        world.look()
        other_log_grows(world)
        assert shown(world) == ("failed", 1, "out_of_memory")
        assert world.view().ended_at == pytest.approx(finished_at, abs=0.52)

    def test_run_that_ended_after_the_start_is_counted_once_the_clock_is_known(self, world: World) -> None:
        world.row("simulation_running")
        world.rows[BEAM] = replace(world.rows[BEAM], updated_at=world.at - 10_000)
        world.at += 5
        world.write(FAILED)
        world.look()
        assert world.state == "failed"
        passes(world, 15)
        other_log_grows(world)
        passes(world, 15)
        assert shown(world) == ("failed", 1, "out_of_memory")
        assert world.runs == {("failed", "out_of_memory"): 1}

    def test_where_the_clock_was_known_before_each_log_is_attributed_at_once(self, world: World) -> None:
        other_log_grows(world)
        world.row("simulation_running")
        world.at += 60
        world.write(FAILED)
        world.look()
        assert shown(world) == ("failed", 1, "out_of_memory")

    def test_row_that_was_reset_after_the_first_look_keeps_the_log_with_the_run_before(self, world: World) -> None:
        """The clock is learned later: the log is older than the reset, whatever it was compared with at first."""
        world.row("simulation_running")
        world.at += 60
        world.write(captured("v2_b2"))
        world.at += 60
        world.look()
        world.row("completed", 100.0)
        world.look(5)
        world.row("pending")
        world.look(5)
        other_log_grows(world)
        assert world.state == "waiting"


class TestEstimates:
    @pytest.mark.parametrize("stood_there", [False, True])
    def test_time_left_after_the_first_batch_is_right(self, world: World, stood_there: bool) -> None:
        """Eighteen batches of ten seconds; the log may have stood there for five when the exporter starts."""
        world.row()
        if not stood_there:
            passes(world, 1)
        world.write(upto("v2_b18", b"(1 of 18"))
        if stood_there:
            world.at += 5
            passes(world, 5)
        else:
            passes(world, 10)
        world.write(SECOND_BATCH)
        passes(world, 0.5)
        view = world.view()
        assert view.batches_completed == 1
        assert view.batch_duration_seconds == pytest.approx(10, abs=1.1)
        assert view.remaining_seconds == pytest.approx(170, abs=20)

    @pytest.mark.parametrize("stood_there", [False, True])
    def test_stall_is_seen_within_the_usual_threshold(self, world: World, stood_there: bool) -> None:
        world.row()
        if not stood_there:
            world.look()
        world.write(upto("v2_b18", b"(1 of 18"))
        passes(world, 4)
        world.write(SECOND_BATCH)
        passes(world, 1)
        assert world.state == "running"
        assert world.view().stall_threshold_seconds <= 15
        passes(world, 15)
        assert world.state == "stalled"

    def test_dates_that_are_shown_are_by_our_clock(self, world: World) -> None:
        world.write(upto("v2_b18", b"(1 of 18"))
        began_at = world.at
        world.at += 60
        world.row()
        passes(world, 4)
        world.write(SECOND_BATCH)
        grown_at = world.at
        world.look()
        view = world.view()
        assert view.started_at == pytest.approx(began_at, abs=0.52)
        assert view.log_modified_at == pytest.approx(grown_at, abs=0.52)
        assert view.last_progress_at == pytest.approx(grown_at, abs=0.52)


class TestRestart:
    def test_offset_is_known_after_a_restart(self, world: World) -> None:
        other_log_grows(world)
        learned = source(world).clock_offset_seconds
        world.restart()
        world.row("simulation_running")
        world.at += 60
        world.write(FAILED)
        world.look()
        assert source(world).clock_offset_seconds == learned
        assert shown(world) == ("failed", 1, "out_of_memory")

    def test_run_goes_on_over_a_restart(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", b"(1 of 18"))
        world.look()
        passes(world, 4)
        world.write(SECOND_BATCH)
        world.look()
        world.restart()
        world.at += 2
        world.write(b"Generating particles for (3 of 18 batches) in CPU ..\n")
        world.look()
        view = world.view()
        assert (view.state, view.run_number, view.batch_current) == ("running", 1, 3)
        assert view.batch_duration_seconds == pytest.approx(4, abs=1)

    def test_run_that_failed_while_no_exporter_ran_is_failed_after_the_restart(self, world: World) -> None:
        world.row("simulation_running")
        world.look(5)
        world.look(5)
        world.restart()
        world.at += 60
        world.write(FAILED)
        world.at += 5
        world.look()
        assert shown(world) == ("failed", 1, "out_of_memory")

    def test_log_that_came_while_no_exporter_ran_and_our_clock_was_set_is_no_hour_old(self, world: World) -> None:
        """It is dated by the clock of before: what is learned later holds for later writes only."""
        world.row("simulation_running")
        passes(world, 5)
        state = world.saved()
        world.at += 2
        world.write(upto("v2_b18", b"(1 of 18"))
        written_at = world.at
        world.restart(state)
        world.set_clock(3600)
        world.poller.resume(*world.store.checkpoints("local"))
        other_log_grows(world)
        started_at = world.view().started_at
        assert started_at is not None
        assert abs(started_at - 3600 - written_at) < 10

    def test_log_attributed_by_the_wrong_clock_is_attributed_anew_in_the_next_process(self, world: World) -> None:
        world.row("simulation_running")
        world.at += 60
        world.write(FAILED)
        world.look()
        world.restart()
        other_log_grows(world)
        assert shown(world) == ("failed", 1, "out_of_memory")


def test_newest_of_two_logs_on_two_sources_is_found_by_corrected_dates(world: World) -> None:
    """A run that moves to a host whose clock is off: its log there is the newer one."""
    host = world.folder / "host"
    host.mkdir()
    poller = SourcePoller(
        LocalLogSource("host"),
        [LogPathTemplate(f"{host}/{{beam_id}}.log")],
        world.store,
        site=SitePatterns(),
        clock=lambda: world.at,
    )

    def write(data: bytes) -> None:
        with (host / f"{BEAM.beam_id}.log").open("ab") as file:
            file.write(data)
        os.utime(file.name, times=(world.at + offset,) * 2)

    def look() -> None:
        world.look()
        poller.poll()

    offset, world.file_clock_seconds = world.file_clock_seconds, 0.0
    world.row()
    look()
    world.write(upto("v2_b18", b"(1 of 18"))
    look()
    world.at += 4
    world.write(SECOND_BATCH)
    look()
    assert world.view().source == "local"
    world.at += 60
    write(upto("v2_b18", b"(1 of 18"))
    look()
    assert (world.view().source, world.view().run_number, world.view().batch_current) == ("host", 2, 1)
    for _ in range(3):
        look()
    assert world.view().source == "host"


class TestWhatIsSaid:
    def test_offset_is_unknown_until_a_log_has_grown(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        assert source(world).clock_offset_seconds is None

    def test_offset_is_warned_of_once_beyond_five_seconds(self, world: World) -> None:
        with capture_logs() as lines:
            other_log_grows(world)
            for _ in range(5):
                world.look(2)
                world.write(b"x\n", OTHER)
        assert len([line for line in lines if "offset_seconds" in line]) == (abs(world.file_clock_seconds) > 5)


@pytest.mark.parametrize("corrected", [-4.0, 0.0, 4.0])
def test_clock_that_was_corrected_is_followed_and_its_next_fault_is_said_again(
    tmp_path: Path, corrected: float
) -> None:
    world = World(tmp_path, quick())
    world.at += 0.25
    with capture_logs() as lines:
        for seconds in (-300.0, corrected, 300.0):
            world.file_clock_seconds = seconds
            other_log_grows_often(world)
            assert source(world).clock_offset_seconds == pytest.approx(seconds, abs=0.52)
    assert [line["offset_seconds"] for line in lines if "offset_seconds" in line] == [
        pytest.approx(-300, abs=1),
        pytest.approx(300, abs=1),
    ]


def other_log_grows_often(world: World) -> None:
    world.row(key=OTHER)
    for _ in range(6):
        world.look()
        world.write(b"a line\n", OTHER)
    world.look()


def test_log_that_is_dated_after_a_poll_has_seen_it_grow_tells_the_offset_all_the_same(tmp_path: Path) -> None:
    """Who copies logs may write first and date the file afterwards."""
    world = World(tmp_path, quick())
    world.at += 0.25
    world.row()
    world.look()
    for number in range(8):
        world.write(b"a line\n")
        if number:
            world.look()
        os.utime(world.log(), times=(world.at - 300,) * 2)
        world.look()
    assert source(world).clock_offset_seconds == pytest.approx(-300, abs=1.1)


@pytest.mark.parametrize("seconds", [-300.0, 300.0])
def test_log_that_is_dated_after_its_first_read_is_dated_anew(tmp_path: Path, seconds: float) -> None:
    """As by who writes first and dates the file afterwards, where the offset is known already."""
    world = World(tmp_path, quick())
    world.at += 0.25
    world.file_clock_seconds = seconds
    other_log_grows(world)
    world.write(FAILED)
    world.row("simulation_running")
    written_at = world.at
    os.utime(world.log(), times=(world.at,) * 2)
    passes(world, 1)
    os.utime(world.log(), times=(written_at + seconds,) * 2)
    passes(world, 1)
    assert shown(world) == ("failed", 1, "out_of_memory")
    assert world.view().started_at == pytest.approx(written_at, abs=1.1)


@pytest.mark.parametrize("how", ["rsync -t", "touch", "cp -p over it"])
def test_log_that_is_given_an_old_time_stamp_does_not_change_what_was_learned(tmp_path: Path, how: str) -> None:
    world = World(tmp_path, quick())
    world.at += 0.25
    other_log_grows_often(world)
    world.row()
    world.look()
    world.write(upto("v2_b18", b"(1 of 18"))
    world.look()
    path = world.log()
    for number in range(3):
        if how == "rsync -t":
            with path.open("ab") as file:
                file.write(b"more\n")
        elif how == "cp -p over it":
            path.write_bytes(path.read_bytes() + b"more\n")
        os.utime(path, times=(world.at - 1000 * (number + 1),) * 2)
        world.look()
        other_log_grows_often(world)
        assert source(world).clock_offset_seconds == 0.0
