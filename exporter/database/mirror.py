"""Mirror: writes progress into the column ``progress``, which the communicator's screens show.

The mirror keeps the newest value of each beam until the database has accepted it. So at most one value per beam waits,
and nothing is lost while the database is locked, missing or full.

A value may only rise, with three exceptions. It may fall once when a new run has started, when an unfinished log is
first seen growing (the row may hold the value of an earlier run), and when a run announces more batches. After a
restart the mirror does not know what it has written, so a retry that has ended may lower the value once more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from exporter.beams.snapshot import (
    ENDED_STATES,
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    OutputState,
    StoreSnapshot,
)
from exporter.database.other_writer import OtherWriter
from exporter.database.table import ProgressUpdate, Table, UpdateKind
from exporter.database.unavailable import DatabaseUnavailable
from exporter.process.backoff import Backoff

ROWS_PER_TRANSACTION = 100
"""Most rows per transaction, which then holds the lock for about a millisecond (``docs/performance.md``)."""

OUTCOMES = ("written", "refused", "failed")
"""Outcomes of an update: the row changed, the row did not accept it, or it could not be written now."""
_BACKOFF_SECONDS = (0.5, 30.0)
"""First and longest wait after a failed write."""
_EQUAL_WITHIN = 0.01
"""Largest difference between equal values. Ours is rounded twice; the communicator's ``X/Y*50+40`` is not."""

_COMMUNICATORS_END = 100.0
"""Value that the communicator writes at the end of a run, on every scale."""

_WITHOUT_DOSE = frozenset({OutputState.NOT_DUE, OutputState.PENDING, OutputState.BLOCKED, OutputState.MISSING})
_HIGHEST_WITHOUT_DOSE = 99.0
"""With the output check, 100 % is written only after the dose file was found."""

_VISIBLE_AFTER_SECONDS = 2.0
"""Time after which a read must show our write, since the write may have waited for a lock."""

_STAMPS_KEPT = 15
"""Time stamps remembered per row, to recognise a row that was restored from a recent backup."""


@dataclass(slots=True)
class _Written:
    """The last update of a row, and the state of run and row at that time.

    Attributes:
        percent: progress of the run.
        update: the update of the row.
        run_number: number of the run.
        announcements: number of announcements in the run.
        grew: whether the log had been seen growing.
        row_updated_at: time stamp of the row as last read.
        row_status: status of the row as last read.
        accepted: whether the row changed. If not, it holds another value.
        wall_offset_seconds: that of the snapshot.
        ours: the last value of this run that the row accepted.
        ours_at: instant of that write.
        stamps_before: last time stamps of the row that were seen before the write.
    """

    percent: float
    update: ProgressUpdate
    run_number: int
    announcements: int
    grew: bool
    row_updated_at: float | None
    row_status: str | None
    accepted: bool = False
    wall_offset_seconds: float = 0.0
    ours: float | None = None
    ours_at: float = 0.0
    stamps_before: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FlushResult:
    """Result of :meth:`Mirror.flush`.

    Args:
        outcomes: number of updates by outcome (:data:`OUTCOMES`).
        seconds: duration of each transaction.
        pending: number of updates that still wait.
        error: why no more could be written; ``None`` if all were.
    """

    outcomes: Counter[str]
    seconds: tuple[float, ...]
    pending: int
    error: DatabaseUnavailable | None


class Mirror:
    """Writes progress into the table. One thread uses it.

    Args:
        table: the table.
        terminal_statuses: statuses of rows that are not written.
        completed_statuses: those of them that mean success. Such a row may be raised to the top once.
        reset_statuses: statuses at the beginning of a retry. A row that has just got one of them is not written.
        value: which progress to write: ``batch`` or ``estimated``.
        value_range: values to write for 0 and 100 %.
        minimum_interval_seconds: shortest time between two transactions.
        throttle_percent: smallest change that is written, in percent.
        timer: monotonic clock in seconds, for the duration of transactions.
    """

    def __init__(
        self,
        table: Table,
        *,
        terminal_statuses: Collection[str],
        completed_statuses: Collection[str],
        reset_statuses: Collection[str],
        value: Literal["batch", "estimated"],
        value_range: tuple[float, float],
        minimum_interval_seconds: float,
        throttle_percent: float,
        timer: Callable[[], float],
    ) -> None:
        self._table = table
        self._terminal = frozenset(terminal_statuses)
        self._completed = frozenset(completed_statuses)
        self._reset = tuple(reset_statuses)
        self._value = value
        self._low, self._high = value_range
        self._interval_seconds = minimum_interval_seconds
        self._throttle_percent = throttle_percent
        self._timer = timer
        self._written: dict[BeamKey, _Written] = {}
        self._due: dict[BeamKey, _Written] = {}
        self._generation = table.generation
        self._next_at = float("-inf")
        self._backoff = Backoff(*_BACKOFF_SECONDS)
        self._wall_offset_seconds = 0.0
        self._other_writer: BeamKey | None = None
        self._others = OtherWriter(value_range)
        self.advice = ""

    @property
    def pending(self) -> int:
        """Number of updates that wait."""
        return len(self._due)

    @property
    def due_at(self) -> float:
        """Earliest time of the next transaction, on the clock of :meth:`flush`."""
        return self._next_at

    def pop_other_writer(self) -> BeamKey | None:
        """Return a beam whose value another program writes on another scale, once; see :attr:`advice`."""
        key, self._other_writer = self._other_writer, None
        return key

    def update(self, snapshot: StoreSnapshot) -> None:
        """Find the updates that are due.

        Args:
            snapshot: the current state of all beams.
        """
        self._wall_offset_seconds = snapshot.wall_offset_seconds
        if self._table.generation != self._generation:
            # Another table is in its place, which does not hold what we wrote.
            self._generation = self._table.generation
            self._written.clear()
        for view in snapshot.beams:
            # A row from the saved state may belong to the next run by now.
            if view.row.status is not None and view.key not in snapshot.rows_from_restart:
                written = self._written.get(view.key)
                if written is not None and _was_read_after(written, view.row):
                    if _is_lost(written, view.row, self._wall_offset_seconds, self._completed):
                        del self._written[view.key]
                        written = None
                    else:
                        self._watch_for_others(view, written)
                self._consider(view, written)
        shown = {view.key for view in snapshot.beams}
        for key in self._written.keys() - shown:
            if key not in self._due:
                del self._written[key]

    def _consider(self, view: BeamView, written: _Written | None) -> None:
        update = self._next(view, written)
        if update is None:
            return
        kind, percent = update
        waiting = self._due.get(view.key)
        if waiting is not None and waiting.update.kind == "lower" and kind == "raise":
            # The pending update may lower the row and was not written yet, so the newer value may, too.
            kind = "lower"
        value = round(self._low + (self._high - self._low) * percent / 100.0, 2)
        # A row that is reset in the meantime belongs to the next run, so this value must not be written.
        unless = () if view.row.status in self._reset else self._reset
        self._due[view.key] = _Written(
            percent,
            ProgressUpdate(view.key.beam_id, value, kind, unless),
            view.run_number,
            view.announcements,
            view.log_seen_growing,
            view.row.updated_at,
            view.row.status,
            stamps_before=_stamps_before(view, written),
        )

    def _next(self, view: BeamView, written: _Written | None) -> tuple[UpdateKind, float] | None:
        """Return the kind of update and the percentage to write now; ``None`` for nothing."""
        if view.state is BeamState.WAITING or view.started_at is None:
            # There is no current run. A pending value is of the previous one, and the row may be reset by now.
            self._due.pop(view.key, None)
            return None
        if view.row.status in self._terminal:
            return self._completing(view, written)
        ended = view.state in ENDED_STATES
        ratio = view.progress_ratio if self._value == "batch" else view.estimated_ratio
        percent = 100.0 if view.log_succeeded else round(100.0 * ratio, 2)
        if view.output in _WITHOUT_DOSE:
            percent = min(percent, _HIGHEST_WITHOUT_DOSE)
        if not math.isfinite(percent):
            return None  # one bad beam must not block the others of its transaction
        if written is None:
            # A retry may have started and ended before the first write of this process, and the row holds an old value.
            lowering = view.run_number > 1 if ended else view.log_seen_growing
            if not (lowering or ended or view.batches_total is not None):
                return None
            return "lower" if lowering else "raise", percent
        if view.run_number != written.run_number or (view.log_seen_growing and not written.grew and not ended):
            return "lower", percent
        refused = written.update.kind == "lower" and not written.accepted
        if refused and not ended and view.row.updated_at != written.row_updated_at:
            return "lower", percent  # the row had changed after it was read
        if view.announcements != written.announcements and percent < written.percent:
            return "lower", percent
        change = percent - written.percent
        return ("raise", percent) if change > 0 and (ended or change >= self._throttle_percent) else None

    def _completing(self, view: BeamView, written: _Written | None) -> tuple[UpdateKind, float] | None:
        """Return the update for a terminal row: only a success in the log may raise a completed row to 100 %."""
        self._due.pop(view.key, None)
        # Done means: 100 % was written for this very run. A refusal counts only if the row has not changed since.
        done = (
            written is not None
            and written.run_number == view.run_number
            and written.percent == 100.0
            and (
                written.accepted
                or (written.update.kind == "complete" and written.row_updated_at == view.row.updated_at)
            )
        )
        return ("complete", 100.0) if view.row.status in self._completed and view.log_succeeded and not done else None

    def _watch_for_others(self, view: BeamView, written: _Written) -> None:
        progress = view.row.progress
        if not progress or progress >= _COMMUNICATORS_END or view.row.status in self._terminal:
            return  # these values are the same on every scale
        if written.ours is None or abs(progress - written.ours) <= _EQUAL_WITHIN:
            return
        advice = self._others.observe(progress, view.batch_current, view.batches_total)
        if advice is not None:
            self._other_writer, self.advice = view.key, advice

    def flush(self, at: float, *, now: bool = False) -> FlushResult:
        """Write the updates that are due, unless the last transaction was too recent.

        Args:
            at: the present instant.
            now: write in any case (at shutdown).
        """
        outcomes: Counter[str] = Counter()
        seconds: list[float] = []
        if not self._due or (at < self._next_at and not now):
            return FlushResult(outcomes, (), len(self._due), None)
        self._next_at = at + self._interval_seconds
        keys = list(self._due)
        for start in range(0, len(keys), ROWS_PER_TRANSACTION):
            some = keys[start : start + ROWS_PER_TRANSACTION]
            began = self._timer()
            try:
                result = self._table.write([self._due[key].update for key in some])
            except DatabaseUnavailable as error:
                outcomes["failed"] += len(some)
                self._next_at = at + self._backoff.next_pause()
                return FlushResult(outcomes, tuple(seconds), len(self._due), error)
            seconds.append(self._timer() - began)
            for key in some:
                if self._due[key].update.beam_id in result.locked:
                    outcomes["failed"] += 1  # it stays due
                    continue
                written = self._due.pop(key)
                written.accepted = written.update.beam_id in result.written
                written.wall_offset_seconds = self._wall_offset_seconds
                before = self._written.get(key)
                if written.accepted:
                    written.ours, written.ours_at = written.update.value, at
                elif before is not None and before.run_number == written.run_number:
                    written.ours, written.ours_at = before.ours, before.ours_at
                outcomes["written" if written.accepted else "refused"] += 1
                self._written[key] = written
        self._backoff.reset()
        return FlushResult(outcomes, tuple(seconds), len(self._due), None)


def _was_read_after(written: _Written, row: BeamRow) -> bool:
    """Whether the row was read after our last write."""
    return written.ours_at + _VISIBLE_AFTER_SECONDS < row.read_at


def _stamps_before(view: BeamView, written: _Written | None) -> tuple[float, ...]:
    """Return the last time stamps that the row has had in this run."""
    before = written.stamps_before if written is not None and written.run_number == view.run_number else ()
    now = view.row.updated_at
    return before if now is None or now in before else (*before[-_STAMPS_KEPT:], now)


def _is_lost(written: _Written, row: BeamRow, wall_offset_seconds: float, completed: Collection[str]) -> bool:
    """Whether the row no longer holds our last value because the database was restored from a backup.

    Every write changes ``updated_at``. So a lower value with a time stamp from before our write comes from a backup. An
    older time stamp proves nothing if the clock was set back meanwhile, unless the row once had that very time stamp.
    Nobody lowers a completed row, so there a lower value is proof enough.
    """
    if not written.accepted or (row.progress or 0.0) >= written.update.value - _EQUAL_WITHIN:
        return False
    if row.status in completed:
        return True
    if row.updated_at is None or row.status != written.row_status:
        return False
    newest = max(written.stamps_before, default=None)
    older = newest is not None and row.updated_at < newest and wall_offset_seconds >= written.wall_offset_seconds
    return older or row.updated_at in written.stamps_before
