"""The evidence about one beam, and the rules by which the exporter judged it."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.attribution import LogAttribution, RowKnowledge
from exporter.beams.beam import Beam
from exporter.beams.decisions import Rule
from exporter.beams.snapshot import BeamView
from exporter.beams.state_rules import Condition
from exporter.process.clock import Timeline


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a beam is in its state. Times are wall-clock times, UTC epoch seconds.

    Args:
        view: the beam.
        rule: the rule that gave its state.
        valid_until: when time alone may change the state; ``None`` if it does not.
        log: which run the log belongs to; ``log_rule``: the rule that decided it.
        log_read_bytes: how much of the log has been read; ``more_to_read``: whether unread bytes are left.
        log_last_growth_at: when the log was last seen to grow in the current run; ``None`` without a run.
        row_knowledge: whether the row was read after the current run was first seen.
        row_rule: the last decision about a change of the row; ``None`` if it never changed in this process.
        row_read_at: when the row was read.
        row_from_restart: the row was read by the exporter before its last restart.
        resumed: the beam is shown as before a restart; its log has not been read since.
    """

    view: BeamView
    rule: Rule
    valid_until: float | None
    log: LogAttribution
    log_rule: Rule
    log_read_bytes: int
    more_to_read: bool
    log_last_growth_at: float | None
    row_knowledge: RowKnowledge
    row_rule: Rule | None
    row_read_at: float
    row_from_restart: bool
    resumed: bool


def explain_beam(
    beam: Beam, view: BeamView, condition: Condition, timeline: Timeline, *, row_from_restart: bool, resumed: bool
) -> Explanation:
    """Collect the evidence about a beam.

    Args:
        beam: the beam.
        view: what readers are shown of it.
        condition: how it was judged.
        timeline: converts instants to wall-clock times.
        row_from_restart: the row was read by the exporter before its last restart.
        resumed: the beam is shown as before a restart; its log has not been read since.
    """
    grown_at = beam.run.last_growth_at
    finite = condition.valid_until < float("inf")
    return Explanation(
        view=view,
        rule=condition.rule,
        valid_until=timeline.to_wall(condition.valid_until) if finite and not resumed else None,
        log=beam.log,
        log_rule=beam.log_rule,
        log_read_bytes=0 if beam.checkpoint is None else beam.checkpoint.log.offset,
        more_to_read=beam.more_to_read,
        log_last_growth_at=None if grown_at is None else timeline.to_wall(grown_at),
        row_knowledge=beam.row_knowledge,
        row_rule=beam.row_rule,
        row_read_at=timeline.to_wall(beam.row.read_at),
        row_from_restart=row_from_restart,
        resumed=resumed,
    )
