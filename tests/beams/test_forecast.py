"""Expected ends of waiting and starting beams, and of cases, from earlier runs and the queue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.beams.cases import group_by_case
from exporter.beams.forecast import Basis, RunDurations, expected_ends, last_end, side_by_side
from exporter.beams.rules import ATTENTION_SECONDS
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, BeamView, EndedRun, StoreSnapshot
from tests.web.store_snapshots import NOW, make_beam, make_snapshot, make_waiting_beam

MINUTE = 60.0


def about(seconds: float, tolerance: float = MINUTE) -> Any:
    """Equal to a number of seconds within a tolerance."""
    return pytest.approx(seconds, abs=tolerance)


def ended(beam_id: str, seconds: float, *, ago: float = 3600.0, **changes: Any) -> EndedRun:
    """A run that took ``seconds`` and ended ``ago`` seconds before now."""
    values: dict[str, Any] = {"outcome": "succeeded", "reason": None, "source": "local", **changes}
    return EndedRun(BeamKey("old", beam_id), run_number=1, started_at=NOW - ago - seconds, ended_at=NOW - ago, **values)


def one_after_the_other(*seconds: float) -> tuple[EndedRun, ...]:
    """Runs of different beams that did not overlap."""
    return tuple(ended(f"b{number}", each, ago=10_000.0 * (number + 1)) for number, each in enumerate(seconds))


def ends(snapshot: StoreSnapshot) -> dict[str, tuple[float, Basis]]:
    """Expected ends in seconds from now, by beam."""
    return {key.beam_id: (end.at - NOW, end.basis) for key, end in expected_ends(snapshot).items()}


def waiting(beam_id: str, **changes: Any) -> BeamView:
    return make_waiting_beam(beam_id, row=BeamRow(BeamKey("70010001", beam_id), NOW, status="pending"), **changes)


RUNNING = make_beam(beam_id="running", remaining_seconds=300.0)
TEN_MINUTES = one_after_the_other(600.0, 600.0, 600.0)


def test_waiting_beams_run_one_after_the_other_where_one_ran_at_a_time() -> None:
    found = ends(make_snapshot(RUNNING, waiting("first"), waiting("second"), ended=TEN_MINUTES))
    assert found["running"] == (300.0, Basis.PACE)
    assert found["first"][0] == about(300 + 600)
    assert found["second"][0] == about(300 + 600 + 600, 2 * MINUTE)
    assert found["first"][1] is found["second"][1] is Basis.RECENT_RUNS


def test_as_many_beams_run_side_by_side_as_did_before() -> None:
    two_at_a_time = (*TEN_MINUTES, ended("x", 600.0), ended("y", 600.0))
    assert side_by_side(two_at_a_time) == 2
    found = ends(make_snapshot(RUNNING, waiting("first"), waiting("second"), ended=two_at_a_time))
    assert found["first"][0] == about(600), "a place is free now"
    assert found["second"][0] == about(300 + 600)


def test_runs_that_follow_each_other_at_once_did_not_run_side_by_side() -> None:
    assert side_by_side([ended("a", 600.0, ago=600.0), ended("b", 600.0, ago=0.0)]) == 1


def test_an_earlier_run_of_the_same_beam_is_preferred() -> None:
    same = ended("again", 1200.0, ago=50_000.0)
    beam = waiting("again")._replace(key=same.key)
    found = ends(make_snapshot(RUNNING, beam, ended=(*TEN_MINUTES, same)))
    assert found["again"] == (about(300 + 1200), Basis.SAME_BEAM)


def test_a_run_without_a_pace_yet_is_expected_by_its_particles() -> None:
    runs = tuple(ended(f"b{n}", 60.0 * n, ago=9000.0 * n, particles=1_000_000 * n) for n in (1, 5, 20))
    starting = make_beam(
        state=BeamState.STARTING, remaining_seconds=None, started_at=NOW - 60, particles=10_000_000, beam_id="s"
    )
    assert ends(make_snapshot(starting, ended=runs)) == {"s": (about(540), Basis.PARTICLES)}


@pytest.mark.parametrize(
    ("why", "runs"),
    [
        ("no history", ()),
        ("too few runs", one_after_the_other(600.0, 600.0)),
        ("durations differ too much", one_after_the_other(60.0, 600.0, 6000.0, 60.0)),
        ("only failed runs", tuple(ended(f"f{n}", 600.0, ago=9e3 * n, outcome="failed") for n in (1, 2, 3))),
    ],
)
def test_nothing_is_invented(why: str, runs: tuple[EndedRun, ...]) -> None:
    starting = make_beam(beam_id="s", state=BeamState.STARTING, remaining_seconds=None, particles=None)
    assert ends(make_snapshot(RUNNING, starting, waiting("w"), ended=runs)).keys() == {"running"}, why


def test_while_nothing_runs_no_start_is_expected() -> None:
    assert ends(make_snapshot(waiting("w"), ended=TEN_MINUTES)) == {}


@pytest.mark.parametrize("state", [BeamState.STALLED, BeamState.EXPIRED])
def test_a_stalled_or_expired_beam_has_no_end(state: BeamState) -> None:
    assert ends(make_snapshot(make_beam(state=state), ended=TEN_MINUTES)) == {}


def test_behind_a_stalled_beam_with_the_only_place_nothing_is_expected() -> None:
    stalled = make_beam(beam_id="stalled", state=BeamState.STALLED)
    assert ends(make_snapshot(stalled, waiting("w"), ended=TEN_MINUTES)) == {}
    beside = ends(make_snapshot(stalled, RUNNING, waiting("w"), ended=TEN_MINUTES))
    assert beside["w"][0] == about(300 + 600), "the other place is used"


def test_a_run_longer_than_the_earlier_ones_ends_at_an_unknown_time() -> None:
    late = make_beam(state=BeamState.STARTING, remaining_seconds=None, started_at=NOW - 700, particles=None)
    assert ends(make_snapshot(late, ended=TEN_MINUTES)) == {}


def test_a_beam_whose_row_says_that_it_runs_is_expected_until_it_needs_attention() -> None:
    def found(since: float) -> dict[str, tuple[float, Basis]]:
        row = BeamRow(BeamKey("70010001", "w"), NOW, status="simulation_running", updated_at=NOW - since)
        beam = make_waiting_beam("w", row=row, status_is_simulating=True)
        return ends(make_snapshot(beam, ended=one_after_the_other(2000.0, 2000.0, 2000.0)))

    assert found(100.0) == {"w": (about(1900), Basis.RECENT_RUNS)}
    assert found(ATTENTION_SECONDS) == {}


def test_a_case_ends_with_its_last_beam_and_is_unknown_with_one_of_them() -> None:
    done = make_beam(beam_id="done", state=BeamState.SUCCEEDED, remaining_seconds=None)
    for further, known in ((waiting("w"), True), (make_beam(beam_id="x", state=BeamState.STALLED), False)):
        snapshot = make_snapshot(RUNNING, done, further, ended=TEN_MINUTES)
        [case] = group_by_case(snapshot, expected_ends(snapshot))
        assert (case.expected_end is not None) is known
        assert case.remaining_seconds == (about(900) if known else None)
        assert case.states[BeamState.SUCCEEDED] == 1
    assert last_end([done], {}) is None


DURATIONS = st.lists(st.floats(1, 1e5), min_size=3, max_size=30)


@given(DURATIONS, st.lists(st.sampled_from(["running", "waiting", "stalled"]), max_size=12))
def test_no_expected_end_is_in_the_past_and_beams_start_in_their_order(
    durations: list[float], kinds: list[str]
) -> None:
    beams = [
        waiting(f"w{number}")
        if kind == "waiting"
        else make_beam(
            beam_id=f"b{number}",
            state=BeamState(kind),
            remaining_seconds=10.0 * number,
        )
        for number, kind in enumerate(kinds)
    ]
    found = ends(make_snapshot(*beams, ended=one_after_the_other(*durations)))
    assert all(seconds >= 0 for seconds, _ in found.values())
    queue = [
        found[beam.key.beam_id][0] for beam in beams if beam.state is BeamState.WAITING and beam.key.beam_id in found
    ]
    assert queue == sorted(queue)
    if "running" not in kinds:
        assert found == {}


def test_durations_of_a_beam_are_the_median_of_its_last_runs() -> None:
    runs = [ended("b", seconds) for seconds in (9000.0, 100.0, 110.0, 900.0)]
    beam = waiting("b")._replace(key=runs[0].key)
    assert RunDurations(runs).expected(beam) == (110.0, Basis.SAME_BEAM)
