"""Recognises where one run ends and the next one begins in the log of a beam.

A log that no longer holds the bytes that were read was replaced or rotated. A rotated log begins without the engine's
head, and its first batch number continues the last one: the run continues. Otherwise a new run has begun. Until a line
decides, the previous run is shown. A log that was only appended to holds a new run if an engine's head follows an end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.beams.run import UNMATCHED_BYTES, UNMATCHED_SECONDS, BeamRun
from exporter.beams.saved_fields import SavedEvent
from exporter.logs.events import (
    INTERRUPTIONS,
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    Event,
    HistoriesGenerated,
    LogRead,
    LogReplaced,
    RunFailed,
    RunHead,
    RunSucceeded,
)

_ENDED_BY_OTHERS = INTERRUPTIONS | {"killed", "terminated", "time_limit"}
"""Failure reasons of runs that were ended from outside the engine."""


@dataclass(slots=True, eq=False)
class RunSequence:
    """The current run of a beam, and its number.

    Attributes:
        run: the current run.
        number: counts the runs since the beam was first seen, from 1.
    """

    number: int = 1
    run: BeamRun = field(default_factory=BeamRun)
    _undecided: list[tuple[SavedEvent, float]] | None = None

    @property
    def undecided(self) -> bool:
        """Whether the log was replaced, and no line has shown yet if a new run has begun."""
        return self._undecided is not None

    def start_run(self, *, keep_undecided: bool = False) -> None:
        """Replace the current run by a new one.

        Args:
            keep_undecided: apply the events that came since the log was replaced to the new run (its row was reset).
        """
        waiting, self._undecided = self._undecided, None
        self.run = BeamRun()
        self.number += 1
        for event, at in waiting if waiting and keep_undecided else ():
            self.run.apply(event, at)

    def apply(self, event: Event, at: float, *, first_poll: bool = False) -> bool:
        """Apply one event of the log.

        Args:
            event, at: see :meth:`BeamRun.apply`.
            first_poll: the log is read for the first time. Earlier runs in it are skipped and not counted.

        Returns:
            Whether the event begins a new run.
        """
        if isinstance(event, LogReplaced):
            if self.run.started_at is None:
                return False
            self._undecided = [(event, at)]
            return False
        if self._undecided is None:
            appended = isinstance(event, RunHead) and _may_be_followed(self.run, event)
            if appended and first_poll:
                self.run = BeamRun()
            elif appended:
                self.start_run()
            self.run.apply(event, at)
            return appended and not first_poll
        if isinstance(event, LogRead) and not event.size_bytes:
            return False  # the new log is still empty
        self._undecided.append((event, at))
        continues = self._continues(event, at)
        if continues is None:
            return False
        events, self._undecided = self._undecided, None
        if not continues:
            self.start_run()
        for waiting, since in events:
            self.run.apply(waiting, since)
        return not continues

    def _continues(self, event: Event, at: float) -> bool | None:
        """Whether the replaced log continues the current run; ``None`` while ``event`` does not decide that."""
        batches = self.run.batches
        match event:
            case RunHead() | BatchesAnnounced():
                return False
            case BatchStarted(number=None):
                return not self.run.ended and batches.started > 0
            case BatchStarted(number=int(number), total=total):
                # Lines may be lost at the rotation, so the number may be higher by more than one.
                same_total = total is None or total == batches.announced
                return not self.run.ended and same_total and batches.started_of_announced < number
            case HistoriesGenerated() | BatchFinished() if batches.finished < batches.started:
                # A new log never begins in the middle of a batch.
                return not self.run.ended
            case RunSucceeded() | RunFailed():
                return not self.run.ended and self.run.running_since is not None
            case LogRead(size_bytes=size):
                assert self._undecided is not None
                since = self._undecided[0][1]
                return False if size > UNMATCHED_BYTES or (size and at - since > UNMATCHED_SECONDS) else None
            case _:
                return None


def _may_be_followed(run: BeamRun, head: RunHead) -> bool:
    """Whether an engine's head further down in the log begins a new run.

    It does not before the run has had a head or a simulation: several processes may write to one log, and standard
    error arrives before standard output, which is buffered. It does not after the engine failed by itself: a script
    that starts another process must not hide the failure. A run that was ended from outside may be started again.
    """
    if not head.certain and not run.ended:
        return False
    if run.failed:
        return (run.has_head or run.running_since is not None) and run.failures.keys() <= _ENDED_BY_OTHERS
    return run.running_since is not None or (run.succeeded and run.has_head)
