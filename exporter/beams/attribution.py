"""Decides which run a log and a row belong to. Tables and pure functions; no clock, no I/O.

Row and log are read by two threads, so one may speak of another run than the other. Three tables decide:

- :data:`ROW_CHANGES`: (status before, status now) -> what kind of change of the row this is.
- :data:`ROW_DECISIONS`: (change of the row, what the log shows) -> whether a new run begins, and the rule for it.
- :data:`LOG_DECISIONS`: (attribution of the log, what happened) -> its attribution from now on, and the rule for it.

``docs/developer/attribution.md`` shows the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from exporter.beams.decisions import Rule
from exporter.beams.rules import StatusRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import BeamRow
from exporter.process.clock import Timeline

RESTAMPED_SECONDS = 60.0
"""A time stamp that changes this soon after a write, without other changes, is the time of that write: programs that
copy logs may date them afterwards, and network file systems may show a new size before the new time."""

ROW_TIME_TOLERANCE_SECONDS = 2.0
"""A row's time stamp has whole seconds, and it may be written shortly after the log."""


class LogAttribution(str, Enum):
    """Which run a beam's log belongs to."""

    NONE = "none"  # no log has been found
    UNREAD = "unread"  # it has not been read to its end yet
    CURRENT = "current"
    PREVIOUS = "previous"  # the run before; nothing of it is shown
    PREVIOUS_BY_DATE = "previous_by_date"  # the same, known only from its date; its run is kept as provisional
    PREVIOUS_REREAD = (
        "previous_reread"  # it was attributed to the previous run, and must be read again from its beginning
    )
    UNDECIDED = "undecided"  # it was replaced, and no line has shown yet whether a new run has begun

    __hash__ = str.__hash__

    @property
    def of_previous_run(self) -> bool:
        """Whether the log belongs to the previous run: then nothing of it is shown."""
        return self in _PREVIOUS


_PREVIOUS = (LogAttribution.PREVIOUS, LogAttribution.PREVIOUS_BY_DATE, LogAttribution.PREVIOUS_REREAD)


class RowKnowledge(str, Enum):
    """Whether a beam's row was read late enough to tell about its current run."""

    CURRENT = "current"  # it was read since the run was first seen
    OLDER_THAN_RUN = "older_than_run"  # it was read before the run was first seen

    __hash__ = str.__hash__

    @property
    def knows_run(self) -> bool:
        """Whether the row was read after the current run was first seen."""
        return self is RowKnowledge.CURRENT


class RowPhase(str, Enum):
    """What the status of a row means (``discovery`` in the configuration)."""

    NONE = "none"  # a beam found by file name, or a row without a status
    RESET = "reset"  # reset_statuses: the run has not been started
    ACTIVE = "active"  # any other status that is not terminal
    SIMULATING = "simulating"  # simulating_statuses
    POST_RUN = "post_run"  # post_run_statuses
    TERMINAL = "terminal"  # terminal_statuses

    __hash__ = str.__hash__


class RowChange(str, Enum):
    """A change of a row that may begin a new run."""

    NONE = "none"  # it never does
    PUT_BACK = "put_back"  # from a status that a run has reached to a reset one
    REVIVED = "revived"  # from a terminal status to an open one
    EMPTIED = "emptied"  # the progress was set back to 0, with the reset or while it waits
    EMPTIED_RUNNING = "emptied_running"  # the progress was set back to 0 while the row says that the engine runs

    __hash__ = str.__hash__


class LogEvidence(str, Enum):
    """What the log shows at a change of the row: whether its run has ended, and whether it was written since."""

    OPEN_OLDER = "open_older"
    OPEN_NEWER = "open_newer"
    ENDED_OLDER = "ended_older"
    ENDED_NEWER = "ended_newer"

    __hash__ = str.__hash__


class LogNews(str, Enum):
    """Something that may change the attribution of a log."""

    CLAIMED = "claimed"  # another log is followed from now on
    READ_LIVE = "read_live"  # it was read to its end, and appeared or grew while watched
    READ_NOT_OLDER = "read_not_older"  # it was read to its end, and its run is open or not older than the row
    READ_OLDER = "read_older"  # it was read to its end; its run ended before the row was last changed
    REPLACED = "replaced"  # it no longer holds the bytes that were read; a run was known
    NEW_RUN = "new_run"  # a line shows a new run: an engine's head, or the first lines of a log that was replaced
    SAME_RUN = "same_run"  # a line shows that the log was only rotated
    GREW_UNDER_RUNNING_ROW = "grew_under_running_row"  # new lines, after the row said that the engine runs
    ROW_BEGAN_RUN = "row_began_run"  # the row was reset
    DATE_OLDER = "date_older"  # by its corrected date its run ended before the row was last changed
    DATE_NOT_OLDER = "date_not_older"  # by its corrected date it did not
    ROW_COMPLETED = "row_completed"  # the row says completed, and the source was polled since

    __hash__ = str.__hash__


_P = RowPhase
ROW_CHANGES: Mapping[tuple[RowPhase, RowPhase], RowChange] = {
    **{(before, _P.RESET): RowChange.PUT_BACK for before in (_P.SIMULATING, _P.POST_RUN, _P.TERMINAL)},
    **{(_P.TERMINAL, now): RowChange.REVIVED for now in (_P.ACTIVE, _P.SIMULATING, _P.POST_RUN)},
    (_P.ACTIVE, _P.RESET): RowChange.EMPTIED,
    (_P.RESET, _P.RESET): RowChange.EMPTIED,
    (_P.SIMULATING, _P.SIMULATING): RowChange.EMPTIED_RUNNING,
}
"""(status before, status now) -> change. Pairs that are not here never begin a run. The two ``EMPTIED`` kinds need that
the progress was set back to 0 as well."""

_E = LogEvidence
ROW_DECISIONS: Mapping[tuple[RowChange, LogEvidence], Rule] = {
    (RowChange.PUT_BACK, _E.OPEN_OLDER): Rule.ROW_RESET,
    (RowChange.PUT_BACK, _E.OPEN_NEWER): Rule.ROW_OLDER_THAN_LOG,
    (RowChange.PUT_BACK, _E.ENDED_OLDER): Rule.ROW_RESET_AFTER_END,
    (RowChange.PUT_BACK, _E.ENDED_NEWER): Rule.ROW_RESET_AFTER_END,
    (RowChange.REVIVED, _E.OPEN_OLDER): Rule.ROW_REVIVED,
    (RowChange.REVIVED, _E.OPEN_NEWER): Rule.ROW_OLDER_THAN_LOG,
    (RowChange.REVIVED, _E.ENDED_OLDER): Rule.ROW_REVIVED,
    (RowChange.REVIVED, _E.ENDED_NEWER): Rule.ROW_OLDER_THAN_LOG,
    (RowChange.EMPTIED, _E.OPEN_OLDER): Rule.ROW_PROGRESS_EMPTIED,
    (RowChange.EMPTIED, _E.OPEN_NEWER): Rule.ROW_OLDER_THAN_LOG,
    (RowChange.EMPTIED, _E.ENDED_OLDER): Rule.ROW_PROGRESS_EMPTIED,
    (RowChange.EMPTIED, _E.ENDED_NEWER): Rule.ROW_OLDER_THAN_LOG,
    (RowChange.EMPTIED_RUNNING, _E.OPEN_OLDER): Rule.ROW_OF_SAME_RUN,
    (RowChange.EMPTIED_RUNNING, _E.OPEN_NEWER): Rule.ROW_OF_SAME_RUN,
    (RowChange.EMPTIED_RUNNING, _E.ENDED_OLDER): Rule.ROW_PROGRESS_EMPTIED,
    (RowChange.EMPTIED_RUNNING, _E.ENDED_NEWER): Rule.ROW_OLDER_THAN_LOG,
}
"""(change of the row, what the log shows) -> rule. :data:`NEW_RUN_RULES` are those by which a new run begins."""

NEW_RUN_RULES = frozenset({Rule.ROW_RESET, Rule.ROW_RESET_AFTER_END, Rule.ROW_REVIVED, Rule.ROW_PROGRESS_EMPTIED})

_L, _N = LogAttribution, LogNews
LOG_DECISIONS: Mapping[tuple[LogAttribution, LogNews], tuple[LogAttribution, Rule]] = {
    **{(each, _N.CLAIMED): (_L.UNREAD, Rule.LOG_NOT_READ) for each in LogAttribution},
    (_L.UNREAD, _N.READ_LIVE): (_L.CURRENT, Rule.LOG_WRITTEN_WHILE_WATCHED),
    (_L.UNREAD, _N.READ_NOT_OLDER): (_L.CURRENT, Rule.LOG_NOT_OLDER_THAN_ROW),
    (_L.UNREAD, _N.READ_OLDER): (_L.PREVIOUS_BY_DATE, Rule.LOG_OLDER_THAN_ROW),
    (_L.UNREAD, _N.NEW_RUN): (_L.UNREAD, Rule.LOG_NOT_READ),
    (_L.UNREAD, _N.REPLACED): (_L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.UNREAD, _N.ROW_BEGAN_RUN): (_L.PREVIOUS, Rule.LOG_OF_RUN_BEFORE_RESET),
    (_L.CURRENT, _N.NEW_RUN): (_L.CURRENT, Rule.LOG_RESTARTED),
    (_L.CURRENT, _N.REPLACED): (_L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.CURRENT, _N.ROW_BEGAN_RUN): (_L.PREVIOUS, Rule.LOG_OF_RUN_BEFORE_RESET),
    (_L.CURRENT, _N.DATE_OLDER): (_L.PREVIOUS_BY_DATE, Rule.LOG_OLDER_THAN_ROW),
    (_L.UNDECIDED, _N.REPLACED): (_L.UNDECIDED, Rule.LOG_REPLACED),
    (_L.UNDECIDED, _N.NEW_RUN): (_L.CURRENT, Rule.LOG_RESTARTED),
    (_L.UNDECIDED, _N.SAME_RUN): (_L.CURRENT, Rule.LOG_CONTINUES_AFTER_REPLACEMENT),
    (_L.UNDECIDED, _N.ROW_BEGAN_RUN): (_L.CURRENT, Rule.LOG_RESTARTED),
    **{(each, _N.NEW_RUN): (_L.CURRENT, Rule.LOG_RESTARTED) for each in _PREVIOUS},
    **{(each, _N.GREW_UNDER_RUNNING_ROW): (_L.PREVIOUS_REREAD, Rule.LOG_GROWS_UNDER_RUNNING_ROW) for each in _PREVIOUS},
    (_L.PREVIOUS_BY_DATE, _N.DATE_NOT_OLDER): (_L.CURRENT, Rule.LOG_NOT_OLDER_THAN_ROW),
    (_L.PREVIOUS_BY_DATE, _N.ROW_COMPLETED): (_L.CURRENT, Rule.ROW_COMPLETED_WITH_THIS_LOG),
    (_L.PREVIOUS_REREAD, _N.ROW_COMPLETED): (_L.CURRENT, Rule.ROW_COMPLETED_WITH_THIS_LOG),
}
"""(attribution, news) -> attribution and rule. Pairs that are not here cannot occur."""


def row_phase(status: str | None, statuses: StatusRules) -> RowPhase:
    """Return what a status means.

    Args:
        status: of the row; ``None`` without one.
        statuses: the configured meaning of each status.
    """
    if status is None:
        return RowPhase.NONE
    if status in statuses.terminal:
        return RowPhase.TERMINAL
    if status in statuses.reset:
        return RowPhase.RESET
    if status in statuses.simulating:
        return RowPhase.SIMULATING
    return RowPhase.POST_RUN if status in statuses.post_run else RowPhase.ACTIVE


def row_change(
    before: BeamRow, row: BeamRow, written_at: float | None, run: BeamRun, statuses: StatusRules
) -> RowChange:
    """Classify how a beam's row has changed since it was last read.

    Args:
        before: the row as it was read before.
        row: the row now.
        written_at: when it was written, by its own time stamp; ``None`` without one.
        run: the current run. An engine may run under a row that stays as it is, and the mirror itself writes 0 for a
            run that has just begun; it never does for one that got further.
        statuses: the configured meaning of each status.
    """
    now = row_phase(row.status, statuses)
    change = ROW_CHANGES.get((row_phase(before.status, statuses), now), RowChange.NONE)
    if change not in (RowChange.EMPTIED, RowChange.EMPTIED_RUNNING):
        return change
    emptied = row.progress == 0.0 and bool(before.progress)
    if not emptied:
        return RowChange.NONE
    if row.status != before.status:
        return change if change is RowChange.EMPTIED and before.status not in statuses.reset else RowChange.NONE
    if not run.batches.finished:
        return RowChange.NONE
    # A new copy of a database keeps the time stamps of its rows, which may be from before the clock was set back.
    written = written_at is not None and row.updated_at != before.updated_at and written_at <= row.read_at
    return change if change is RowChange.EMPTIED or written else RowChange.NONE


def log_evidence(row: BeamRow, written_at: float | None, run: BeamRun) -> LogEvidence:
    """What the log shows at a change of the row.

    Args:
        row: the row now.
        written_at: when it was written, by its own time stamp; ``None`` without one.
        run: the current run.
    """
    grown_at = run.last_growth_at
    newer = False
    if written_at is not None and grown_at is not None:
        # A row that is dated in the future was written before the clock was set back, so before it was read.
        newer = min(written_at, row.read_at) <= grown_at + ROW_TIME_TOLERANCE_SECONDS
    if run.ended:
        return LogEvidence.ENDED_NEWER if newer else LogEvidence.ENDED_OLDER
    return LogEvidence.OPEN_NEWER if newer else LogEvidence.OPEN_OLDER


def decide_row(change: RowChange, log: LogEvidence, knowledge: RowKnowledge) -> Rule:
    """Decide whether a change of a beam's row begins a new run.

    Args:
        change: what kind of change it is.
        log: whether the log's run has ended, and whether the log was written after the row.
        knowledge: whether the row, as it was read before, could know the current run.

    Returns:
        The rule that applies. A new run begins if it is one of :data:`NEW_RUN_RULES`.
    """
    if change is RowChange.NONE:
        return Rule.ROW_OF_SAME_RUN
    rule = ROW_DECISIONS[change, log]
    if rule is Rule.ROW_RESET_AFTER_END and not knowledge.knows_run:
        # The reset may be older than the run that has ended.
        return Rule.ROW_OLDER_THAN_LOG if log is LogEvidence.ENDED_NEWER else Rule.ROW_RESET
    return rule


@dataclass(slots=True)
class FirstRead:
    """Time stamps from the first read of a log that already existed at its first poll.

    The log was dated and attributed to a run by them. Both steps are repeated when the offset of its source's clock is
    learned. Treat it as immutable. It is not frozen, since that takes three times as long to make, and thousands of
    logs may exist at the start.

    Args:
        modified_at: modification time of the log, epoch seconds by the source's clock.
        dated_at: instant at which it was written, as far as known.
        read_at: instant at which it was read.
        earliest: instant before which it was not written; ``None`` while unknown.
        row_updated_at: instant at which the row was written; ``None`` if log and row cannot be compared.
        size_bytes: length of the log.
    """

    modified_at: float
    dated_at: float
    read_at: float
    earliest: float | None
    row_updated_at: float | None
    size_bytes: int

    @property
    def row_newer_by_seconds(self) -> float | None:
        """How much later the row was written than the log; ``None`` if they cannot be compared."""
        return None if self.row_updated_at is None else self.row_updated_at - self.dated_at

    @property
    def predates_row(self) -> bool:
        """Whether the log is older than the row's last update. Then it belongs to the previous run."""
        newer_by = self.row_newer_by_seconds
        return newer_by is not None and newer_by > ROW_TIME_TOLERANCE_SECONDS

    def dated(self, clock_offset_seconds: float, timeline: Timeline) -> FirstRead:
        """Return a copy that is dated with another clock offset.

        Args:
            clock_offset_seconds: how much later the source's files are dated than our clock says.
            timeline: converts time stamps of files.
        """
        dated_at = min(timeline.from_wall(self.modified_at - clock_offset_seconds), self.read_at)
        return replace(self, dated_at=dated_at if self.earliest is None else max(dated_at, self.earliest))
