"""Applies what a log says to its beam, and decides by its date which run it belongs to."""

from __future__ import annotations

from dataclasses import replace

from exporter.beams.attribution import (
    RESTAMPED_SECONDS,
    ROW_TIME_TOLERANCE_SECONDS,
    FirstRead,
    LogAttribution,
    LogNews,
    RowPhase,
    row_phase,
)
from exporter.beams.beam import Beam
from exporter.beams.output import OutputCheck
from exporter.beams.rules import StatusRules
from exporter.beams.run import BeamRun
from exporter.logs.events import Event, LogRead, LogReplaced, RunHead
from exporter.process.clock import UNSET_CLOCK, Timeline


def apply_events(
    beam: Beam,
    events: list[Event],
    at: float,
    *,
    read_at: float,
    more: bool,
    statuses: StatusRules,
    timeline: Timeline = UNSET_CLOCK,
    polled_at: float | None = None,
) -> bool:
    """Apply the events of one read of the log.

    Args:
        beam: the beam.
        events: the events.
        at: when the bytes were written.
        read_at: when it was read.
        more: unread bytes are left.
        statuses: the configured meaning of each status.
        timeline: converts time stamps of files.
        polled_at: when the previous poll began, which did not see these bytes; ``None`` without one.

    Returns:
        Whether a new run has begun.
    """
    beam.invalidate()
    beam.more_to_read = more
    if beam.clock_steps != timeline.clock_steps:
        beam.first_read = None
    if beam.first_read is not None and events:
        sizes = {event.size_bytes if isinstance(event, LogRead) else None for event in events}
        if sizes == {beam.first_read.size_bytes}:
            return _restamped(beam, beam.first_read, read_at, statuses, timeline)
        beam.first_read = None
    if beam.log.of_previous_run:
        events = _of_current_run(beam, events, at, statuses)
        if not events:
            return False
        beam.note_log(LogNews.NEW_RUN, at)
        beam.provisional_run = None
    began, unmet = False, beam.run.started_at is None
    live = any(isinstance(event, LogRead) and event.live for event in events)
    for event in events:
        began |= _apply_event(beam, event, at, read_at, live=live)
    if live and not beam.run.ended:
        beam.log_seen_growing = True
    if beam.log is LogAttribution.UNREAD and not more:
        _attribute_first_read(beam, events, at, read_at, polled_at, statuses, timeline, live=live)
    if began or (unmet and beam.run.started_at is not None):
        beam.output = OutputCheck(run_after=polled_at)
    if beam.run.succeeded and beam.stat is not None:
        beam.output = beam.output.with_log_time(beam.stat.modified_at, timeline.to_wall(at))
    return began


def _apply_event(beam: Beam, event: Event, at: float, read_at: float, *, live: bool) -> bool:
    """Apply one event; returns whether a new run has begun with it."""
    run, undecided = beam.run, beam.run_sequence.undecided
    began = beam.run_sequence.apply(event, at, first_poll=beam.log is LogAttribution.UNREAD and not live)
    if beam.run is not run:
        beam.shown_ratio, beam.shown_announcements = 0.0, 0
    if began:
        beam.forget_run(at)
        beam.meet_run(read_at)
        beam.note_log(LogNews.NEW_RUN, at)
    elif beam.run_sequence.undecided and isinstance(event, LogReplaced):
        beam.note_log(LogNews.REPLACED, at)
    elif undecided and not beam.run_sequence.undecided:
        beam.note_log(LogNews.SAME_RUN, at)
    return began


def _attribute_first_read(
    beam: Beam,
    events: list[Event],
    at: float,
    read_at: float,
    polled_at: float | None,
    statuses: StatusRules,
    timeline: Timeline,
    *,
    live: bool,
) -> None:
    """Attribute a log that has been read to its end for the first time."""
    clock_was_set, beam.clock_steps = beam.clock_steps != timeline.clock_steps, timeline.clock_steps
    if live or beam.stat is None:
        # A log that appeared while it was watched belongs to the current run, whatever its time stamp.
        beam.note_log(LogNews.READ_LIVE, at)
        return
    size_bytes = sum(event.size_bytes for event in events if isinstance(event, LogRead))
    row_updated_at = None if clock_was_set else _row_to_compare(beam, statuses)
    first = FirstRead(beam.stat.modified_at, at, read_at, polled_at, row_updated_at, size_bytes)
    # Nobody knows whether the log was written before the clock was set or after it: its date stays.
    beam.first_read = None if clock_was_set else first
    older = beam.run.ended and first.predates_row
    beam.note_log(
        LogNews.READ_OLDER if older else LogNews.READ_NOT_OLDER,
        at,
        row_newer_by_seconds=first.row_newer_by_seconds,
        run_ended=beam.run.ended,
    )
    if older:
        beam.provisional_run, beam.run_sequence.run = beam.run, BeamRun()
        beam.forget_run(at)


def _of_current_run(beam: Beam, events: list[Event], at: float, statuses: StatusRules) -> list[Event]:
    """Return the events of the current run in a read of a log of the previous run.

    There are none until the log is replaced, or an engine's head follows. A log that only grows may have been replaced
    by one that begins with the same bytes. So if it grows after the row said that the engine runs, it is read again.
    """
    for number, event in enumerate(events):
        if isinstance(event, LogReplaced | RunHead):
            return events[number:]
    runs_since = beam.row_written_at if beam.row.status in statuses.simulating else None
    later = runs_since is not None and at > runs_since + ROW_TIME_TOLERANCE_SECONDS
    if later and any(not isinstance(event, LogRead) for event in events):
        beam.note_log(LogNews.GREW_UNDER_RUNNING_ROW, at)
    return []


def _row_to_compare(beam: Beam, statuses: StatusRules) -> float | None:
    """When the row was written that the log is compared with; ``None`` where the two cannot be compared.

    A row dated after it was read shows that a clock was set while no exporter ran: the log may be from before.
    """
    written_at = beam.row_written_at
    if written_at is None or not _may_run(beam, statuses):
        return None
    return None if written_at > beam.row.read_at + ROW_TIME_TOLERANCE_SECONDS else written_at


def _restamped(beam: Beam, first: FirstRead, read_at: float, statuses: StatusRules, timeline: Timeline) -> bool:
    """Handle a read that found the same bytes as the first read, perhaps with another date: attribute the log again."""
    soon = read_at - first.read_at <= RESTAMPED_SECONDS
    if beam.stat is None or beam.stat.modified_at == first.modified_at or not soon:
        return False
    again = replace(first, modified_at=beam.stat.modified_at)
    return _attribute_again(beam, first, again.dated(beam.clock_offset_seconds or 0.0, timeline), statuses)


def _may_run(beam: Beam, statuses: StatusRules) -> bool:
    """Whether the row has a status that does not mean that the engine is done."""
    phase = row_phase(beam.row.status, statuses)
    return phase not in (RowPhase.NONE, RowPhase.TERMINAL, RowPhase.POST_RUN)


def correct_dates(
    beam: Beam, clock_offset_seconds: float, statuses: StatusRules, timeline: Timeline = UNSET_CLOCK
) -> bool:
    """Apply a corrected clock offset of the log's source.

    A log that has not changed since its first read is dated again, and attributed again to this run or the one
    before.

    Args:
        beam: the beam.
        clock_offset_seconds: how much later the source's files are dated than our clock says.
        statuses: the configured meaning of each status.
        timeline: converts time stamps of files.

    Returns:
        Whether a new run has begun: the log was attributed to this run, and belongs to the one before.
    """
    beam.invalidate()
    beam.clock_offset_seconds = clock_offset_seconds
    beam.output = beam.output.with_clock_offset(clock_offset_seconds)
    if beam.stat is not None:
        beam.log_modified_at = timeline.from_wall(beam.stat.modified_at - clock_offset_seconds)
    if beam.clock_steps != timeline.clock_steps:
        beam.first_read = None
    if beam.first_read is None:
        return False
    return _attribute_again(beam, beam.first_read, beam.first_read.dated(clock_offset_seconds, timeline), statuses)


def _attribute_again(beam: Beam, before: FirstRead, first: FirstRead, statuses: StatusRules) -> bool:
    """Date and attribute the log again; see :meth:`correct_dates`."""
    beam.first_read = first
    for run in (beam.run, beam.provisional_run):
        if run is not None:
            run.correct_timestamps(before.dated_at, first.dated_at)
    facts = {"row_newer_by_seconds": first.row_newer_by_seconds}
    if beam.provisional_run is not None and not first.predates_row:
        beam.note_log(LogNews.DATE_NOT_OLDER, first.read_at, **facts)
        beam.run_sequence.run, beam.provisional_run = beam.provisional_run, None
    elif beam.provisional_run is None and beam.run.ended and first.predates_row and _may_run(beam, statuses):
        beam.note_log(LogNews.DATE_OLDER, first.read_at, **facts)
        run = beam.run
        beam.run_sequence.start_run()
        beam.provisional_run = run
        beam.forget_run(first.read_at)
        return True
    return False


def reclaim_log(beam: Beam, statuses: StatusRules, at: float) -> None:
    """Attribute a log of the previous run to the current run, if the row says that the run was completed.

    Call it only if the source was polled after the row became terminal: then no newer log exists.

    Args:
        beam: the beam.
        statuses: the configured meaning of each status.
        at: now.
    """
    if beam.provisional_run is not None and beam.row.status in statuses.completed:
        beam.invalidate()
        beam.note_log(LogNews.ROW_COMPLETED, at)
        beam.run_sequence.run, beam.provisional_run = beam.provisional_run, None
