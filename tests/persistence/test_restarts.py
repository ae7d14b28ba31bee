"""A process ends, another goes on with its state: what the second one shows is what the first one would have shown."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.beams.saved import RestoredState
from exporter.beams.snapshot import BeamKey, BeamState, BeamView, SourceView
from exporter.demo.simulator import Simulation, simulate
from exporter.persistence.errors import StateUnusable
from exporter.persistence.writer import decode
from exporter.sources.tail_lines import last_lines
from tests.support.world import BEAM, FragileSource, World, after, captured, quick, upto

OTHER = BeamKey("70010001", "70010001_beam_2")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


def running(world: World, batches: int = 3) -> None:
    """A beam is followed for so many batches of ten seconds, plus the beginning of the next."""
    world.row()
    world.look()
    begun = upto("v2_b18", b"Generating particles for (1 of 18")
    world.write(begun)
    world.look()
    for number in range(2, batches + 2):
        until = upto("v2_b18", b"Generating particles for (%d of 18" % number)
        world.at += 10
        world.write(until[len(begun) :])
        begun = until
        world.look()


def rest_after(number: int) -> bytes:
    return after("v2_b18", b"Generating particles for (%d of 18" % number)


class TestWhatIsKnownAgain:
    def test_the_remaining_time_and_the_stall_threshold_at_the_first_look(self, world: World) -> None:
        running(world)
        before = world.view()
        assert before.remaining_seconds is not None
        world.at += 20
        world.restart()
        world.look()
        now = world.view()
        assert now.batch_duration_seconds == before.batch_duration_seconds
        assert now.stall_threshold_seconds == before.stall_threshold_seconds
        assert now.stall_threshold_seconds != quick().stall.first_batch_seconds
        assert now.remaining_seconds is not None
        assert now.remaining_seconds < before.remaining_seconds

    def test_it_is_shown_before_the_first_look_and_not_judged_by_the_time_away(self, world: World) -> None:
        running(world)
        before = world.view()
        world.restart()
        world.at += 100_000
        world.store.advance(world.at)
        assert (world.state, world.view().batches_completed) == (BeamState.RUNNING, before.batches_completed)
        assert world.store.pop_events() == []

    def test_an_end_that_was_read_just_before_the_state_was_written(self, world: World) -> None:
        running(world)
        world.write(rest_after(4))
        world.at += 1
        world.poller.poll()
        world.restart()
        assert (world.state, world.view().batches_completed) == (BeamState.SUCCEEDED, 18)
        assert [event.kind for event in world.store.pop_events()] == ["succeeded"], "which nobody had said yet"

    def test_a_source_that_is_down_makes_its_beams_unreachable_not_stalled(self, world: World) -> None:
        running(world)
        world.restart()
        world.at += 100_000
        view = world.store.snapshot(world.at)
        assert view.sources == ()
        world.store.update_source(_down(world), world.at)
        assert world.state == BeamState.UNREACHABLE

    def test_a_stall_stays_a_stall(self, world: World) -> None:
        running(world)
        world.look(45)
        before = world.view()
        assert before.state is BeamState.STALLED
        world.restart()
        world.look()
        assert (world.view().state, world.view().state_since) == (BeamState.STALLED, before.state_since)

    def test_what_was_read_of_one_log_is_not_shown_with_the_state_of_before(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look may take long: a host, or ten thousand logs."""
        running(world)
        world.restart()
        world.write(rest_after(4))
        shown: list[BeamView] = []
        monkeypatch.setattr(world.store, "update_source", lambda *_, **__: shown.append(world.view()))
        world.look()
        assert [(view.state, view.batches_completed) for view in shown] == [(BeamState.SUCCEEDED, 18)]

    def test_the_last_lines_of_the_log(self, world: World) -> None:
        running(world)
        lines = last_lines(world.view().recent)
        world.restart()
        world.look()
        assert last_lines(world.view().recent) == lines
        assert len(lines) > 10

    def test_only_what_is_new_is_read_but_for_what_is_compared(self, world: World) -> None:
        running(world)
        size = world.log().stat().st_size
        world.restart()
        world.write(rest_after(4))
        world.look()
        assert world.snapshot().sources[0].read_bytes == world.log().stat().st_size - size

    def test_an_unfinished_line(self, world: World) -> None:
        whole = captured("v2_b18")
        middle = whole.index(b"(5 of 18 batches)") + 3
        world.row()
        world.look()
        world.write(whole[:middle])
        world.look()
        world.restart()
        world.look()
        world.write(whole[middle : middle + 40])
        world.look()
        assert world.view().batch_current == 5

    def test_how_fast_runs_of_the_same_kind_were(self, world: World) -> None:
        running(world, 16)
        world.at += 10
        world.write(rest_after(17))
        for _ in range(8):
            world.look(1)
        world.restart()
        world.look()
        world.row(key=OTHER)
        world.look()
        world.write(upto("v2_b18", b"Generating particles for (1 of 18"), OTHER)
        world.look()
        assert world.view(OTHER).remaining_seconds is not None

    def test_runs_counted_and_ended_and_batches_timed(self, world: World) -> None:
        running(world, 16)
        world.write(rest_after(17))
        for _ in range(8):
            world.look(1)
        before = world.snapshot()
        assert world.runs == {("succeeded", ""): 1}
        world.restart()
        for _ in range(8):
            world.look(1)
        now = world.snapshot()
        assert (now.runs, now.batch_durations, now.ended) == (before.runs, before.batch_durations, before.ended)

    def test_that_a_row_was_retired(self, world: World) -> None:
        world.row()
        world.look()
        world.write(captured("v2_b2"))
        world.look()
        world.row("completed", 100.0)
        world.look()
        world.look(101)
        assert world.snapshot().beams == ()
        world.restart()
        for _ in range(8):
            world.look(1)
        assert world.snapshot().beams == ()
        assert world.runs == {("succeeded", ""): 1}

    def test_a_beam_without_a_log(self, world: World) -> None:
        world.row("pending")
        world.look()
        since = world.view().state_since
        world.restart()
        world.look()
        assert (world.view().state, world.view().state_since) == (BeamState.WAITING, since)


class TestWhatHappenedMeanwhile:
    def test_a_run_that_ended_is_counted_once(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.write(rest_after(4))
        world.at += 3000
        world.restart(lines)
        for _ in range(8):
            world.look(1)
        assert world.runs == {("succeeded", ""): 1}
        world.restart()
        for _ in range(8):
            world.look(1)
        assert world.runs == {("succeeded", ""): 1}
        assert len(world.snapshot().ended) == 1

    def test_a_run_that_began_and_ended_is_counted_once(self, world: World) -> None:
        world.row("pending")
        world.look()
        lines = world.saved()
        world.at += 60
        world.row()
        world.write(captured("v2_b2"))
        world.row("completed", 100.0)
        world.restart(lines)
        for _ in range(8):
            world.look(1)
        assert world.runs == {("succeeded", ""): 1}

    def test_a_run_that_ended_before_its_row_was_reset_is_counted_all_the_same(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.write(rest_after(4))
        world.at += 60
        world.row("pending", 0.0)
        world.restart(lines)
        for _ in range(8):
            world.look(1)
        assert world.runs == {("succeeded", ""): 1}
        assert (world.state, world.view().run_number) == (BeamState.WAITING, 2)

    def test_batches_that_nobody_saw_are_counted_and_not_timed(self, world: World) -> None:
        running(world)
        before = world.view()
        lines = world.saved()
        world.at += 60
        world.write(upto("v2_b18", b"Generating particles for (9 of 18")[len(upto("v2_b18", b"(4 of 18")) :])
        world.restart(lines)
        world.look()
        now = world.view()
        assert (now.batch_current, now.batches_completed) == (9, 8)
        assert now.batch_duration_seconds == before.batch_duration_seconds
        assert sum(world.snapshot().batch_durations["local"].counts) == 3
        assert now.remaining_seconds is not None

    def test_a_host_whose_clock_is_an_hour_behind_does_not_make_a_stall(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.at += 5
        world.write(upto("v2_b18", b"Generating particles for (5 of 18")[len(upto("v2_b18", b"(4 of 18")) :])
        os.utime(world.log(), (world.at - 3600, world.at - 3600))
        world.restart(lines)
        world.look()
        assert world.state == BeamState.RUNNING
        assert (world.view().last_progress_at or 0) > world.at - 10

    @pytest.mark.parametrize("same_size", [False, True])
    def test_a_log_that_was_rewritten_is_a_new_run(self, world: World, same_size: bool) -> None:
        running(world)
        size = world.log().stat().st_size
        lines = world.saved()
        world.at += 60
        new = captured("mgh_b18")
        world.write(new[:size] if same_size else new, anew=True)
        world.restart(lines)
        for _ in range(8):
            world.look(1)
        assert world.view().run_number == 2

    def test_one_of_the_same_size_and_age_is_recognised_too(self, world: World) -> None:
        running(world)
        status = world.log().stat()
        lines = world.saved()
        with world.log().open("r+b") as file:
            file.seek(status.st_size - 600)
            file.write(b"x" * 500)
        os.utime(world.log(), (status.st_atime, status.st_mtime))
        world.restart(lines)
        world.look()
        assert world.snapshot().sources[0].read_bytes == status.st_size

    def test_a_log_that_was_cut_off(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.write(upto("v2_b18", b"Generating particles for (1 of 18"), anew=True)
        world.restart(lines)
        world.look()
        assert (world.view().run_number, world.view().batch_current) == (2, 1)

    def test_a_log_that_was_rotated_goes_on_with_its_run(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.at += 60
        world.write(rest_after(4), anew=True)
        world.restart(lines)
        for _ in range(8):
            world.look(1)
        assert (world.view().run_number, world.state) == (1, BeamState.SUCCEEDED)
        assert world.runs == {("succeeded", ""): 1}

    def test_a_rotation_that_no_line_had_decided_yet(self, world: World) -> None:
        running(world)
        world.write(b"a line that says nothing\n", anew=True)
        world.look()
        world.restart()
        world.look()
        world.write(rest_after(4))
        world.look()
        assert (world.view().run_number, world.state) == (1, BeamState.SUCCEEDED)

    def test_a_log_that_is_gone_shows_what_was_last_known(self, world: World) -> None:
        running(world)
        before = world.view()
        world.restart()
        world.log().unlink()
        world.look()
        assert (world.state, world.view().batches_completed) == (BeamState.RUNNING, before.batches_completed)

    def test_a_row_that_is_gone_leaves_as_it_would_have(self, world: World) -> None:
        running(world)
        world.restart()
        world.drop_row()
        world.look()
        assert len(world.snapshot().beams) == 1
        world.look(61)
        world.look(1)
        assert world.snapshot().beams == ()

    def test_a_killed_run_is_failed_by_its_row(self, world: World) -> None:
        running(world)
        lines = world.saved()
        world.at += 60
        world.row("failed")
        world.restart(lines)
        for _ in range(20):
            world.look(1)
        assert world.runs == {("failed", "status"): 1}

    def test_a_finished_log_is_not_stale_because_we_wrote_to_its_row(self, world: World) -> None:
        running(world)
        world.write(rest_after(4))
        world.look()
        world.at += 10
        world.row("simulation_running", 100.0)
        world.restart()
        world.look()
        assert world.state == BeamState.SUCCEEDED

    def test_the_same_without_a_state_is_what_it_cures(self, world: World, tmp_path: Path) -> None:
        running(world)
        world.write(rest_after(4))
        world.look()
        world.at += 10
        world.row("simulation_running", 100.0)
        fresh = World(tmp_path, quick())
        fresh.at, fresh.rows = world.at, world.rows
        fresh.look()
        assert fresh.state == BeamState.WAITING


def test_counters_never_step_back_whenever_it_is_killed(world: World) -> None:
    """Prometheus would take that for a restart from 0, and count all again."""
    running(world)
    lines = world.saved()
    counters = RestoredState.decode(lines).counters
    world.store.show_saved_counters(counters)
    world.write(rest_after(4))
    for _ in range(8):
        world.look(1)
    assert world.runs == {}, "not shown before the file holds it"
    shown = world.snapshot().batch_durations
    world.restart(lines)
    world.store.show_saved_counters(counters)
    assert (world.runs, world.snapshot().batch_durations) == ({}, shown)
    for _ in range(8):
        world.look(1)
    world.store.confirm_saved(world.store.collect_changes())
    assert world.runs == {("succeeded", ""): 1}


def test_without_a_file_to_write_counters_are_shown_at_once(world: World) -> None:
    running(world)
    world.store.confirm_saved(world.store.collect_changes())
    world.store.reject_saved()
    world.write(rest_after(4))
    for _ in range(8):
        world.look(1)
    assert world.runs == {("succeeded", ""): 1}


def test_a_beam_that_no_text_can_name_is_left_out(world: World) -> None:
    odd = BeamKey("c", "b\udcff")
    running(world)
    world.row(key=odd)
    world.look()
    assert list(RestoredState.decode(world.saved()).beams) == [BEAM]


@pytest.mark.parametrize("text", ["x" * 10_000_000, "/data/\udcff", "a\nb"], ids=["long", "no_text", "lines"])
def test_what_else_stands_in_a_row_cannot_spoil_the_file(world: World, text: str) -> None:
    running(world)
    world.rows[BEAM] = replace(world.rows[BEAM], hpc_job_id=text, status=text)
    world.look()
    lines = world.saved()
    assert sum(map(len, lines.beams)) < 10_000
    world.restart(lines)
    world.look()
    world.look()
    assert (world.view().row.hpc_job_id, world.view().run_number, world.state) == (text, 1, BeamState.RUNNING)


def test_a_process_killed_while_it_catches_up_goes_on_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.polling.poller.READS_PER_POLL", 1)
    monkeypatch.setattr("exporter.sources.tailer.READ_BYTES", 700)
    world.row()
    world.look()
    world.write(captured("v2_b18"))
    looks = 0
    while world.poller.poll():
        looks += 1
        world.restart()
    for _ in range(8):
        world.look(1)
    assert looks > 5
    assert (world.state, world.view().batches_completed) == (BeamState.SUCCEEDED, 18)
    assert world.runs == {("succeeded", ""): 1}


def test_no_line_of_a_log_but_an_unfinished_one_is_kept(world: World) -> None:
    running(world)
    assert b"Transporting particles" not in b"".join(world.saved().beams)


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("counters", b'"since":', b'"sence":'),
        ("counters", b'"runs":[]', b'"runs":7'),
        ("beam", b'"run_counted":false', b'"run_counted":"70010001"'),
        ("beam", b'"state":"running"', b'"state":"flying"'),
    ],
)
def test_what_does_not_fit_is_refused_without_saying_whose_it_is(
    world: World, part: str, old: bytes, new: bytes
) -> None:
    running(world)
    stored = world.saved()
    states = stored.parts if part != "beam" else {part: stored.beams[0]}
    assert old in states[part]
    states[part] = states[part].replace(old, new)
    stored.beams[0] = states.get("beam", stored.beams[0])
    with pytest.raises(StateUnusable, match="holds what it should not") as raised:
        decode(stored)
    assert "70010001" not in str(raised.value)


# Any story, cut anywhere


def stories() -> st.SearchStrategy[list[tuple[str, Any]]]:
    step = st.one_of(
        st.tuples(st.just("write"), st.integers(1, 1500)),
        st.tuples(st.just("write"), st.integers(1, 200)),
        st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0, 20.0, 400.0])),
        st.tuples(st.just("rewrite"), st.integers(1, 3000)),
        st.tuples(st.just("rotate"), st.integers(1, 800)),
        st.tuples(st.just("truncate"), st.none()),
        st.tuples(
            st.just("row"), st.sampled_from(["pending", "simulation_running", "completed", "failed", "downloading"])
        ),
    )
    return st.lists(step, min_size=3, max_size=25)


RUN = simulate(Simulation(batches=(3, 2), batch_seconds=1.0)).data
FAILED = simulate(Simulation(batches=(4,), batch_seconds=1.0, gpu=True, failure="cuda", at_batch=3)).data


def play(folder: Path, story: list[tuple[str, Any]], cuts: set[int]) -> list[Any]:
    """What is shown after every step; at ``cuts`` the process is another one."""
    world = World(folder, quick())
    world.row()
    world.look()
    data, written, shown = RUN, 0, []
    for number, (what, value) in enumerate(story):
        if what in ("write", "rewrite", "rotate"):
            if what == "rewrite":
                data, written = (FAILED if data is RUN else RUN), 0
            world.write(data[written : written + value], anew=what != "write")
            written += value
        elif what == "truncate":
            world.write(b"", anew=True)
            written = 0
        elif what == "wait":
            world.at += value
        else:
            world.row(value, 0.0 if value == "pending" else 50.0)
        world.look()
        if number in cuts:
            world.restart()
        world.look(0.0)
        snapshot = world.snapshot()
        shown.append(
            (
                [without_place(view) for view in snapshot.beams],
                [replace(each, ended_at=round(each.ended_at, 3)) for each in snapshot.ended],
                snapshot.runs,
                snapshot.batch_durations,
                [source.anomalies for source in snapshot.sources],
            )
        )
    return shown


def without_place(view: BeamView) -> BeamView:
    return view._replace(log_path=None, row=replace(view.row, log_path=None))


@given(stories(), st.sets(st.integers(0, 24), min_size=1))
def test_a_story_that_is_cut_is_the_story(story: list[tuple[str, Any]], cuts: set[int]) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        whole, cut = play(Path(one), story, set()), play(Path(two), story, cuts)
    for number, (expected, found) in enumerate(zip(whole, cut, strict=True)):
        assert found == expected, f"after step {number}"


@given(
    st.lists(st.integers(1, 1200), min_size=4, max_size=30),
    st.integers(0, 29),
    st.integers(0, 29),
    st.booleans(),
)
def test_a_state_from_before_the_end_leads_to_the_same_end(
    pieces: list[int], saved_after: int, killed_after: int, fails: bool
) -> None:
    """Killed long after the last write of the state, while the log grew on."""
    data = FAILED if fails else RUN
    shown = []
    for killed in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), quick())
            world.row()
            world.look()
            lines, read = world.saved(), 0
            for number, size in enumerate(pieces):
                world.write(data[read : read + size])
                read += size
                world.look(1)
                if number == min(saved_after, killed_after):
                    lines = world.saved()
                if killed and number == max(saved_after, killed_after):
                    world.restart(lines)
                    world.look(0.0)
            world.write(data[read:])
            for _ in range(10):
                world.look(1)
            view = world.view()
            shown.append((view.state, view.run_number, view.batches_completed, view.batches_total, world.runs))
    assert shown[0] == shown[1]
    assert sum(shown[0][4].values()) == 1


def _down(world: World) -> SourceView:
    return SourceView(world.source.name, world.source.kind, up=False)


def test_a_state_is_true_at_one_moment_although_beams_are_copied_one_after_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes while others are copied is copied again, with the counters: no run counts twice, none is lost."""
    late = BeamKey("70010001", "70010001_beam_3")
    gone = BeamKey("70010001", "70010001_beam_4")
    monkeypatch.setattr("exporter.beams.store._SAVED_AT_ONCE", 1)
    for key in (BEAM, OTHER, gone):
        world.row(key=key)
        world.look()
        world.write(upto("v2_b18", b"Generating particles for (2 of 18"), key)
        world.look()
    turns = iter((BEAM, OTHER, gone))

    def step(_: float) -> None:
        key = next(turns, None)
        if key is None:
            return  # a snapshot, which lets go of the lock, too
        if key is gone:
            world.row(key=late)
            world.drop_row(gone)
            world.look()
            world.look(61)
        else:
            world.write(after("v2_b18", b"Generating particles for (2 of 18"), key)
        for _ in range(8):
            world.look(1)

    monkeypatch.setattr("exporter.beams.store.time.sleep", step)
    lines = world.saved()
    expected = world.snapshot()
    assert world.runs == {("succeeded", ""): 2}
    world.restart(lines)
    for _ in range(8):
        world.look(1)
    now = world.snapshot()
    assert (now.runs, now.batch_durations) == (expected.runs, expected.batch_durations)
    assert {view.key for view in now.beams} == {BEAM, OTHER, late}
    assert [view.batches_completed for view in now.beams] == [view.batches_completed for view in expected.beams]


def test_a_log_that_was_looked_for_in_vain_is_dated_after_that(tmp_path: Path) -> None:
    """Its host's clock is an hour late; when it was not there yet is known all the same."""
    source = FragileSource("local")
    world = World(tmp_path, quick(), source=source)
    world.row()
    world.look()
    world.look()
    looked_at = world.at
    # The second process never reaches the host.
    source.down = True
    world.restart()
    world.look(5)
    world.restart()
    world.write(upto("v2_b18", b"Generating particles for (2 of 18"))
    os.utime(world.log(), (world.at - 3600, world.at - 3600))
    source.down = False
    world.look(5)
    view = world.view()
    assert (view.state, view.batches_completed) == (BeamState.RUNNING, 1)
    assert view.started_at == looked_at
    assert view.batch_duration_seconds is None, "when it began is not known"


def test_a_host_that_does_not_answer_since_a_restart_was_polled_last_by_the_process_before(tmp_path: Path) -> None:
    source = FragileSource("local")
    world = World(tmp_path, quick(), source=source)
    running(world)
    polled_at = world.at
    world.restart()
    assert world.snapshot().sources == (), "not looked at yet"
    source.down = True
    world.look(300)
    [view] = world.snapshot().sources
    assert (view.up, view.last_poll_at) == (False, polled_at)
    source.down = False
    world.look(5)
    [view] = world.snapshot().sources
    assert (view.up, view.last_poll_at) == (True, world.at)


def test_a_process_that_is_killed_before_its_first_look_loses_nothing(world: World) -> None:
    running(world)
    before = world.view()
    for _ in range(3):
        world.restart()
    world.look()
    assert world.view().batch_duration_seconds == before.batch_duration_seconds
    world.write(rest_after(4))
    for _ in range(8):
        world.look(1)
    assert world.runs == {("succeeded", ""): 1}
