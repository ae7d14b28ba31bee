"""Which run a log or a row belongs to: scenarios with unusual paths and unusual timing."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.sources.local import LocalLogSource
from exporter.sources.source import NO_KNOWN_STATS, LogProblem, LogStat
from tests.support.world import BEAM, FragileSource, World, captured, quick, upto

PREEMPTED = b"slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***\n"
OUT_OF_MEMORY = b"GPUassert: out of memory f 3\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


def shown(world: World) -> tuple[str, int, int, str | None]:
    """State, run, batch and reason."""
    view = world.view()
    return view.state.value, view.run_number, view.batch_current, view.reason


class TestAppended:
    """A job that is put back into the queue, a launcher that appends with ``>>``, or a loop in a shell script."""

    @pytest.mark.parametrize("status", ["simulation_running", None])
    def test_a_retry_appended_after_an_interrupted_run_is_run_2(self, world: World, status: str | None) -> None:
        world.row(status)
        world.look()
        world.write(upto("v2_b18", b"(2 of 18") + PREEMPTED)
        world.look()
        world.look(30)
        world.write(upto("v2_b18", b"(1 of 18"))
        world.look()
        assert shown(world) == ("running", 2, 1, None)
        assert world.view().batches_total == 18
        world.write(captured("v2_b18")[len(upto("v2_b18", b"(1 of 18")) :])
        world.look()
        world.look(15)
        assert shown(world) == ("succeeded", 2, 18, None)
        assert world.runs == {("failed", "preempted"): 1, ("succeeded", ""): 1}

    def test_a_retry_appended_after_a_successful_run_is_run_2(self, world: World) -> None:
        world.row(None)
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.look(30)
        world.write(upto("v2_b2", b"(1 of 2"))
        world.look()
        assert shown(world) == ("running", 2, 1, None)
        world.write(OUT_OF_MEMORY)
        world.look()
        world.look(15)
        assert shown(world) == ("failed", 2, 1, "out_of_memory")
        assert world.runs == {("succeeded", ""): 1, ("failed", "out_of_memory"): 1}

    def test_two_runs_within_one_read_are_both_counted(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2") + upto("v2_b18", b"(3 of 18"))
        world.look()
        assert shown(world) == ("running", 2, 3, None)
        assert world.runs == {("succeeded", ""): 1}

    @pytest.mark.parametrize(
        ("line", "state"), [(b"loading modules\n", "succeeded"), (b"Cannot open file!\n", "failed")]
    )
    def test_a_head_after_other_lines_belongs_to_the_first_run(self, world: World, line: bytes, state: str) -> None:
        """A launcher, or the engine on standard error, writes first; standard output waits for a whole block."""
        world.row()
        world.look()
        world.write(line)
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        assert (world.state, world.view().run_number, world.view().batch_current) == (state, 1, 2)

    @pytest.mark.parametrize("word", [OUT_OF_MEMORY, b"Cannot open file!\n"])
    def test_a_head_after_the_engine_failed_by_itself_begins_no_new_run(self, world: World, word: bytes) -> None:
        """A script starts another process: the missing part of the dose must stay visible."""
        world.row()
        world.look()
        world.write(upto("v2_b18", b"(2 of 18") + word)
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.look(15)
        assert (world.state, world.view().run_number) == ("failed", 1)

    def test_heads_of_several_processes_that_start_together_are_one_run(self, world: World) -> None:
        world.row()
        world.look()
        head = upto("v2_b18", b"Creating world geometry complete!")
        world.write(head + head + captured("v2_b18")[len(head) :])
        world.look()
        assert shown(world) == ("succeeded", 1, 18, None)

    def test_runs_that_ended_before_the_first_poll_are_shown_and_not_counted(self, world: World) -> None:
        world.write(captured("v2_b2") + upto("v2_b18", b"(3 of 18"))
        world.row()
        world.look()
        assert shown(world) == ("running", 1, 3, None)
        assert world.runs == {}


class TestPlaces:
    @pytest.mark.parametrize("word", [b"", OUT_OF_MEMORY])
    def test_a_job_with_another_number_has_its_own_log_however_soon(self, tmp_path: Path, word: bytes) -> None:
        world = World(tmp_path, quick(), templates=("{beam_id}_{hpc_job_id}.log",))
        first, second = (tmp_path / f"{BEAM.beam_id}_{job}.log" for job in (1, 2))

        def row(status: str, job: str) -> None:
            world.row(status)
            world.rows[BEAM] = replace(world.rows[BEAM], hpc_job_id=job)

        def write(path: Path, data: bytes) -> None:
            path.write_bytes(data)
            os.utime(path, (world.at, world.at))

        row("hpc_running", "1")
        world.look()
        write(first, upto("v2_b18", b"(2 of 18") + b"Segmentation fault\n")
        world.look()
        row("failed", "1")
        world.look(1)
        row("pending", "1")
        world.look(1)
        row("hpc_running", "2")
        world.look(1)
        write(second, upto("v2_b18", b"(1 of 18") + word)
        world.look(1)
        expected = ("failed", "out_of_memory") if word else ("running", None)
        assert (world.state, world.view().reason) == expected
        assert (world.view().run_number, world.view().log_path) == (2, str(second))

    @pytest.mark.parametrize("status", ["postprocessing", "completed"])
    def test_a_copy_made_after_the_run_is_no_new_run(self, tmp_path: Path, status: str) -> None:
        world = World(tmp_path, quick(), templates=("{beam_id}.log", "fetched/{beam_id}.log"))
        (tmp_path / "fetched").mkdir()
        world.row()
        world.look()
        world.write(upto("v2_b2", b"(1 of 2"))
        world.look()
        world.write(captured("v2_b2")[len(upto("v2_b2", b"(1 of 2")) :])
        world.look()
        world.look(20)
        world.row(status)
        world.look(20)
        copy = tmp_path / "fetched" / world.log().name
        copy.write_bytes(world.log().read_bytes())
        os.utime(copy, (world.at, world.at))
        world.look()
        world.row("completed", 100.0)
        world.look(20)
        world.look(20)
        assert shown(world) == ("succeeded", 1, 2, None)
        assert world.view().log_path == str(world.log())
        assert world.runs == {("succeeded", ""): 1}

    def test_a_second_log_that_grows_is_followed_although_the_row_was_not_reset(self, tmp_path: Path) -> None:
        world = World(tmp_path, quick(), templates=("{beam_id}.log", "other/{beam_id}.log"))
        (tmp_path / "other").mkdir()
        world.row()
        world.look()
        world.write(upto("v2_b18", b"(2 of 18"))
        world.look()
        world.write(b"Segmentation fault\n")
        world.look()
        world.row("failed")
        world.look(20)
        other = tmp_path / "other" / world.log().name
        for batch in (1, 2, 3):
            other.write_bytes(upto("v2_b18", b"(%d of 18" % batch))
            os.utime(other, (world.at, world.at))
            world.look(8)
        assert shown(world) == ("running", 2, 3, None)


class OldSizes(LocalLogSource):
    """A network file system that tells an old size now and then."""

    too_few = 0

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        found = super().stat(paths, NO_KNOWN_STATS if self.too_few else known)
        return {
            path: replace(each, size_bytes=each.size_bytes - self.too_few) if isinstance(each, LogStat) else each
            for path, each in found.items()
        }


def test_a_file_size_reported_too_small_once_is_no_new_run(tmp_path: Path) -> None:
    source = OldSizes("local")
    world = World(tmp_path, quick(), source=source)
    world.row()
    world.look()
    for batch in (1, 2, 3):
        mark = b"(%d of 18" % batch
        world.write(upto("v2_b18", mark)[world.log().stat().st_size if world.log().exists() else 0 :])
        world.look(10)
    source.too_few = 20
    world.look()
    source.too_few = 0
    world.look()
    view = world.view()
    assert (view.run_number, view.batch_current, view.batches_completed) == (1, 3, 2)
    assert view.remaining_seconds is not None
    world.write(captured("v2_b18")[world.log().stat().st_size :])
    world.look()
    assert shown(world) == ("succeeded", 1, 18, None)


class TestRows:
    @pytest.mark.parametrize("restarted", [False, True])
    @pytest.mark.parametrize(("log", "state"), [(b"", "succeeded"), (b"Cannot open file!\n", "failed")])
    def test_a_log_attributed_to_the_previous_run_is_reclaimed_when_the_row_says_completed(
        self, world: World, restarted: bool, log: bytes, state: str
    ) -> None:
        """Restarted without a state file, after a late write of the mirror and before the communicator has noticed."""
        world.write(log + captured("v2_b2"))
        os.utime(world.log(), (world.at - 10, world.at - 10))
        world.row("simulation_running", 100.0)
        world.look()
        world.row("postprocessing", 100.0)
        world.look()
        assert world.state == "waiting"
        if restarted:
            world.restart()
        world.row("completed", 100.0)
        for _ in range(20):
            world.look(1)
        assert (world.state, world.view().batches_completed) == (state, 2)
        assert world.runs == {}, "nobody saw it end"

    def test_a_log_is_not_reclaimed_before_its_source_was_polled_again(self, tmp_path: Path) -> None:
        """A retry on a host that is down: it may have a new log by now."""
        source = FragileSource("local")
        world = World(tmp_path, quick(), source=source)
        world.write(b"Cannot open file!\n" + captured("v2_b2"))
        os.utime(world.log(), (world.at - 10, world.at - 10))
        world.row("pending", 0.0)
        world.look()
        source.down = True
        world.look(5)
        world.row("completed", 100.0)
        for _ in range(20):
            world.look(1)
        assert (world.state, world.runs) == ("unreachable", {})
        world.write(captured("v2_b18"), anew=True)
        source.down = False
        for _ in range(20):
            world.look(1)
        assert (world.state, world.view().batches_completed) == ("succeeded", 18)

    def test_a_log_is_not_reclaimed_when_the_row_says_failed(self, world: World) -> None:
        """The run may have failed before it wrote a byte."""
        world.write(captured("v2_b2"))
        world.at += 100
        world.row("simulation_running", 40.0)
        world.look()
        world.row("failed", 40.0)
        for _ in range(20):
            world.look(1)
        assert (world.state, world.view().reason) == ("failed", "status")

    def test_a_reset_within_two_seconds_of_the_last_line_begins_a_new_run(self, world: World) -> None:
        world.row(progress=40.0)
        world.look()
        world.write(upto("v2_b18", b"(1 of 18"))
        world.look(5)
        world.write(OUT_OF_MEMORY)
        world.look(0.5)
        world.at += 0.5
        world.row("pending", 0.0)
        world.look(1)
        assert shown(world) == ("waiting", 2, 0, None)
        assert not world.view().status_mismatch
        assert world.runs == {("failed", "out_of_memory"): 1}

    def test_progress_0_written_by_the_mirror_is_no_reset(self, world: World) -> None:
        """Rows of March 2026 say pending while engines run, with old values; a lock delays our write."""
        world.row("pending", 70.0)
        world.look()
        world.write(upto("v2_b18", b"Creating world geometry complete!"))
        world.look()
        world.look(5)
        world.row("pending", 0.0)
        world.look()
        assert (world.state, world.view().run_number) == ("starting", 1)
        world.write(upto("v2_b18", b"(2 of 18")[world.log().stat().st_size :])
        world.look()
        assert shown(world) == ("running", 1, 2, None)


class TestNoLog:
    def test_a_completed_row_without_a_log_decides_when_every_source_was_polled(self, tmp_path: Path) -> None:
        source = FragileSource("local")
        source.down = True
        world = World(tmp_path, quick(), source=source)
        world.write(captured("v2_b2").replace(b"Time taken", b"Cannot open file!\nTime taken"))
        world.row("completed", 100.0)
        for _ in range(10):
            world.look(1)
        assert (world.state, world.view().source) == ("unreachable", "unknown")
        source.down = False
        world.look(1)
        assert (world.state, world.view().reason) == ("failed", "output_error")

    def test_a_completed_row_decides_without_any_source(self, world: World) -> None:
        world.row("completed", 100.0)
        for _ in range(10):
            world.look(1)
        assert (world.state, world.view().source) == ("succeeded", "unknown")

    def test_a_completed_row_does_not_decide_before_every_source_was_polled(self, world: World) -> None:
        world.store.add_source("far")
        world.row("completed", 100.0)
        for _ in range(10):
            world.look(1)
        assert world.state == "waiting"
        world.store.remove_source("far")
        world.look(1)
        assert world.state == "succeeded"

    def test_a_beam_shown_as_succeeded_stays_so_when_sources_are_added(self, world: World) -> None:
        world.row("completed", 100.0)
        for _ in range(10):
            world.look(1)
        world.store.add_source("far")
        world.look(1)
        assert world.state == "succeeded"

    def test_a_completed_beam_of_an_unreachable_source_is_removed_in_the_end(self, tmp_path: Path) -> None:
        source = FragileSource("local")
        source.down = True
        world = World(tmp_path, quick(), source=source)
        world.row("completed", 100.0)
        world.look(1)
        assert world.state == "unreachable"
        world.look(world.store._data.rules.retention_seconds + 10)
        assert world.snapshot().beams == ()
        world.look(1)
        assert world.snapshot().beams == ()

    def test_a_failed_row_decides_at_once(self, tmp_path: Path) -> None:
        source = FragileSource("local")
        source.down = True
        world = World(tmp_path, quick(), source=source)
        world.row("failed")
        for _ in range(10):
            world.look(1)
        assert (world.state, world.view().reason) == ("failed", "status")
