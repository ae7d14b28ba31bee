"""Totals over all beams: ended runs, durations of batches, unexpected lines in logs.

With persistence, readers see the totals that are saved (:meth:`Counters.show_saved`), so that no total steps back after
a restart.
"""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from exporter.beams.beam import Beam
from exporter.beams.estimate import Work
from exporter.beams.run import BeamRun
from exporter.beams.saved import Rates, SavedCounters
from exporter.beams.snapshot import UNKNOWN_SOURCE, EndedRun, HistogramView
from exporter.process.clock import Timeline

BATCH_SECONDS_BOUNDS = (0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
_ENDED_RUNS_KEPT = 200
_RATES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class CountersView:
    """The totals at one instant.

    Args:
        runs: number of ended runs by source, outcome and reason; the reason is ``""`` for those that succeeded.
        durations: durations of batches by source.
        anomalies: number of unexpected lines by source and kind.
    """

    runs: Mapping[tuple[str, str, str], int]
    durations: Mapping[str, HistogramView]
    anomalies: Mapping[str, Mapping[str, int]]


class Counters:
    """Totals, the last ended runs, and their paces. Not thread-safe: the store uses it under its lock.

    Args:
        at: the present instant: runs that ended earlier are not counted.

    Attributes:
        rates_version: changes whenever :attr:`rates` does.
    """

    NOT_SAVED = frozenset({"_saved", "_ended_shown", "rates_version"})

    def __init__(self, at: float) -> None:
        self._since = at
        self._runs: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, tuple[list[int], list[float]]] = {}
        self._anomalies: dict[str, Counter[str]] = {}
        self._rates: dict[Work, float] = {}
        self.rates_version = 0
        self._ended: deque[EndedRun] = deque(maxlen=_ENDED_RUNS_KEPT)
        self._ended_shown: tuple[Timeline, tuple[EndedRun, ...]] | None = None
        self._saved: CountersView | None = None

    @property
    def rates(self) -> Mapping[Work, float]:
        """Seconds per particle (or batch) of recent runs, by source and particles of a full batch."""
        return self._rates

    def ended(self, timeline: Timeline) -> tuple[EndedRun, ...]:
        """Return the last runs that were counted, with wall-clock times."""
        if self._ended_shown is None or self._ended_shown[0] is not timeline:
            self._ended_shown = timeline, tuple(with_wall_times(run, timeline) for run in self._ended)
        return self._ended_shown[1]

    def view(self) -> CountersView:
        """Return the totals that readers see."""
        return self._saved or self._now()

    def _now(self) -> CountersView:
        return CountersView(
            dict(self._runs), self._duration_views(), {source: dict(kinds) for source, kinds in self._anomalies.items()}
        )

    def _duration_views(self) -> dict[str, HistogramView]:
        return {
            source: HistogramView(BATCH_SECONDS_BOUNDS, tuple(counts), total[0])
            for source, (counts, total) in self._durations.items()
        }

    def count_batch(self, source: str, seconds: float) -> None:
        """Count a batch of a source, and how long it took."""
        counts, total = self._durations.setdefault(source, ([0] * (len(BATCH_SECONDS_BOUNDS) + 1), [0.0]))
        counts[bisect.bisect_left(BATCH_SECONDS_BOUNDS, seconds)] += 1
        total[0] += seconds

    def count_anomalies(self, source: str, kinds: Mapping[str, int]) -> None:
        """Count unexpected lines of a source by kind."""
        self._anomalies.setdefault(source, Counter()).update(kinds)

    def covers(self, ended_at: float) -> bool:
        """Whether a run that ended at an instant is counted; one that ended before the start is not."""
        return ended_at >= self._since

    def count_run(
        self, beam: Beam, run: BeamRun, number: int, outcome: str, reason: str | None, ended_at: float | None = None
    ) -> EndedRun | None:
        """Count a run that has ended.

        Args:
            beam: its beam.
            run: the run; it need not be the beam's current one.
            number: its number.
            outcome: ``succeeded`` or ``failed``.
            reason: why it failed; ``None`` if it succeeded.
            ended_at: since when the beam is in that state; used if the log does not say when the run ended.

        Returns:
            The run; ``None`` if it is not counted.
        """
        ended_at = run.ended_at if run.ended_at is not None else ended_at
        source = beam.source or UNKNOWN_SOURCE
        rate = run.pace.seconds_per_work
        if rate is not None and outcome == "succeeded":
            self._rates.pop((source, run.full_work), None)
            self._rates[source, run.full_work] = rate
            self.rates_version += 1
            if len(self._rates) > _RATES_KEPT:
                self._rates.pop(next(iter(self._rates)))
        if ended_at is None or not self.covers(ended_at):
            return None
        self._runs[source, outcome, reason or ""] += 1
        ended = EndedRun(
            beam.row.key,
            source,
            number,
            outcome,
            reason,
            run.began_at,
            ended_at,
            status=beam.row.status if reason == "status" else None,
            dialect=run.dialect,
            batches=run.batches.finished,
            particles=run.particles,
            seconds_per_batch=run.pace.mean_seconds,
            engine_times=run.engine_times,
            dose_path=run.dose.path,
            output_file=beam.output.file if run is beam.run else None,
        )
        self._ended_shown = None
        self._ended.append(ended)
        return ended

    # Restarts

    def to_saved(self) -> SavedCounters:
        """Return the totals as they are saved."""
        return SavedCounters(
            since=self._since,
            runs=list(self._runs.items()),
            durations=self._duration_views(),
            anomalies={source: dict(kinds) for source, kinds in self._anomalies.items()},
        )

    def resume(self, saved: SavedCounters, rates: Rates, ended: Iterable[EndedRun]) -> None:
        """Continue the totals of an earlier process, before anything is counted."""
        self._since = saved.since
        self._runs = Counter(dict(saved.runs))
        self._durations = {
            source: (list(view.counts), [view.total])
            for source, view in saved.durations.items()
            if view.bounds == BATCH_SECONDS_BOUNDS and len(view.counts) == len(BATCH_SECONDS_BOUNDS) + 1
        }
        self._anomalies = {source: Counter(kinds) for source, kinds in saved.anomalies.items()}
        self._rates = dict(rates)
        self._ended.extend(ended)
        self._ended_shown = None

    def show_saved(self, state: SavedCounters | None) -> None:
        """Set the totals that readers see: those saved last, or the present ones for ``None``."""
        self._saved = CountersView(dict(state.runs), state.durations, state.anomalies) if state else None


def with_wall_times(run: EndedRun, timeline: Timeline) -> EndedRun:
    """Return a run with wall-clock times instead of instants of the timeline."""
    started_at = None if run.started_at is None else timeline.to_wall(run.started_at)
    return replace(run, started_at=started_at, ended_at=timeline.to_wall(run.ended_at))


def from_wall_times(run: EndedRun, timeline: Timeline) -> EndedRun:
    """Return a run of the history with instants of the timeline instead of wall-clock times."""
    started_at = None if run.started_at is None else timeline.from_wall(run.started_at)
    return replace(run, started_at=started_at, ended_at=timeline.from_wall(run.ended_at))
