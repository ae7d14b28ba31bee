"""One run after another in the log of a beam: when does a new one begin?

A log that no longer holds the bytes read before is a new run, unless it was merely rotated: then it begins without the
engine's head, and its first counter goes on from the last one. Until a line decides, the run before is what is shown.
A log that holds them still may go on with another process, which begins with a head.
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
"""Reasons of a failure that is not the engine's own."""


@dataclass(slots=True, eq=False)
class RunSequence:
    """The current run of a beam and how many there have been.

    Attributes:
        run: the current run.
        number: 1, 2, ...; runs since the beam was first seen.
    """

    number: int = 1
    run: BeamRun = field(default_factory=BeamRun)
    _undecided: list[tuple[SavedEvent, float]] | None = None

    @property
    def undecided(self) -> bool:
        """The log was replaced, and nothing has told yet whether that was a new run."""
        return self._undecided is not None

    def start_run(self, *, keep_undecided: bool = False) -> None:
        """A new run is known to have begun: forget the one before.

        Args:
            keep_undecided: what the log has brought since it was replaced is of the new run (its row was reset).
        """
        waiting, self._undecided = self._undecided, None
        self.run = BeamRun()
        self.number += 1
        for event, at in waiting if waiting and keep_undecided else ():
            self.run.apply(event, at)

    def apply(self, event: Event, at: float, *, first_poll: bool = False) -> bool:
        """Take one event; see :meth:`BeamRun.apply`.

        Args:
            event, at: see there.
            first_poll: the log is being read for the first time: runs before its last one have not been seen.

        Returns:
            Whether a new run has begun with it.
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
            return False  # nothing has come yet, however often the empty log is touched
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
        """Whether the replaced log goes on with the run before, as far as ``event`` decides that."""
        batches = self.run.batches
        match event:
            case RunHead() | BatchesAnnounced():
                return False
            case BatchStarted(number=None):
                return not self.run.ended and batches.started > 0
            case BatchStarted(number=int(number), total=total):
                # The lines around the cut may be lost: the counter need only go on, not by exactly one.
                same_total = total is None or total == batches.announced
                return not self.run.ended and same_total and batches.started_of_announced < number
            case HistoriesGenerated() | BatchFinished() if batches.finished < batches.started:
                # No log begins with the middle of a batch.
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
    """A head further down in a run's log is that of another run: an engine prints one at its beginning.

    Not where the run has had neither head nor simulation: several processes may write one log, and standard error comes
    before standard output that is buffered. Nor where its engine has failed by itself: a script that goes on with
    another process must not make anybody forget that. One that was ended by others is put back into the queue.
    """
    if not head.certain and not run.ended:
        return False
    if run.failed:
        return (run.has_head or run.running_since is not None) and run.failures.keys() <= _ENDED_BY_OTHERS
    return run.running_since is not None or (run.succeeded and run.has_head)
