"""What happens to a beam between its row and its log, in the orders in which the communicator really does things."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamState
from exporter.embedding import ProgressMonitor
from exporter.runtime.event_log import log_event
from exporter.sources.local import LocalLogSource
from exporter.sources.source import NO_KNOWN_STATS, LogProblem, LogStat, SourceUnavailable
from exporter.sources.tail_lines import LAST_BYTES, last_lines
from tests.support.process import wait_for
from tests.support.replay import LOGS
from tests.support.world import BEAM, FragileSource, World, after, captured, quick, upto

FIRST_BATCH = b"Generating particles for (1 of 18"
FINISHED = b"Transporting particles...\nThread initialization complete!\nParticle transportation complete!\n"


def begun(batch: int) -> bytes:
    """The lines with which one of 18 batches begins."""
    return b"Generating particles for (%d of 18 batches) in CPU ..\nParticle generation complete!\n" % batch


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


def test_a_beam_waits_starts_runs_and_succeeds(world: World) -> None:
    world.row("pending")
    world.look()
    assert (world.state, world.view().source) == (BeamState.WAITING, "unknown")
    world.row("simulation_running")
    world.write(upto("v2_b18", b"Creating world geometry complete!"))
    world.look()
    assert (world.state, world.view().phase, world.view().source) == (BeamState.STARTING, "preparing", "local")
    world.write(captured("v2_b18")[len(upto("v2_b18", b"Creating world geometry complete!")) :][:1500])
    world.look()
    assert world.state == BeamState.STARTING or world.view().batch_current >= 1
    world.write(captured("v2_b18"), anew=True)
    world.look()
    assert world.state == BeamState.SUCCEEDED
    assert world.view().estimated_ratio == 1.0


def test_batches_are_timed_by_when_the_log_was_written(world: World) -> None:
    world.row()
    world.look()
    world.write(upto("v2_b18", b"Particle generation complete!"))
    world.look(0.5)
    written_at = world.at + 9.8
    world.at = written_at
    world.write(
        upto("v2_b18", b"Particle transportation complete!")[len(upto("v2_b18", b"Particle generation complete!")) :]
    )
    world.look(0.2)
    view = world.view()
    assert view.batches_completed == 1
    assert view.batch_duration_seconds == pytest.approx(10.3, abs=0.01)
    [histogram] = world.snapshot().batch_durations.values()
    assert sum(histogram.counts) == 1


def test_the_newest_log_of_several_templates_wins(tmp_path: Path) -> None:
    world = World(tmp_path, quick(), templates=("{beam_id}.log", "old/{beam_id}.log"))
    (tmp_path / "old").mkdir()
    old = tmp_path / "old" / f"{BEAM.beam_id}.log"
    old.write_bytes(captured("v2_b2"))
    os.utime(old, (world.at - 500, world.at - 500))
    world.row()
    world.write(upto("v2_b18", FIRST_BATCH))
    world.look()
    assert world.view().log_path == str(world.log())
    assert world.view().batches_total == 18


def test_a_newer_log_at_another_place_is_a_new_run(tmp_path: Path) -> None:
    world = World(tmp_path, quick(), templates=("{beam_id}.log", "new/{beam_id}.log"))
    (tmp_path / "new").mkdir()
    world.row()
    world.write(captured("v2_b2"))
    world.look()
    assert world.state == BeamState.SUCCEEDED
    world.at += 60
    newer = tmp_path / "new" / f"{BEAM.beam_id}.log"
    newer.write_bytes(upto("v2_b18", FIRST_BATCH))
    os.utime(newer, (world.at, world.at))
    world.look()
    assert (world.state, world.view().run_number, world.view().batches_total) == (BeamState.RUNNING, 2, 18)


@pytest.mark.parametrize("what", ["directory", "fifo"])
def test_what_is_no_log_is_said_once_and_stops_nothing_else(world: World, what: str) -> None:
    other = BeamKey("70010001", "70010001_beam_2")
    world.row()
    world.row(key=other)
    world.write(captured("v2_b2"), other)
    (world.log().mkdir if what == "directory" else lambda: os.mkfifo(world.log()))()
    for _ in range(5):
        world.look()
    assert world.state == BeamState.WAITING
    assert world.view(other).state is BeamState.SUCCEEDED
    assert world.snapshot().sources[0].errors == {"not_a_file": 1}


def test_a_log_that_a_link_leads_out_of_its_folder_is_said_once_and_stops_nothing_else(tmp_path: Path) -> None:
    logs, outside = tmp_path / "logs", tmp_path / "outside.log"
    logs.mkdir()
    outside.write_bytes(captured("v2_b2"))
    world = World(logs, quick(), source=LocalLogSource("local", [str(logs)]))
    other = BeamKey("70010001", "70010001_beam_2")
    world.row()
    world.row(key=other)
    world.log().symlink_to(outside)
    world.write(captured("v2_b2"), other)
    with capture_logs() as lines:
        for _ in range(5):
            world.look()
    [line] = [line for line in lines if line["event"] == "log cannot be read"]
    assert "follow_links: anywhere" in str(line["error"])
    assert world.state == BeamState.WAITING
    assert world.view(other).state is BeamState.SUCCEEDED
    assert world.snapshot().sources[0].errors == {"link": 1}


def test_a_log_larger_than_one_read_is_caught_up_in_one_look(world: World) -> None:
    world.row()
    world.write(b"noise that means nothing, line after line\n" * 100_000 + captured("v2_b18"))
    world.look()
    assert world.view().batches_completed == 18
    assert world.snapshot().sources[0].read_bytes == world.log().stat().st_size


def test_ids_that_would_leave_the_folder_are_refused_and_counted(world: World) -> None:
    world.row(key=BeamKey("c", "../outside"))
    world.look()
    world.look()
    assert world.snapshot().discovery_refused == {"log_path": 1}


class TestFirstLook:
    def test_when_a_run_began_that_stood_there_nobody_knows(self, world: World) -> None:
        world.row()
        world.write(upto("v2_b18", b"Generating particles for (5 of 18"))
        written_at = world.at
        world.look(300)
        assert (world.view().began_at, world.view().started_at) == (None, written_at)
        world.write(after("v2_b18", b"Generating particles for (5 of 18"))
        with capture_logs() as lines:
            world.look()
            for event in world.store.pop_events():
                log_event(event)
        assert world.view().state == BeamState.SUCCEEDED
        assert [line["seconds"] for line in lines if line["event"] == "run succeeded"] == [None]
        world.look(5)
        [run] = world.snapshot().ended
        assert run.started_at is None
        world.write(upto("v2_b18", FIRST_BATCH), anew=True)
        world.look()
        assert world.view().began_at == world.at - 0.5, "the next one was seen"

    def test_a_run_that_had_ended_before_is_shown_and_not_counted(self, world: World) -> None:
        world.at -= 50
        world.write(captured("v2_b2"))
        world.at += 50
        world.rows.clear()
        world.row("completed", 100.0)
        for _ in range(20):
            world.look(1)
        assert world.state == BeamState.SUCCEEDED
        assert world.view().ended_at == world.log().stat().st_mtime
        assert world.runs == {}

    def test_batches_that_stood_there_have_no_duration(self, world: World) -> None:
        world.write(upto("v2_b18", b"Generating particles for (9 of 18"))
        world.at += 30
        world.row()
        world.look()
        view = world.view()
        assert (view.batches_completed, view.batch_duration_seconds) == (8, None)
        assert view.stall_threshold_seconds == 60
        assert view.last_progress_at == pytest.approx(world.at - 30.5)
        assert world.snapshot().batch_durations == {}

    def test_a_run_ending_live_is_counted_once(self, world: World) -> None:
        world.row()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.write(after("v2_b18", FIRST_BATCH))
        for _ in range(20):
            world.look(1)
        assert world.runs == {("succeeded", ""): 1}
        [ended] = world.snapshot().ended
        assert (ended.outcome, ended.run_number) == ("succeeded", 1)

    def test_a_beam_that_began_and_failed_between_two_looks_is_counted(self, world: World) -> None:
        world.look()
        world.write(captured("v2_missing_input"))
        world.row("failed")
        for _ in range(5):
            world.look(1)
        assert world.runs == {("failed", "exception"): 1}


def succeeded(world: World) -> None:
    """A beam has succeeded, by its log and by its row, and was counted."""
    world.row()
    world.look()
    world.write(captured("v2_b18"))
    world.look()
    world.row("completed", 100.0)
    for _ in range(3):
        world.look(1)
    assert world.runs == {("succeeded", ""): 1}


class TestRetry:
    def test_as_the_newest_communicator_does_it(self, world: World) -> None:
        """Reset, status, unlink, new log in the same inode: no value of the old run shows up as the new one's."""
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.look()
        world.row("failed", 33.3)
        world.look()
        assert world.state == BeamState.FAILED
        world.at += 30
        world.row("pending", 0.0)
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 2)
        assert world.view().estimated_ratio == 0.0
        world.at += 30
        world.row("simulation_running", 40.0)
        world.look()
        assert world.state == BeamState.WAITING
        world.log().unlink()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        assert (world.state, world.view().run_number, world.view().batch_current) == (BeamState.RUNNING, 2, 1)
        assert world.runs == {("failed", "killed"): 1}

    def test_with_the_old_log_until_the_shell_truncates_it(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.look()
        world.write(b"", anew=True)
        world.look()
        assert world.state == BeamState.FAILED
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.RUNNING, 2)
        assert world.runs == {("failed", "killed"): 1}

    def test_seen_only_when_it_runs_again(self, world: World) -> None:
        """Failed, reset and launched within one interval of discovery: the log was replaced before the row was read."""
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.row("failed")
        world.look()
        world.at += 20
        world.write(upto("v2_b18", FIRST_BATCH), anew=True)
        world.row("simulation_running")
        world.look()
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.RUNNING, 2)

    def test_after_a_run_that_ended_without_a_word(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_bash_sigsegv_real"))
        world.look()
        world.row("failed")
        for _ in range(20):
            world.look(1)
        assert (world.state, world.view().reason) == (BeamState.FAILED, "status")
        world.row("pending")
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 2)
        assert world.runs == {("failed", "status"): 1}

    def test_over_a_log_that_was_seen_empty_before_the_row_was_read(self, world: World) -> None:
        """A shell empties the log when it launches the engine, whose first line may come much later."""
        succeeded(world)
        world.at += 30
        world.write(b"", anew=True)
        world.row("simulation_running")
        world.poller.poll()
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.STARTING, 2)
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        assert (world.state, world.view().run_number, world.view().batch_current) == (BeamState.RUNNING, 2, 1)
        assert world.runs == {("succeeded", ""): 1}

    @pytest.mark.parametrize("status", ["simulation_running", "postprocessing"])
    def test_that_ended_before_its_row_was_read_is_one_run(self, world: World, status: str) -> None:
        """As when the database, or the exporter, was away from its launch until after its end."""
        succeeded(world)
        world.at += 30
        world.write(captured("v2_b2"), anew=True)
        world.poller.poll()
        world.at += 5
        world.row(status)
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.SUCCEEDED, 2)
        for _ in range(3):
            world.look(1)
        assert world.runs == {("succeeded", ""): 2}

    def test_that_waits_again_when_its_row_is_read_is_two_runs(self, world: World) -> None:
        succeeded(world)
        world.at += 30
        world.write(captured("v2_b2"), anew=True)
        world.poller.poll()
        world.at += 5
        world.row("pending", 0.0)
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 3)

    def test_is_not_said_to_have_ended_by_what_was_read_of_the_row_before(self, world: World) -> None:
        succeeded(world)
        world.restart()
        world.write(upto("v2_b18", b"Creating world geometry complete!"), anew=True)
        world.row()
        world.poller.poll()
        assert (world.state, world.view().run_number) == (BeamState.STARTING, 2)
        assert world.view().estimated_ratio == 0.0

    def test_is_not_said_to_have_ended_by_a_row_that_was_being_read_when_it_was_met(self, world: World) -> None:
        succeeded(world)
        world.at += 1
        asked_at, rows = world.at, list(world.rows.values())
        world.at += 1
        world.write(upto("v2_b18", b"Creating world geometry complete!"), anew=True)
        world.poller.poll()
        world.store.update_rows(rows, (), asked_at)
        assert (world.state, world.view().run_number) == (BeamState.STARTING, 2)
        world.row()
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.STARTING, 2)

    @pytest.mark.parametrize("source", ["local", "down"])
    def test_whose_log_begins_as_that_of_a_silent_crash(self, tmp_path: Path, source: str) -> None:
        """Nobody saw the file while it was shorter: it has only grown, as far as one can tell."""
        fragile = FragileSource("local")
        world = World(tmp_path, quick(), source=fragile)
        data = captured("v2_b18")
        world.row()
        world.look()
        world.write(data[: data.index(b"Starting process of Monte Carlo")])
        world.look()
        world.row("failed")
        world.look(3)
        world.look(15)
        assert world.runs == {("failed", "status"): 1}
        fragile.down = source == "down"
        world.look()
        world.at += 20
        world.row("simulation_running", 40.0)
        world.look()
        world.at += 20
        world.log().unlink()
        world.write(upto("v2_b18", b"(2 of 18") + b"Particle generation complete!\n", anew=True)
        fragile.down = False
        world.look()
        view = world.view()
        assert (view.state, view.run_number, view.batch_current, view.batches_total) == ("running", 2, 2, 18)
        world.look(20)
        world.write(FINISHED + b"".join(begun(batch) + FINISHED for batch in range(3, 19)))
        world.write(b"Cannot open file!\nTime taken by MC engine: 1.0 milli-seconds\n")
        world.look()
        assert (world.state, world.view().reason) == ("failed", "output_error"), "which its row will not say"
        world.row("completed", 100.0)
        world.look(3)
        world.look(15)
        assert (world.state, world.view().batches_completed) == ("failed", 18)
        assert world.runs == {("failed", "status"): 1, ("failed", "output_error"): 1}

    def test_that_goes_on_in_the_log_of_the_run_before(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.look()
        world.row("failed")
        world.look(3)
        world.row("pending", 0.0)
        world.look(3)
        assert world.state == BeamState.WAITING
        world.write(b"Cleaning up\n")
        world.look(3)
        assert world.state == BeamState.WAITING, "the old engine may live on"
        world.write(upto("v2_b18", b"(2 of 18"))
        world.look()
        view = world.view()
        assert (view.state, view.run_number, view.batch_current, view.reason) == ("running", 2, 2, None)

    def test_does_not_go_by_what_is_read_when_nothing_was_written(self, world: World) -> None:
        """A log that is touched, or written on before the engine has been started, stays the run before's."""
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.look()
        world.row("failed")
        world.look(3)
        world.row("pending", 0.0)
        world.look(3)
        world.write(FINISHED)
        world.look(3)
        world.row("simulation_running", 40.0)
        world.look(3)
        os.utime(world.log(), (world.at, world.at))
        world.look(3)
        assert (world.state, world.view().batch_current) == (BeamState.WAITING, 0)

    def test_of_which_the_row_is_reset_at_once(self, world: World) -> None:
        world.row()
        world.write(captured("v2_assert_real"))
        world.look()
        world.row("failed")
        world.look()
        world.row("pending", 0.0)
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 2)

    def test_that_was_reset_and_launched_between_two_looks(self, world: World) -> None:
        """Its host is down, and the row was left as running by a communicator that was restarted."""
        world.row()
        world.look()
        world.write(upto("v2_b18", b"(9 of 18") + b"Segmentation fault\n")
        world.look()
        world.row("simulation_running", 50.0)
        world.look(20)
        assert world.state == BeamState.FAILED
        world.row("simulation_running", 0.0)
        world.look()
        assert (world.state, world.view().run_number, world.view().reason) == ("waiting", 2, None)
        assert world.runs == {("failed", "segmentation_fault"): 1}
        world.write(upto("v2_b18", b"(2 of 18"), anew=True)
        world.look()
        assert (world.state, world.view().run_number, world.view().batch_current) == ("running", 2, 2)

    @pytest.mark.parametrize("same", ["time stamp", "progress", "clock"])
    def test_is_not_seen_in_a_row_that_was_written_again(self, world: World, same: str) -> None:
        """A database that was made anew says 0 with the row's old time stamp; a row is touched; the clock is set."""
        world.row("simulation_running", 50.0)
        world.look()
        world.write(upto("v2_b18", b"(9 of 18") + b"Segmentation fault\n")
        world.look()
        world.look(20)
        [(key, row)] = world.rows.items()
        if same == "progress":
            world.row("simulation_running", 50.0)
        elif same == "time stamp":
            world.rows[key] = replace(row, progress=0.0)
        else:
            world.rows[key] = replace(row, progress=0.0, updated_at=world.at + 3600)
        world.look()
        assert (world.state, world.view().run_number) == ("failed", 1)


class TestRotation:
    @pytest.mark.parametrize("goes_on", [b"Particle generation complete!\n" + FINISHED, FINISHED])
    @pytest.mark.parametrize("batch", [5, 18])
    def test_in_the_middle_of_a_batch_that_takes_minutes_continues_the_run(
        self, world: World, batch: int, goes_on: bytes
    ) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch))
        world.look()
        world.look(30)
        world.write(b"", anew=True)
        world.look()
        world.look(100)
        world.write(goes_on)
        world.look()
        view = world.view()
        assert (view.run_number, view.batches_total, view.batch_current) == (1, 18, batch)
        assert (view.state, view.batches_completed) == ("running", batch)

    def test_a_log_that_goes_on_without_a_head_continues_the_run(self, world: World) -> None:
        mark = b"Generating particles for (9 of 18"
        world.row()
        world.look()
        world.write(upto("v2_b18", mark))
        world.look()
        os.replace(world.log(), world.folder / "rotated")
        world.write(after("v2_b18", mark))
        world.look()
        view = world.view()
        assert (view.run_number, view.state, view.batches_completed) == (1, BeamState.SUCCEEDED, 18)

    def test_a_log_with_a_head_is_a_new_run(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", b"Generating particles for (9 of 18"))
        world.look()
        world.write(upto("v2_b2", b"Generating particles for (1 of 2"), anew=True)
        world.look()
        view = world.view()
        assert (view.run_number, view.batch_current, view.batches_total) == (2, 1, 2)
        assert view.progress_ratio == 0.5


class TestStaleLog:
    def test_a_finished_log_under_a_newer_active_row_is_the_run_before(self, world: World) -> None:
        world.write(captured("v2_b2"))
        world.at += 100
        world.row("simulation_running", 40.0)
        world.look()
        assert world.state == BeamState.WAITING
        assert world.view().estimated_ratio == 0.0
        world.write(upto("v2_b18", FIRST_BATCH), anew=True)
        world.look()
        assert (world.state, world.view().batches_total) == (BeamState.RUNNING, 18)

    @pytest.mark.parametrize("status", ["downloading", "postprocessing", "completed"])
    def test_after_the_run_it_is_this_ones(self, world: World, status: str) -> None:
        world.write(captured("v2_b2"))
        world.at += 50
        world.row(status)
        world.look()
        assert world.state == BeamState.SUCCEEDED

    def test_an_unfinished_log_is_never_stale(self, world: World) -> None:
        world.write(upto("v2_b18", FIRST_BATCH))
        world.at += 20
        world.row()
        world.look()
        assert world.state == BeamState.RUNNING


class TestRowAndLog:
    def test_the_logs_verdict_outranks_the_rows(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_output_unwritable"))
        world.look()
        world.row("completed", 100.0)
        world.look()
        assert (world.state, world.view().reason) == (BeamState.FAILED, "output_error")
        assert not world.view().status_mismatch
        world.look(61)
        assert world.view().status_mismatch

    def test_siblings_failed_in_bulk_run_on(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.row("failed")
        for batch in range(2, 12):
            world.at += 9
            world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch), anew=True)
            world.look(1)
        assert world.state == BeamState.RUNNING
        assert world.view().status_mismatch

    def test_a_sibling_with_long_batches_that_lives_on_is_not_counted_as_failed(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", b"with 18 batches"))
        world.look()
        for batch in (1, 2, 3):
            world.look(20)
            world.write(begun(batch))
            world.look()
            world.look(20)
            world.write(FINISHED)
            world.look()
        world.row("failed")
        for _ in range(10):
            world.look(3)
        assert world.runs == {}, "its batches take 20 s and 40"
        world.write(begun(4))
        world.look()
        assert world.state == BeamState.RUNNING
        world.write(FINISHED + b"".join(begun(batch) + FINISHED for batch in range(5, 19)))
        world.write(b"Time taken by MC engine: 1 milli-seconds\n")
        world.look()
        world.look(5)
        assert (world.state, world.runs) == ("succeeded", {("succeeded", ""): 1})

    def test_one_that_was_killed_without_a_word_is_counted_when_its_next_batch_is_late(self, world: World) -> None:
        world.row()
        world.look()
        for batch in (1, 2):
            world.write(upto("v2_b18", FIRST_BATCH) if batch == 1 else begun(2))
            world.look()
            world.look(20)
            world.write(FINISHED)
            world.look()
        world.row("failed")
        world.look(3)
        world.look(3)
        assert world.state == BeamState.FAILED
        for _ in range(15):
            world.look(3)
        assert world.runs == {("failed", "status"): 1}

    @pytest.mark.parametrize("status", ["failed", "completed"])
    def test_a_run_that_its_row_alone_has_ended_stays_so_when_its_host_goes_down(
        self, tmp_path: Path, status: str
    ) -> None:
        source = FragileSource("local")
        world = World(tmp_path, quick(), source=source)
        world.row()
        world.look()
        world.write(upto("v2_b18", b"Generating particles for (3 of 18"))
        world.look()
        world.row(status)
        world.look(3)
        world.look(15)
        before = world.view()
        source.down = True
        world.look(3)
        world.look(30)
        assert before.state == {"failed": "failed", "completed": "succeeded"}[status]
        assert (world.state, world.view().reason) == (before.state, before.reason)

    def test_a_sibling_that_lives_on_is_unreachable_when_its_host_goes_down(self, tmp_path: Path) -> None:
        source = FragileSource("local")
        world = World(tmp_path, quick(), source=source)
        world.row()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.row("failed")
        for batch in range(2, 6):
            world.at += 9
            world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch), anew=True)
            world.look(1)
        source.down = True
        world.look(1)
        world.look(3600)
        assert world.state == BeamState.UNREACHABLE

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_what_its_row_alone_says_is_in_the_log_and_among_the_runs_that_ended(
        self, world: World, status: str
    ) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.row(status)
        with capture_logs() as lines:
            for _ in range(40):
                world.look(3)
            for event in world.store.pop_events():
                log_event(event)
        [line] = [line for line in lines if line["event"] == "run failed"]
        assert (line["reason"], line["status"]) == ("status", status)
        assert [(run.reason, run.status) for run in world.snapshot().ended] == [("status", status)]
        world.restart()
        world.look()
        assert [(run.reason, run.status) for run in world.snapshot().ended] == [("status", status)]

    def test_a_row_that_is_over_decides_where_the_log_says_nothing(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.row("completed", 100.0)
        for _ in range(3):
            world.look(1)
        assert world.state == BeamState.SUCCEEDED
        assert not world.view().log_succeeded

    def test_a_success_is_no_mismatch_while_it_is_being_postprocessed(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.row("postprocessing")
        world.look()
        world.look(90)
        assert not world.view().status_mismatch
        world.row("simulation_running")
        world.look()
        assert world.view().status_mismatch


class TestSilence:
    def test_is_a_stall_after_three_batches_time_and_ends_with_progress(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        for batch in (2, 3):
            world.at += 9.5
            world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch), anew=True)
            world.look()
        assert world.view().stall_threshold_seconds == pytest.approx(30, abs=2)
        world.look(25)
        assert world.state == BeamState.RUNNING
        world.look(10)
        assert world.state == BeamState.STALLED
        assert world.view().state_since == pytest.approx(
            (world.view().last_progress_at or 0) + world.view().stall_threshold_seconds
        )
        world.write(upto("v2_b18", b"Generating particles for (4 of 18"), anew=True)
        world.look()
        assert world.state == BeamState.RUNNING

    def test_of_a_first_batch_is_patient(self, world: World) -> None:
        world.row()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.look(55)
        assert world.state == BeamState.RUNNING
        world.look(10)
        assert world.state == BeamState.STALLED

    def test_expires_and_is_picked_up_again(self, world: World) -> None:
        world.row()
        world.write(upto("v2_b18", FIRST_BATCH))
        world.look()
        world.look(301)
        assert world.state == BeamState.EXPIRED
        world.write(after("v2_b18", FIRST_BATCH))
        world.look(31)
        assert world.state == BeamState.SUCCEEDED

    def test_of_a_buffered_log_means_little(self, world: World) -> None:
        world.row()
        world.look()
        world.write(upto("mgh_b18", b"zx,zy,zz"))
        world.look()
        assert world.view().log_buffered
        world.look(400)
        assert world.state == BeamState.STARTING
        world.look(200)
        assert world.state == BeamState.STALLED

    def test_of_a_buffered_log_means_little_though_some_of_its_blocks_end_with_a_line(self, world: World) -> None:
        batches = b"".join(
            b"Generating particles...\ncum_vertiex %d 2850\nTransporting particles...\nRun transportation 1.0 s\n"
            % (2850 * batch)
            for batch in range(1, 9)
        )
        world.row()
        world.look()
        data = captured("mgh_b18")
        world.write(data[: data.index(b"Generating particles...")])
        world.look(10)
        size = len(batches) // 8
        for block in range(3):
            world.write(batches[block * size : (block + 1) * size])
            world.look(10)
        assert not world.view().log_buffered, "as if by stdbuf"
        world.write(batches[3 * size : 5 * size - 12])
        world.look(10)
        assert world.view().log_buffered
        world.look(400)
        assert world.state == BeamState.RUNNING


def test_beams_of_a_source_that_is_down_are_unreachable_with_their_last_values(tmp_path: Path) -> None:
    source = FragileSource("local")
    world = World(tmp_path, quick(), source=source)
    ended = BeamKey("70010001", "70010001_beam_2")
    world.row()
    world.row(key=ended)
    world.look()
    world.write(upto("v2_b18", b"Generating particles for (5 of 18"))
    world.write(captured("v2_b2"), ended)
    world.look()
    before = world.view()
    source.down = True
    world.look(1)
    [view] = world.snapshot().sources
    assert (view.up, view.errors) == (False, {"connection_lost": 1})
    world.look(70)
    after_ = world.view()
    assert after_.state == BeamState.UNREACHABLE
    assert (after_.batch_current, after_.progress_ratio) == (before.batch_current, before.progress_ratio)
    assert world.view(ended).state is BeamState.SUCCEEDED
    assert view.last_poll_at is not None
    assert world.at - view.last_poll_at > 60, "which keeps its silence from being a stall"
    source.down = False
    world.write(after("v2_b18", b"Generating particles for (5 of 18"))
    world.look(1)
    assert world.state == BeamState.SUCCEEDED


@pytest.mark.parametrize("silent_seconds", [5.0, 70.0])
def test_what_is_left_of_a_beam_whose_host_is_lost_is_kept_as_it_was(tmp_path: Path, silent_seconds: float) -> None:
    source = FragileSource("local")
    world = World(tmp_path, quick(), source=source)
    world.row()
    world.look()
    world.write(upto("v2_b18", FIRST_BATCH))
    world.look()
    for batch in (2, 3):
        world.at += 9.5
        world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch), anew=True)
        world.look()
    world.look(silent_seconds)
    before = world.view()
    source.down = True
    world.look(0.5)
    world.look(3600)
    lost = world.view()
    assert lost.state == BeamState.UNREACHABLE
    if silent_seconds < before.stall_threshold_seconds:
        assert lost.remaining_seconds == pytest.approx(before.remaining_seconds, abs=1)
    else:
        assert (before.state, before.remaining_seconds) == (BeamState.STALLED, None)
        assert lost.remaining_seconds is None, "nobody could say it before, either"


class TestRetention:
    def test_success_goes_after_its_time_and_does_not_come_back(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.row("completed", 100.0)
        for _ in range(12):
            world.look(10)
        assert world.snapshot().beams == ()
        world.look(10)
        assert world.snapshot().beams == ()
        assert world.runs == {("succeeded", ""): 1}

    def test_failure_stays_longer_and_while_its_row_is_active(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_sigkill"))
        world.look()
        world.look(2000)
        assert world.state == BeamState.FAILED
        world.row("failed")
        world.look()
        assert world.snapshot().beams == ()

    def test_a_beam_whose_row_is_gone_goes(self, world: World) -> None:
        world.row()
        world.look()
        world.drop_row()
        world.look()
        world.look(30)
        assert world.state == BeamState.WAITING
        world.look(61)
        assert world.snapshot().beams == ()

    def test_a_beam_that_comes_back_keeps_counting_its_runs(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.row("completed")
        for _ in range(12):
            world.look(10)
        world.row("pending", 0.0)
        world.look(500)
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 2)
        world.row("simulation_running", 0.0)
        world.look()
        world.write(upto("v2_b18", FIRST_BATCH), anew=True)
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.RUNNING, 2)

    def test_one_that_comes_back_over_is_in_another_run_where_its_log_is_another(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.row("completed")
        for _ in range(12):
            world.look(10)
        assert world.snapshot().beams == ()
        world.write(captured("v2_b2"), anew=True)
        world.row("completed")
        world.look()
        assert (world.state, world.view().run_number) == (BeamState.SUCCEEDED, 2)


def test_no_more_beams_are_exported_than_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, StoreRules(max_beams=3))
    for number in range(5):
        world.row(key=BeamKey("c", f"c_beam_{number}"))
    world.look()
    assert len(world.snapshot().beams) == 3
    assert world.snapshot().beams_dropped == 2
    assert [event.number for event in world.store.pop_events() if event.kind == "beams_dropped"] == [2]


def test_a_log_that_is_not_understood_is_said_so_and_is_no_stall(world: World) -> None:
    world.row()
    world.look()
    for _ in range(20):
        world.at += 5
        world.write(b"New engine says: step done\n")
        world.look()
    assert world.view().log_unmatched
    assert world.state == BeamState.STARTING


def test_a_first_batch_is_estimated_from_the_run_before_of_the_same_size(world: World) -> None:
    world.row()
    world.look()
    for batch in range(1, 19):
        world.at += 10
        world.write(upto("v2_b18", b"Generating particles for (%d of 18" % batch), anew=True)
        world.look(0)
    world.write(captured("v2_b18"), anew=True)
    for _ in range(5):
        world.look(1)
    other = BeamKey("70010001", "70010001_beam_2")
    world.row(key=other)
    world.look()
    world.write(upto("v2_b18", FIRST_BATCH), other)
    world.look()
    world.look(5)
    view = world.view(other)
    assert view.batches_completed == 0
    assert view.estimated_ratio == pytest.approx(0.5 / 18, rel=0.2)
    assert view.remaining_seconds == pytest.approx(175, rel=0.1)


class TestProgressMonitor:
    """Driven as the plan's section 4, phase 6 does."""

    def test_reports_progress_from_a_thread_and_survives_a_callback_that_raises(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        seen: list[tuple[str, float]] = []
        errors: list[tuple[str, Any]] = []

        class Logger:
            def info(self, message: str, context: Any) -> None: ...

            def warning(self, message: str, context: Any) -> None: ...

            def error(self, message: str, context: Any) -> None:
                errors.append((message, context))

        def update_progress(beam_id: str, progress: float) -> None:
            seen.append((beam_id, progress))
            if len(seen) == 2:
                raise ValueError("the database said no")

        monitor = ProgressMonitor("beam_1", Logger())
        thread = threading.Thread(
            target=monitor.monitor_local, args=(log, update_progress), kwargs={"timeout": 3600}, daemon=True
        )
        thread.start()
        try:
            log.write_bytes((LOGS / "v2_b18.log").read_bytes())
            wait_for(lambda: len(seen) == 18, "18 reports")
        finally:
            monitor.stop()
        thread.join(10)
        assert not thread.is_alive()
        assert [round(progress, 2) for _, progress in seen][4] == 27.78
        assert seen[-1] == ("beam_1", 100.0)
        assert monitor.callback_errors == 1
        assert "the database said no" in errors[0][1]["error"]

    def test_stopped_before_it_began_it_ends_at_once(self, tmp_path: Path) -> None:
        monitor = ProgressMonitor("beam_1")
        monitor.stop()
        monitor.monitor_local(tmp_path / "none.log", lambda *_: None)

    def test_a_new_run_in_the_same_log_counts_from_its_beginning(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        seen: list[float] = []
        monitor = ProgressMonitor("beam_1")
        thread = threading.Thread(
            target=monitor.monitor_local, args=(str(log), lambda _, progress: seen.append(progress))
        )
        thread.start()
        try:
            wait_for(lambda: len(seen) == 2, "the first run")
            log.write_bytes((LOGS / "v2_b3partial.log").read_bytes())
            wait_for(lambda: len(seen) == 5, "the second run")
        finally:
            monitor.stop()
            thread.join(10)
        assert [round(progress) for progress in seen] == [50, 100, 33, 67, 100]


def test_the_last_lines_of_a_log_are_kept_until_another_takes_its_place(world: World) -> None:
    world.row()
    log = captured("v2_b18")
    world.write(log)
    world.look()
    assert world.view().recent == log[-LAST_BYTES:]
    world.write(b"one more")
    world.look()
    assert last_lines(world.view().recent)[-1] == "one more"
    world.write(b"anew\n", anew=True)
    world.look()
    assert world.view().recent == b"anew\n"


def test_the_last_lines_of_the_run_before_are_not_shown_for_the_next(world: World) -> None:
    world.row()
    world.write(captured("v2_b2"))
    world.look()
    assert world.view().recent
    world.at += 60
    world.row("pending")
    world.look()
    assert (world.state, world.view().recent) == (BeamState.WAITING, b"")


def test_a_beam_that_stands_still_has_no_time_left_until_it_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, quick())
    world.row()
    world.write(upto("v2_b18", b"Generating particles for (1 of 18"))
    world.look()
    for number in (2, 3, 4):
        world.write(f"Particle transportation complete!\nGenerating particles for ({number} of 18 batches)\n".encode())
        world.look(5)
    assert world.view().remaining_seconds is not None
    while world.state != "stalled":
        world.look(5)
    assert world.view().remaining_seconds is None
    world.write(b"Particle transportation complete!\nGenerating particles for (5 of 18 batches)\n")
    world.look()
    assert world.state == "running"
    assert world.view().remaining_seconds is not None


class CountingSource(LocalLogSource):
    """A source that has done something."""

    reconnects = 2
    round_trips = 30


def test_a_source_that_a_reload_makes_anew_goes_on_counting(tmp_path: Path) -> None:
    world, after_reload = (World(tmp_path, quick(), source=CountingSource("hpc1")) for _ in range(2))
    again = World(tmp_path, quick(), source=CountingSource("hpc1"))
    after_reload.poller.adopt(world.poller)
    again.poller.adopt(after_reload.poller)
    again.look()
    [source] = again.snapshot().sources
    assert (source.reconnects, source.round_trips) == (6, 90)


@pytest.mark.parametrize("log_stands", [True, False])
def test_a_retry_of_a_beam_that_had_succeeded_is_estimated_from_nothing(world: World, log_stands: bool) -> None:
    world.row()
    world.look()
    world.write(captured("v2_b18"))
    world.look()
    world.row("completed", 100.0)
    world.look(10)
    assert (world.state, world.view().estimated_ratio) == ("succeeded", 1.0)
    if not log_stands:
        world.log().unlink()
    world.row("pending", 0.0)
    world.look(10)
    assert (world.state, world.view().estimated_ratio) == ("waiting", 0.0)
    world.write(upto("v2_b18", b"Creating world geometry complete!"), anew=True)
    world.look()
    assert (world.state, world.view().estimated_ratio) == ("starting", 0.0)


class EndedUnderALook(LocalLogSource):
    """A source whose connection is ended while it waits for an answer."""

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        found = super().stat(paths, known)
        if paths or known:
            self.ends()
        return found

    def ends(self) -> None:
        """Nothing, until a test says what."""


def test_a_look_that_a_reload_ends_is_no_trouble_of_the_host(tmp_path: Path) -> None:
    source = EndedUnderALook("hpc1")
    world = World(tmp_path, quick(), source=source)
    world.row()
    world.write(upto("v2_b18", FIRST_BATCH))
    world.look()
    assert world.state == "running"

    def close() -> None:
        world.poller.close()
        raise SourceUnavailable("connection_lost", "the socket is closed")

    source.ends = close  # type: ignore[method-assign]
    world.look()
    [view] = world.snapshot().sources
    assert (view.up, view.errors) == (True, {})
    assert world.state == "running"


def test_a_row_that_is_still_that_of_the_run_before_leaves_no_estimate_behind(world: World) -> None:
    succeeded(world)
    row_before = world.rows[BEAM]
    world.row()
    row, world.rows[BEAM] = world.rows[BEAM], row_before
    world.write(upto("v2_b18", b"Creating world geometry complete!"), anew=True)
    world.look()
    world.snapshot()
    world.rows[BEAM] = row
    world.look()
    assert (world.state, world.view().estimated_ratio) == ("starting", 0.0)
