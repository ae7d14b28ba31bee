"""Decides which of several logs of a beam is followed."""

from __future__ import annotations

from exporter.beams.attribution import LogNews
from exporter.beams.beam import Beam
from exporter.beams.decisions import Rule
from exporter.beams.rules import StatusRules
from exporter.sources.source import LogStat

_NEWER_LOG_SECONDS = 10.0
"""A second log of a beam takes over when it is newer by this much; less may be the same file seen over the network."""


def decide_claim(
    beam: Beam,
    source: str,
    path: str,
    stat: LogStat,
    at: float,
    statuses: StatusRules,
    *,
    modified_at: float,
    path_moved: bool = False,
    written: bool = False,
    clock_offset_seconds: float | None = None,
) -> bool:
    """Decide whether to follow a log that was found for this beam.

    The log that is followed already stays so. Another takes over when it is clearly newer, and not a copy.

    Args:
        beam: the beam.
        source, path, stat: the log.
        at: now.
        statuses: the configured meaning of each status.
        modified_at: when the log was last written, by its time stamp.
        path_moved: the row names another path than that of the followed log.
        written: it appeared or grew since the last poll.
        clock_offset_seconds: how much later the source's files are dated than our clock says; ``None`` while that
            is not known.

    Returns:
        Whether it is the log to follow.
    """
    if beam.source == source and beam.path == path:
        if beam.stat != stat:
            beam.invalidate()
            beam.stat, beam.log_modified_at = stat, modified_at
        return True
    rule = Rule.FIRST_LOG
    if beam.stat is not None and beam.log_modified_at is not None:
        same_clock = source == beam.source
        comparable = same_clock or None not in (clock_offset_seconds, beam.clock_offset_seconds)
        outlived = written and not comparable and _followed_log_is_silent(beam, at)
        newer_by = stat.modified_at - beam.stat.modified_at if same_clock else modified_at - beam.log_modified_at
        if not comparable and beam.run.last_growth_at is not None:
            newer_by = min(newer_by, modified_at - beam.run.last_growth_at)
        if not outlived and newer_by <= (0.0 if path_moved else _NEWER_LOG_SECONDS):
            return False
        if _is_copy(beam, path, stat, statuses):
            return False
        rule = Rule.LOG_STILL_WRITTEN if outlived else Rule.LOG_AT_NEW_PATH if path_moved else Rule.NEWER_LOG
    beam.invalidate()
    newer_by_seconds = None if beam.log_modified_at is None else modified_at - beam.log_modified_at
    beam.decide(rule, at, size_bytes=stat.size_bytes, newer_by_seconds=newer_by_seconds)
    beam.source, beam.path, beam.stat, beam.recent, beam.checkpoint = source, path, stat, b"", None
    beam.clock_offset_seconds, beam.log_modified_at = clock_offset_seconds, modified_at
    beam.note_log(LogNews.CLAIMED, at)
    beam.provisional_run = beam.first_read = None
    if beam.run.started_at is not None:
        beam.run_sequence.start_run()
        beam.forget_run(at)
        beam.meet_run(at)
    return True


def _followed_log_is_silent(beam: Beam, at: float) -> bool:
    """Whether the log that is followed has not grown for a while, by our own clock."""
    grown_at = beam.run.last_growth_at
    return not (beam.log_seen_growing and grown_at is not None and at - grown_at <= _NEWER_LOG_SECONDS)


def _is_copy(beam: Beam, path: str, stat: LogStat, statuses: StatusRules) -> bool:
    """Whether another log seems to be a copy of the followed one, made after the run: it is as long, or does not grow.

    The communicator resets the row before it starts a new run; but that row may not have been read yet.
    """
    if not (beam.log_seen_growing and beam.run.ended and beam.row.status in statuses.post_run | statuses.terminal):
        return False
    if beam.copy_candidate is None or beam.copy_candidate[0] != path:
        beam.copy_candidate = path, stat
    first = beam.copy_candidate[1]
    grows = stat.size_bytes != first.size_bytes and stat.modified_at > first.modified_at + _NEWER_LOG_SECONDS
    return not grows or (beam.stat is not None and stat.size_bytes == beam.stat.size_bytes)
