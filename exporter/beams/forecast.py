"""Expected ends of beams that have no pace of their own yet, and of cases: from earlier runs and the queue seen.

Pure functions of a snapshot. The times are rough, and shown as "about". A beam whose end nobody can know has none:
nothing is derived from few or very different runs.

- A beam that runs with a known pace ends after the time left that its own batches give.
- A beam that has started, but has no pace yet, ends after the duration of earlier runs (:class:`RunDurations`).
- A waiting beam starts when a place is free. The number of places is the largest number of beams that ran side by side
  among the runs remembered, and at least what runs now. Beams start in the order in which they were found. While
  nothing runs, nothing is expected.
- A stalled beam has no end and keeps its place. An expired one has no end and no place. An unreachable one ends as last
  expected, until that time is past.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from statistics import median, quantiles
from typing import NamedTuple

from exporter.beams.rules import ATTENTION_SECONDS
from exporter.beams.snapshot import ENDED_STATES, BeamKey, BeamState, BeamView, EndedRun, StoreSnapshot

_RUNS_OF_A_BEAM = 3
_RECENT_RUNS = 20
_FEWEST_RUNS = 3
_WIDEST_SPREAD = 2.0
"""Recent runs of different beams predict the next one only if the middle half of their durations differs less."""
_ROUNDED_TO_SECONDS = 60.0
"""Expected ends that do not come from a run's own pace are rounded up to whole minutes: more would look exact."""

_RUNNING = frozenset({BeamState.STARTING, BeamState.RUNNING})
_WITHOUT_END = frozenset({BeamState.STALLED, BeamState.EXPIRED})
"""Earlier batches say nothing about when such a beam will finish."""


class Basis(str, Enum):
    """What an expected end is based on."""

    PACE = "pace"  # the batches of the run itself
    SAME_BEAM = "earlier_runs_of_the_beam"
    PARTICLES = "recent_runs_by_particles"
    RECENT_RUNS = "recent_runs"

    __hash__ = str.__hash__


class ExpectedEnd(NamedTuple):
    """When a beam is expected to finish, in whole UTC epoch seconds, and what that is based on."""

    at: float
    basis: Basis


class RunDurations:
    """Durations of runs that succeeded, in seconds.

    Args:
        runs: runs that ended, oldest first. Failed runs, and those whose start is unknown, are ignored.
    """

    def __init__(self, runs: Iterable[EndedRun]) -> None:
        self._of_beam: defaultdict[BeamKey, list[float]] = defaultdict(list)
        self._of_source: defaultdict[str | None, list[tuple[float, int | None]]] = defaultdict(list)
        for run in runs:
            if run.outcome != "succeeded" or run.started_at is None or run.ended_at <= run.started_at:
                continue
            seconds = run.ended_at - run.started_at
            self._of_beam[run.key].append(seconds)
            for source in (run.source, None):
                self._of_source[source].append((seconds, run.particles))
        self._recent: dict[str | None, tuple[float | None, float | None]] = {}

    def expected(self, beam: BeamView) -> tuple[float, Basis] | None:
        """Return the expected duration of a beam's run; ``None`` if earlier runs do not tell it.

        Args:
            beam: the beam. If its log has not been found, runs of all sources are used.
        """
        if beam.key in self._of_beam:
            return median(self._of_beam[beam.key][-_RUNS_OF_A_BEAM:]), Basis.SAME_BEAM
        source = beam.source if beam.log_path is not None else None
        if source not in self._recent:
            runs = self._of_source.get(source, [])[-_RECENT_RUNS:]
            rates = [seconds / particles for seconds, particles in runs if particles]
            self._recent[source] = _common_value(rates), _common_value([seconds for seconds, _ in runs])
        rate, duration = self._recent[source]
        if rate is not None and beam.particles:
            return rate * beam.particles, Basis.PARTICLES
        return None if duration is None else (duration, Basis.RECENT_RUNS)


def _common_value(values: Sequence[float]) -> float | None:
    """Return the median of values; ``None`` if they are too few or too different to predict the next one."""
    if len(values) < _FEWEST_RUNS:
        return None
    lower, middle, upper = quantiles(values, n=4, method="inclusive")
    return middle if upper <= _WIDEST_SPREAD * lower else None


def side_by_side(runs: Iterable[EndedRun]) -> int:
    """Return the largest number of these runs that ran at the same time."""
    changes: list[tuple[float, int]] = []
    for run in runs:
        if run.started_at is not None and run.ended_at > run.started_at:
            changes += (run.started_at, 1), (run.ended_at, -1)
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def expected_ends(snapshot: StoreSnapshot) -> Mapping[BeamKey, ExpectedEnd]:
    """Return the expected end of every beam that has one.

    Args:
        snapshot: all beams, and the last runs that ended.
    """
    at, ends = snapshot.at, dict[BeamKey, ExpectedEnd]()
    waiting: list[BeamView] = []
    places: list[float] = []
    running = occupied = 0
    durations = RunDurations(snapshot.ended)
    for beam in snapshot.beams:
        if beam.state in ENDED_STATES:
            continue
        if beam.state is BeamState.WAITING and not beam.status_is_simulating:
            waiting.append(beam)
            continue
        end = _end_of_started(beam, at, durations)
        if end is not None:
            ends[beam.key] = end
        if beam.state is not BeamState.EXPIRED:
            occupied += 1
        if beam.state in _RUNNING:
            running += 1
            if end is not None:
                places.append(end.at)
    if running and waiting:
        free = max(side_by_side(snapshot.ended), occupied) - occupied
        _run_the_queue(waiting, [*places, *[at] * free], durations, ends)
    return ends


def _end_of_started(beam: BeamView, at: float, durations: RunDurations) -> ExpectedEnd | None:
    remaining, began_at = beam.remaining_seconds, beam.began_at
    if beam.state in _WITHOUT_END or (remaining is not None and not math.isfinite(remaining)):
        return None
    if beam.state is BeamState.UNREACHABLE:
        # The estimate from when the host was lost. Once it is past, it is unknown whether the beam has finished.
        end = None if remaining is None else float(round(beam.state_since + remaining))
        return ExpectedEnd(end, Basis.PACE) if end is not None and end > at else None
    if remaining is not None:
        return ExpectedEnd(float(round(at + remaining)), Basis.PACE)
    if beam.state is BeamState.WAITING:  # its row says that it runs; its log was not found yet
        began_at = beam.simulating_since if at - beam.simulating_since < ATTENTION_SECONDS else None
    expected = durations.expected(beam)
    if expected is None or began_at is None:
        return None
    seconds, basis = expected
    # When a run ends that takes longer than the earlier ones is unknown.
    return ExpectedEnd(to_minute(began_at + seconds), basis) if began_at + seconds > at else None


def _run_the_queue(
    waiting: Iterable[BeamView],
    places: list[float],
    durations: RunDurations,
    ends: dict[BeamKey, ExpectedEnd],
) -> None:
    """Add the ends of waiting beams to ``ends``.

    Args:
        waiting: in the order in which they will start.
        places: when each place is free.
        durations: of earlier runs.
        ends: by beam.
    """
    heapq.heapify(places)
    for beam in waiting:
        expected = durations.expected(beam)
        if not places or expected is None:
            return  # nobody knows when the beams behind it start
        seconds, basis = expected
        end = places[0] + seconds
        heapq.heapreplace(places, end)
        ends[beam.key] = ExpectedEnd(to_minute(end), basis)


def to_minute(at: float) -> float:
    """Return the next whole minute, UTC epoch seconds."""
    return -(-at // _ROUNDED_TO_SECONDS) * _ROUNDED_TO_SECONDS


def last_end(beams: Iterable[BeamView], ends: Mapping[BeamKey, ExpectedEnd]) -> float | None:
    """Return when the last of these beams is expected to finish, UTC epoch seconds.

    Args:
        beams: for instance those of a case.
        ends: from :func:`expected_ends`.

    Returns:
        ``None`` if that is unknown of one beam that has not ended, or all have ended.
    """
    found = [ends.get(beam.key) for beam in beams if beam.state not in ENDED_STATES]
    known = [end.at for end in found if end is not None]
    return max(known) if known and len(known) == len(found) else None
