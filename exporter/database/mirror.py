"""The store's progress in the column ``progress``, which the communicator's screens show.

The mirror keeps the newest value of each beam until the database has taken it, so what waits is bounded by the beams
and nothing is lost while the database is locked, missing or full. It raises only, but for one lowering each when a new
run has begun, when an unfinished log is seen to grow for the first time (the leftover of an earlier run, or a coarse
40, stands in the row), and when a run announces further batches. What it has written it does not know after a restart:
then a retry that has ended may lower once more.
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
from exporter.database.beams_table import BeamsTable, ProgressUpdate, UpdateKind
from exporter.database.other_writer import OtherWriter
from exporter.database.unavailable import DatabaseUnavailable

ROWS_PER_TRANSACTION = 100
"""A transaction of so many rows holds the lock for about a millisecond (``docs/performance.md``)."""

OUTCOMES = ("written", "refused", "failed")
_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_SAME = 0.01
"""Ours is rounded twice, as percent and on the range; the communicator's ``X/Y*50+40`` is not rounded at all."""

_COMMUNICATORS_END = 100.0
"""What the communicator writes at a run's end, whatever its scale is before (facts on it, section 2)."""

_WITHOUT_DOSE = frozenset({OutputState.NOT_DUE, OutputState.PENDING, OutputState.BLOCKED, OutputState.MISSING})
_HIGHEST_WITHOUT_DOSE = 99.0
"""Where the dose file is looked for, 100 % is written when it has been found, and not while the last batch runs."""

_SEEN_AFTER_SECONDS = 2.0
"""A row read so long after a write shows it: the write itself may have waited for a lock."""


_STAMPS_KEPT = 15
"""Time stamps of a row that are remembered. A backup is of a moment of the current run, as a rule a recent one."""


@dataclass(slots=True)
class _Written:
    """What was given to the database last, and for which stage of which run.

    ``accepted`` is false where the row was over, gone, or as high already: then it holds something else.
    ``row_updated_at`` and ``row_status`` tell which row was known then. ``wall_offset_seconds`` is
    that of the snapshot. ``ours`` is the last value of this run that the row
    took, and ``ours_at`` when. ``stamps_before`` are the last time stamps of the row that were seen before the write.
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
    """What a round of writing has done.

    Args:
        outcomes: updates by outcome (:data:`OUTCOMES`).
        seconds: how long each transaction took.
        pending: updates that still wait.
        error: why nothing more could be written.
    """

    outcomes: Counter[str]
    seconds: tuple[float, ...]
    pending: int
    error: DatabaseUnavailable | None


class Mirror:
    """Writes progress; used by one thread.

    Args:
        table: the table.
        terminal_statuses: rows in these are not written.
        completed_statuses: those of them that mean success: one write may complete them.
        reset_statuses: those that a retry begins with: a row that is in one is not written unless that was known.
        value: which progress: ``batch`` (the plan's) or ``estimated``.
        value_range: what 0 and 100 % are written as.
        minimum_interval_seconds: between two rounds of writing.
        throttle_percent: smaller changes wait.
        timer: seconds of a clock that never steps, for the duration of writes.
    """

    def __init__(
        self,
        table: BeamsTable,
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
        self._failures = 0
        self._wall_offset_seconds = 0.0
        self._other_writer: BeamKey | None = None
        self._others = OtherWriter(value_range)
        self.advice = ""

    @property
    def pending(self) -> int:
        """Updates that wait."""
        return len(self._due)

    @property
    def due_at(self) -> float:
        """When the next round of writing may be, by the clock of :meth:`flush`."""
        return self._next_at

    def pop_other_writer(self) -> BeamKey | None:
        """A beam whose column somebody else changes on another scale, once; :attr:`advice` says what to do."""
        key, self._other_writer = self._other_writer, None
        return key

    def update(self, snapshot: StoreSnapshot) -> None:
        """Work out what is due.

        Args:
            snapshot: what the store shows.
        """
        self._wall_offset_seconds = snapshot.wall_offset_seconds
        if self._table.generation != self._generation:
            # Another file is at the path: what we wrote is not in it.
            self._generation = self._table.generation
            self._written.clear()
        for view in snapshot.beams:
            # A row that was read by an earlier process may be the next run's by now.
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
            # The lowering that waits has not been used up: the newer value takes its place.
            kind = "lower"
        value = round(self._low + (self._high - self._low) * percent / 100.0, 2)
        # A row that is reset between two looks is the next run's, of which this value says nothing.
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
        """What should be written of a beam now: how, and which value in percent."""
        if view.state is BeamState.WAITING or view.started_at is None:
            # Nothing is known of a current run: what still waits is of the one before, and its row may be reset by now.
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
            return None  # one bad beam must not hold up the others of its transaction
        if written is None:
            # A retry may have begun and ended before this process could write, over what the run before has left.
            lowering = view.run_number > 1 if ended else view.log_seen_growing
            if not (lowering or ended or view.batches_total is not None):
                return None
            return "lower" if lowering else "raise", percent
        if view.run_number != written.run_number or (view.log_seen_growing and not written.grew and not ended):
            return "lower", percent
        refused = written.update.kind == "lower" and not written.accepted
        if refused and not ended and view.row.updated_at != written.row_updated_at:
            return "lower", percent  # the row had become another since it was read
        if view.announcements != written.announcements and percent < written.percent:
            return "lower", percent
        change = percent - written.percent
        return ("raise", percent) if change > 0 and (ended or change >= self._throttle_percent) else None

    def _completing(self, view: BeamView, written: _Written | None) -> tuple[UpdateKind, float] | None:
        """The row is over: all that may come is the one write that completes a run which the log says succeeded."""
        self._due.pop(view.key, None)
        # A retry may begin and succeed between two looks: what was written of the run before says nothing of it.
        # Nor does a refusal while its row was still known as the run before had left it.
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
            return  # a reset, or the end, which the communicator writes on every scale
        if written.ours is None or abs(progress - written.ours) <= _SAME:
            return
        advice = self._others.observe(progress, view.batch_current, view.batches_total)
        if advice is not None:
            self._other_writer, self.advice = view.key, advice

    def flush(self, at: float, *, now: bool = False) -> FlushResult:
        """Write what is due, if the time has come.

        Args:
            at: the present instant.
            now: do not wait for the time (at the end).
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
                delay = min(_BACKOFF_SECONDS * 2**self._failures, _LONGEST_BACKOFF_SECONDS)
                self._failures = min(self._failures + 1, 10)
                self._next_at = at + delay
                return FlushResult(outcomes, tuple(seconds), len(self._due), error)
            seconds.append(self._timer() - began)
            for key in some:
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
        self._failures = 0
        return FlushResult(outcomes, tuple(seconds), 0, None)


def _was_read_after(written: _Written, row: BeamRow) -> bool:
    """Whether the row was read after our last value was written into it."""
    return written.ours_at + _SEEN_AFTER_SECONDS < row.read_at


def _stamps_before(view: BeamView, written: _Written | None) -> tuple[float, ...]:
    """Time stamps that the row has had in this run, the last ones."""
    before = written.stamps_before if written is not None and written.run_number == view.run_number else ()
    now = view.row.updated_at
    return before if now is None or now in before else (*before[-_STAMPS_KEPT:], now)


def _is_lost(written: _Written, row: BeamRow, wall_offset_seconds: float, completed: Collection[str]) -> bool:
    """Whether our last value is not in the row any more: the database was restored from a backup.

    A lower value with a time stamp from before our write is from before: our write changed ``updated_at``, and so does
    whoever writes the row after us. An older time stamp proves nothing where the clock was set back since, but one that
    the row had does. A completed row is never lowered by anybody.
    """
    if not written.accepted or (row.progress or 0.0) >= written.update.value - _SAME:
        return False
    if row.status in completed:
        return True
    if row.updated_at is None or row.status != written.row_status:
        return False
    newest = max(written.stamps_before, default=None)
    older = newest is not None and row.updated_at < newest and wall_offset_seconds >= written.wall_offset_seconds
    return older or row.updated_at in written.stamps_before
