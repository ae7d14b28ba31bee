"""Estimates of a run at an instant: its progress, its remaining time, and when its silence is a stall.

Pure functions of a run and an instant.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.rules import StallRules
from exporter.beams.run import BeamRun

BATCH_SHARE_LIMIT = 0.99
"""A running batch counts as finished by at most this share, however late it is."""

UNFINISHED_LIMIT = 0.999
"""Estimated progress of a run that has not succeeded never exceeds this."""

_RATIO_STEPS, _SECOND_STEPS = 10**6, 10**3
"""Estimates are rounded to these steps per unit. More digits are noise that each scrape would compress and send."""
_LONGEST_ROUNDED_SECONDS = 1e9

Work = tuple[str, float]
"""A source, and the particles of a full batch (or 1). Runs that have both in common have the same pace."""


def stall_threshold_seconds(run: BeamRun, rules: StallRules) -> float:
    """Return how long a run may be silent before it counts as stalled, in seconds.

    The engine prints nothing while it saves the dose, which does not depend on the duration of a batch. So saving may
    take as long as a first batch.
    """
    if run.buffered:
        return rules.buffered_seconds
    if not run.pace.count:
        return rules.first_batch_seconds
    threshold = max(rules.minimum_seconds, rules.factor * run.pace.longest_seconds)
    return max(threshold, rules.first_batch_seconds) if run.phase == "saving" else threshold


@dataclass(slots=True)
class Forecast:
    """The inputs of a run's estimates except the time, so that an estimate at another instant is cheap.

    It never changes. It is not frozen, since that takes five times as long to make, and a scrape may make thousands.

    Args:
        succeeded, ended, buffered: properties of the run.
        total: number of batches of the run; ``None`` or 0 while unknown.
        finished: number of finished batches.
        since: when the running batch began; ``None`` while unknown.
        running_seconds: expected duration of the running batch; 0 if it is unknown, or no batch runs.
        full_seconds: expected duration of a full batch.
        hidden_batches: number of batches whose lines the C library may still hold in its buffer.
        later_seconds: expected duration of all batches after the running one; ``None`` while unknown.
        ended_at: when the run ended; ``None`` before.
    """

    succeeded: bool
    ended: bool
    buffered: bool
    total: int | None
    finished: int
    since: float | None
    running_seconds: float
    full_seconds: float
    hidden_batches: int
    later_seconds: float | None
    ended_at: float | None

    @classmethod
    def of(cls, run: BeamRun, prior_rate: float | None) -> Forecast:
        """Return the forecast of a run.

        Args:
            run: the run.
            prior_rate: seconds per particle (or batch) of earlier runs like it; ``None`` without such runs.
        """
        batches = run.batches
        rate = run.pace.seconds_per_work or prior_rate
        running = full = 0.0
        later: float | None = None
        if batches.announced and batches.all_finished:
            later = 0.0
        elif batches.announced and rate:
            running, full = rate * run.batch_work, rate * run.full_work
            left = batches.announced - batches.finished_of_announced
            later = full * (left - 2) + rate * run.last_batch_work if left > 1 else 0.0
        return cls(
            succeeded=run.succeeded,
            ended=run.ended,
            buffered=run.buffered,
            total=batches.total,
            finished=batches.finished,
            since=run.batch_since if run.batch_since is not None else run.last_growth_at,
            running_seconds=running,
            full_seconds=full,
            hidden_batches=run.pace.chunk_batches,
            later_seconds=later,
            ended_at=run.ended_at,
        )

    @property
    def moves(self) -> bool:
        """Whether the estimates change with time alone."""
        return bool(self.running_seconds) and self.since is not None and not self.succeeded and not self.ended

    def at(self, moment: float) -> tuple[float, float | None]:
        """Return estimated progress and remaining time at an instant.

        Returns:
            Estimated progress, 0 to 1: finished batches and the elapsed share of the running one. It is 1 only after
            success. And the seconds until the last announced batch will be finished: 0 while the dose is saved,
            ``None`` while unknown and after the end. Both are rounded.
        """
        if self.ended_at is not None and moment > self.ended_at:
            moment = self.ended_at
        since, running, later = self.since, self.running_seconds, self.later_seconds
        elapsed = moment - since if since is not None and moment > since else 0.0
        if self.succeeded:
            ratio = 1.0
        elif not self.total:
            ratio = 0.0
        else:
            ratio = self.finished / self.total
            if running:
                share = elapsed / running
                if share > 1.0 and self.buffered:
                    # A block of the C library holds back as many batches as the last one brought.
                    share = min(1.0 + (elapsed - running) / self.full_seconds, self.hidden_batches)
                elif share > BATCH_SHARE_LIMIT:
                    share = BATCH_SHARE_LIMIT
                ratio = (self.finished + share) / self.total
            # `round` takes as long as all the rest.
            ratio = int(ratio * _RATIO_STEPS + 0.5) / _RATIO_STEPS if ratio < UNFINISHED_LIMIT else UNFINISHED_LIMIT
        if later is None or self.ended:
            return ratio, None
        left = running - elapsed
        if not self.buffered and left < 0.0:
            left = 0.0
        left += later
        if left >= _LONGEST_ROUNDED_SECONDS:
            return ratio, left
        return ratio, int(left * _SECOND_STEPS + 0.5) / _SECOND_STEPS if left > 0.0 else 0.0
