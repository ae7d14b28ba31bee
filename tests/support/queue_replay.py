"""How far the expected ends of cases are from the truth, in simulated queues.

A queue of 20 cases of three beams runs on one, two or four places. Durations of runs differ by a given spread (standard
deviation of their logarithm). Between two runs on a place up to 20 s pass, of which the forecast knows nothing. The
forecast sees 50 earlier runs, which beams run, and the time left of these within 5 %. Random numbers have a fixed seed.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from dataclasses import dataclass
from statistics import mean

from exporter.beams.cases import group_by_case
from exporter.beams.forecast import expected_ends
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, EndedRun, StoreSnapshot
from tests.web.store_snapshots import NOW, make_beam, make_snapshot, make_waiting_beam

_CASES, _BEAMS_OF_A_CASE, _REPEATED = 20, 3, 3
_EARLIER_RUNS = 50
_TYPICAL_SECONDS = 1200.0
_LONGEST_GAP_SECONDS = 20.0
_ERROR_OF_TIME_LEFT = 0.05
_SHARES = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class _Run:
    key: BeamKey
    start: float
    end: float


def _queue(random_numbers: random.Random, places: int, spread: float, count: int, name: str, at: float) -> list[_Run]:
    """Run ``count`` beams from ``at`` on."""
    free, runs = [at] * places, []
    for number in range(count):
        start = free[0] + random_numbers.uniform(0, _LONGEST_GAP_SECONDS)
        end = start + _TYPICAL_SECONDS * math.exp(random_numbers.gauss(0, spread))
        heapq.heapreplace(free, end)
        runs.append(_Run(BeamKey(f"{name}{number // _BEAMS_OF_A_CASE}", f"{name}{number}"), start, end))
    return runs


def _seen(random_numbers: random.Random, runs: list[_Run], earlier: list[_Run], at: float) -> StoreSnapshot:
    """What the store shows at a moment of the queue."""
    beams = []
    for run in runs:
        case_id, beam_id = run.key.case_id, run.key.beam_id
        if run.end <= at:
            beams.append(make_beam(case_id, beam_id, state=BeamState.SUCCEEDED, remaining_seconds=None))
        elif run.start <= at:
            left = (run.end - at) * (1 + random_numbers.uniform(-_ERROR_OF_TIME_LEFT, _ERROR_OF_TIME_LEFT))
            beams.append(make_beam(case_id, beam_id, remaining_seconds=left))
        else:
            row = BeamRow(run.key, at, status="pending")
            beams.append(make_waiting_beam(beam_id, row=row)._replace(key=run.key))
    over = [run for run in [*earlier, *runs] if run.end <= at]
    ended = (EndedRun(run.key, "local", 1, "succeeded", None, run.start, run.end) for run in over)
    return make_snapshot(*beams, at=at, ended=tuple(ended))


def errors(places: int, spread: float) -> dict[float, tuple[float, float]]:
    """Return the mean error of a case's end by the share of the time to it that has passed.

    Args:
        places: how many beams run side by side.
        spread: standard deviation of the logarithm of durations.

    Returns:
        By share: seconds, and the same relative to the time that is left.
    """
    random_numbers = random.Random(20_261_201)
    found: dict[float, list[tuple[float, float]]] = {share: [] for share in _SHARES}
    for _ in range(_REPEATED):
        earlier = _queue(random_numbers, places, spread, _EARLIER_RUNS, "earlier", NOW - 1e6)
        runs = _queue(random_numbers, places, spread, _CASES * _BEAMS_OF_A_CASE, "case", NOW)
        true_ends: dict[str, float] = {}
        for run in runs:
            true_ends[run.key.case_id] = max(run.end, true_ends.get(run.key.case_id, 0.0))
        first = max(run.start for run in runs[:places])  # nothing is expected while nothing runs
        for case_id, end in true_ends.items():
            for share in _SHARES:
                at = first + share * (end - first)
                snapshot = _seen(random_numbers, runs, earlier, at)
                case = next(
                    each for each in group_by_case(snapshot, expected_ends(snapshot)) if each.case_id == case_id
                )
                if case.expected_end is not None:
                    error = abs(case.expected_end - end)
                    found[share].append((error, error / (end - at)))
    return {share: (mean(e for e, _ in each), mean(r for _, r in each)) for share, each in found.items()}


def table() -> str:
    """Return the table of ``docs/accuracy.md``."""
    lines = [
        "| side by side | spread of durations | at the start | after 25 % | after 50 % | after 75 % |",
        "|---|---|---|---|---|---|",
    ]
    for places in (1, 2, 4):
        for spread in (0.1, 0.3):
            cells = [f"{seconds / 60:.0f} min ({share:.0%})" for seconds, share in errors(places, spread).values()]
            lines.append(f"| {places} | {spread:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
