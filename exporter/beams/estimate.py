"""What a run's state means at a moment: how far it is, how long it will take, when its silence is a stall.

Functions of a run and a time; nothing is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.rules import StallRules
from exporter.beams.run import BeamRun

BATCH_SHARE_LIMIT = 0.99
"""However late a batch is, so much of it at most is taken as done."""

UNFINISHED_LIMIT = 0.999
"""Estimated progress of a run that has not succeeded never exceeds this."""

_RATIO_STEPS, _SECOND_STEPS = 10**6, 10**3
"""What an estimate can be worth. Every further digit is noise that each scrape writes, compresses and sends anew."""
_LONGEST_ROUNDED_SECONDS = 1e9

Work = tuple[str, float]
"""A source, and the particles of a full batch there (or 1): runs alike in both keep the same pace."""


def stall_threshold_seconds(run: BeamRun, rules: StallRules) -> float:
    """Return how long a run may be silent before that is a stall, in seconds.

    Downloading and saving the dose has nothing to do with how long a batch takes, and happens in silence: it may take
    as long as a first batch.
    """
    if run.buffered:
        return rules.buffered_seconds
    if not run.pace.count:
        return rules.first_batch_seconds
    threshold = max(rules.minimum_seconds, rules.factor * run.pace.longest_seconds)
    return max(threshold, rules.first_batch_seconds) if run.phase == "saving" else threshold


@dataclass(slots=True)
class Forecast:
    """What a run's log says of its estimates: all but the time, so that asking again at another time costs little.

    Never changed; not frozen, since making a frozen one takes five times as long, and a scrape may make thousands.

    Args:
        succeeded, ended, buffered: as of the run.
        total: batches of the run; ``None`` or 0 while unknown.
        finished: those that are done.
        since: when the running batch began, as far as known.
        running_seconds: what the running batch should take; 0 where nothing tells, or none runs.
        full_seconds: what a full batch should take.
        hidden_batches: so many a block of the C library may hold back.
        later_seconds: what the batches after the running one should take; ``None`` where nothing tells.
        ended_at: when the run ended.
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
        """The forecast of a run; ``prior_rate`` is seconds per particle (or batch) of recent runs like it."""
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
        """Whether the estimates are others at another time."""
        return bool(self.running_seconds) and self.since is not None and not self.succeeded and not self.ended

    def at(self, moment: float) -> tuple[float, float | None]:
        """What the estimates are at a moment, both at once: a scrape asks for those of every running beam.

        Returns:
            Finished batches and the elapsed share of the running one, of all batches: 0..1, and 1 only when the run has
            succeeded. And estimated seconds until the last announced batch is done: 0 when only saving is left,
            ``None`` while nothing tells, and after the end. Both are rounded to what they can be worth.
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
