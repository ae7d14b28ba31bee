"""A case is whole: its beams stay together, and its progress never goes back because one of them is forgotten."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.cases import CaseIndex, group_by_case
from exporter.beams.snapshot import BeamKey
from tests.support.world import World, captured, quick, upto

RETENTION = quick().retention_seconds
FAILED_RETENTION = quick().failed_retention_seconds
ONE, TWO, THREE = (BeamKey("P(01)", f"P(01)_beam_{number}") for number in (1, 2, 3))
DONE = captured("v2_b18")
HALF = upto("v2_b18", b"(5 of 18 batches)")
FAILED = HALF + b"CUDA error: out of memory\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, quick())


def shown(world: World) -> set[BeamKey]:
    return {beam.key for beam in world.snapshot().beams}


def progress(world: World, case_id: str = ONE.case_id) -> float:
    [case] = [each for each in group_by_case(world.snapshot(), {}) if each.case_id == case_id]
    return case.progress_ratio


def keep_running(world: World, key: BeamKey, seconds: float) -> None:
    """Time passes while a beam's log goes on."""
    for _ in range(int(seconds / 10)):
        world.write(b"x\n", key)
        world.look(10)


class TestRetention:
    def test_finished_beams_stay_while_one_of_their_case_runs(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(key=key)
            world.write(DONE if key is ONE else HALF, key)
        world.look(1)
        world.row("completed", 100.0, ONE)
        keep_running(world, TWO, 3 * RETENTION)
        assert shown(world) == {ONE, TWO}
        assert world.view(ONE).state == "succeeded"

    @pytest.mark.parametrize("waits_as", ["pending", "hpc_queued", None])
    def test_finished_beams_stay_while_one_of_their_case_waits(self, world: World, waits_as: str | None) -> None:
        world.row(key=ONE)
        world.row(waits_as, None, TWO)
        world.write(DONE, ONE)
        world.look(1)
        world.row("completed", 100.0, ONE)
        for _ in range(10):
            world.look(RETENTION)
        assert shown(world) == {ONE, TWO}
        assert progress(world) == 0.5

    def test_a_case_leaves_together_when_the_retention_of_its_last_beam_is_over(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(key=key)
        world.write(DONE, ONE)
        world.look(1)
        world.row("completed", 100.0, ONE)
        world.look(5 * RETENTION)
        world.write(DONE, TWO)
        world.look(1)
        world.row("completed", 100.0, TWO)
        world.look(RETENTION - 10)
        assert shown(world) == {ONE, TWO}
        world.look(20)
        assert shown(world) == set()

    def test_a_beam_of_another_case_does_not_stay(self, world: World) -> None:
        other = BeamKey("P(02)", "P(02)_beam_1")
        for key in (ONE, other):
            world.row(key=key)
        world.write(DONE, other)
        world.look(1)
        world.row("completed", 100.0, other)
        for _ in range(3):
            world.look(RETENTION)
        assert shown(world) == {ONE}

    def test_a_failed_beam_keeps_its_case_as_long_as_failed_beams_are_kept(self, world: World) -> None:
        for key, log in ((ONE, DONE), (TWO, FAILED)):
            world.row(key=key)
            world.write(log, key)
        world.look(1)
        for key, status in ((ONE, "completed"), (TWO, "failed")):
            world.row(status, None, key)
        for _ in range(5):
            world.look(RETENTION)
        assert shown(world) == {ONE, TWO}
        world.look(FAILED_RETENTION)
        assert shown(world) == set()

    def test_a_beam_whose_row_was_deleted_does_not_hold_its_case(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(key=key)
        world.write(DONE, ONE)
        world.look(1)
        world.row("completed", 100.0, ONE)
        world.drop_row(TWO)
        for _ in range(3):
            world.look(RETENTION)
        assert shown(world) == set()

    def test_beams_known_by_their_logs_alone_stay_together(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(None, None, key)
        world.write(DONE, ONE)
        world.write(HALF, TWO)
        world.look(1)
        keep_running(world, TWO, 3 * RETENTION)
        assert shown(world) == {ONE, TWO}
        world.write(DONE, TWO, anew=True)
        world.look(1)
        world.look(RETENTION + 10)
        assert shown(world) == set()

    def test_a_case_stays_whole_over_a_restart(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(key=key)
            world.write(DONE if key is ONE else HALF, key)
        world.look(1)
        world.row("completed", 100.0, ONE)
        keep_running(world, TWO, 2 * RETENTION)
        world.restart()
        keep_running(world, TWO, 2 * RETENTION)
        assert shown(world) == {ONE, TWO}


class TestProgress:
    def test_a_beam_that_ended_before_the_exporter_started_counts(self, world: World) -> None:
        world.row("completed", 100.0, ONE)
        world.write(DONE, ONE)
        world.look(100 * RETENTION)
        world.row("failed", 20.0, TWO)
        world.write(FAILED, TWO)
        world.at += 100 * RETENTION
        world._begin()
        world.row("pending", 0.0, THREE)
        for _ in range(5):
            world.look(1)
        assert shown(world) == {ONE, TWO, THREE}
        assert progress(world) == pytest.approx((1 + 4 / 18) / 3, abs=0.02)

    def test_removed_beams_return_when_a_beam_of_their_case_is_retried(self, world: World) -> None:
        for key in (ONE, TWO):
            world.row(key=key)
            world.write(DONE, key)
        world.look(1)
        for key in (ONE, TWO):
            world.row("completed", 100.0, key)
        world.look(3)
        world.look(RETENTION + 10)
        assert shown(world) == set()
        world.row("pending", 0.0, TWO)
        for _ in range(5):
            world.look(1)
        assert shown(world) == {ONE, TWO}
        assert (world.view(ONE).run_number, world.view(TWO).run_number) == (1, 2)
        assert progress(world) == 0.5
        assert world.runs == {("succeeded", ""): 2}, "what was counted is not counted again"

    def test_metric_and_api_say_the_same_of_a_case(self, world: World) -> None:
        for key, log in ((ONE, DONE), (TWO, HALF)):
            world.row(key=key)
            world.write(log, key)
        world.look(1)
        world.row("completed", 100.0, ONE)
        keep_running(world, TWO, 2 * RETENTION)
        [case] = group_by_case(world.snapshot(), {})
        assert case.progress_ratio == progress(world) > 0.5


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begins", "goes on", "succeeds", "fails", "row says so", "time passes"]),
        st.sampled_from([ONE, TWO, THREE]),
        st.sampled_from([1.0, 30.0, RETENTION + 5, 3 * RETENTION]),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_case_progress_never_goes_back_while_one_beam_of_the_case_is_open(
    events: list[tuple[str, BeamKey, float]],
) -> None:
    """Beams end, are forgotten and their rows change in any order; a fourth beam of the case waits all along."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), quick())
        ended: dict[BeamKey, str] = {}
        for key in (ONE, TWO, THREE, BeamKey(ONE.case_id, "P(01)_beam_4")):
            world.row("pending", 0.0, key)
        world.look(1)
        before = progress(world)
        for what, key, seconds in events:
            if what == "row says so" and key in ended:
                world.row(ended[key], None, key)
            elif what in ("begins", "goes on", "succeeds", "fails") and key not in ended:
                if not world.log(key).exists():
                    world.row("simulation_running", 0.0, key)
                    world.write(HALF, key)
                if what == "succeeds":
                    world.write(DONE[len(HALF) :], key)
                    ended[key] = "completed"
                elif what == "fails":
                    world.write(b"CUDA error: out of memory\n", key)
                    ended[key] = "failed"
                elif what == "goes on":
                    world.write(b"x\n", key)
            world.look(seconds)
            assert len(shown(world)) == 4
            now = progress(world)
            assert now >= before - 1e-9, (what, key)
            before = now


def test_the_case_index_returns_the_beams_of_a_case() -> None:
    index = CaseIndex([ONE, TWO])
    other = BeamKey("P(02)", "b")
    index.add(other)
    index.remove(ONE)
    assert list(index.beams("P(01)")) == [TWO]
    index.remove(TWO)
    assert list(index.beams("P(01)")) == []
    assert list(index.beams("P(02)")) == [other]
