"""Applies a row to a beam: it may begin a new run, by the tables of :mod:`exporter.beams.attribution`."""

from __future__ import annotations

from exporter.beams.attribution import (
    NEW_RUN_RULES,
    LogNews,
    RowKnowledge,
    RowPhase,
    decide_row,
    log_evidence,
    row_change,
    row_phase,
)
from exporter.beams.beam import Beam
from exporter.beams.decisions import Rule
from exporter.beams.rules import StatusRules
from exporter.beams.snapshot import BeamRow
from exporter.process.clock import UNSET_CLOCK, Timeline


def apply_row(beam: Beam, row: BeamRow, at: float, statuses: StatusRules, timeline: Timeline = UNSET_CLOCK) -> bool:
    """Apply a row that discovery has read.

    Args:
        beam: the beam.
        row: the row.
        at: when discovery began to read.
        statuses: the configured meaning of each status.
        timeline: converts the row's time stamp.

    Returns:
        Whether the row begins a new run.
    """
    before, beam.row_missing_since = beam.row, None
    knowledge, met_at = beam.row_knowledge, beam.run_met_at
    if met_at is not None and met_at <= at:
        beam.row_knowledge, beam.run_met_at = RowKnowledge.CURRENT, None
        beam.invalidate()
    if row is before:
        return False
    beam.row = row = row if row.key is before.key else before.read_again(row)
    if _same_content(row, before):
        return False
    beam.invalidate()
    if row.updated_at != before.updated_at:
        beam.row_written_at = None if row.updated_at is None else timeline.from_wall(row.updated_at)
    phase = row_phase(row.status, statuses)
    if phase is not RowPhase.TERMINAL:
        beam.row_terminal_since = None
    elif beam.row_terminal_since is None:
        beam.row_terminal_since = at
    if met_at is not None and (at < met_at or phase is not RowPhase.RESET):
        # The log already shows the run that such a row belongs to.
        rule = Rule.ROW_READ_BEFORE_RUN if at < met_at else Rule.ROW_OF_SAME_RUN
    else:
        change = row_change(before, row, beam.row_written_at, beam.run, statuses)
        rule = decide_row(change, log_evidence(row, beam.row_written_at, beam.run), knowledge)
    _decide_row(beam, rule, at, before)
    if rule not in NEW_RUN_RULES:
        return False
    began = beam.run.started_at is not None
    beam.first_read = None
    if began:
        beam.note_log(LogNews.ROW_BEGAN_RUN, at)
        beam.provisional_run = None
        beam.run_sequence.start_run(keep_undecided=True)
        beam.forget_run(at)
    beam.run_counted = False
    return began


def _decide_row(beam: Beam, rule: Rule, at: float, before: BeamRow) -> None:
    if rule is beam.row_rule and rule is Rule.ROW_OF_SAME_RUN:
        return
    beam.row_rule = rule
    written_at, grown_at = beam.row_written_at, beam.run.last_growth_at
    beam.decide(
        rule,
        at,
        status=beam.row.status,
        progress=beam.row.progress,
        progress_before=before.progress,
        row_knowledge=beam.row_knowledge.value,
        row_newer_by_seconds=None if written_at is None or grown_at is None else written_at - grown_at,
    )


def _same_content(row: BeamRow, before: BeamRow) -> bool:
    """Two reads of a row have found the same."""
    return (
        row.status == before.status
        and row.progress == before.progress
        and row.updated_at == before.updated_at
        and row.beam_path == before.beam_path
        and row.hpc_job_id == before.hpc_job_id
        and row.log_path == before.log_path
    )
