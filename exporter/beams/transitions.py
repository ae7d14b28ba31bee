"""How beams change as time passes: states are recorded, ended runs counted, old beams removed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.beams.beam import Beam
from exporter.beams.beam_reads import reclaim_log
from exporter.beams.counters import with_wall_times
from exporter.beams.output import checking_sources
from exporter.beams.retention import OVER_STATES, leaves_at, was_deleted
from exporter.beams.run import BeamRun
from exporter.beams.saved import can_be_saved
from exporter.beams.snapshot import ENDED_STATES, BeamEvent, BeamKey, BeamState, OutputState
from exporter.beams.state_rules import Condition, claimed_end, failure_reason, judge, row_decides
from exporter.beams.store_data import StoreData
from exporter.beams.views import condition_at, make_view, update_prior_rate

_SETTLE_SECONDS = 2.0
"""An ended run is counted so much later: the cause of a failure may follow its first symptom in the next read."""
_SETTLE_BY_ROW_SECONDS = 10.0
_LATE_BATCHES = 2.0
"""The communicator fails all beams of a case when one has failed. An engine that still runs shows it with its next
batch, which may take twice as long as the longest before."""


@dataclass(slots=True)
class RunBefore:
    """The current run, kept before a change that may begin a new one; see :func:`start_run`.

    Attributes:
        run, number: the run.
        counted: whether it was counted.
        output: whether its dose file was there.
    """

    run: BeamRun
    number: int
    counted: bool
    output: OutputState

    @classmethod
    def of(cls, data: StoreData, beam: Beam) -> RunBefore:
        """Return the present run of a beam."""
        return cls(beam.run, beam.run_sequence.number, beam.run_counted, data.output_state(beam))


def start_run(data: StoreData, beam: Beam, before: RunBefore) -> None:
    """Record that a new run has replaced the previous one: count the previous run, and report the new one.

    Args:
        data: the store's data.
        beam: the beam, which has the new run already.
        before: the run that was replaced.
    """
    data.mark_changed(beam.row.key)
    run = before.run
    if run.ended and not before.counted:
        # No dose file is searched for any more: one that was not found by now was not written.
        missing = run.succeeded and (before.output.undecided or before.output is OutputState.MISSING)
        reason = "output_missing" if missing else run.reason
        _count_run(data, beam, run, before.number, "succeeded" if reason is None else "failed", reason)
    # The recorded state is still that of the run before; a view with it would show the new run in that state.
    condition = judge_and_record(data, beam, beam.waiting_since)
    view = make_view(beam, condition, beam.waiting_since, data.rules, data.timeline)
    data.events.append(BeamEvent("new_run", view, number=beam.run_sequence.number))


def judge_and_record(data: StoreData, beam: Beam, at: float) -> Condition:
    """Record the state of a beam at an instant, and add an event if it has changed."""
    beam.invalidate()
    condition = judge(beam.evidence(data.rules, data.source_of(beam)), at)
    _record(data, beam, condition, at)
    return condition


def advance_beam(data: StoreData, beam: Beam, at: float) -> None:
    """Let time pass for a beam: reclaim its log, start or end its output check, and record its state."""
    rules, source = data.rules, data.source_of(beam)
    if beam.provisional_run is not None and row_decides(beam.evidence(rules, source), BeamState.SUCCEEDED, at):
        reclaim_log(beam, rules.statuses, at)
        data.mark_changed(beam.row.key)
    update_output_check(data, beam, at)
    _update_prior_rate(data, beam, at)
    cached = condition_at(beam, at, rules, source)
    cached.recorded, cached.rates_version = True, data.counters.rates_version
    _record(data, beam, cached.condition, at)
    data.collect_decisions(beam)


def _update_prior_rate(data: StoreData, beam: Beam, at: float) -> None:
    before = beam.prior_rate
    update_prior_rate(beam, at, data.counters.rates)
    if beam.prior_rate != before:
        data.mark_changed(beam.row.key)


def _record(data: StoreData, beam: Beam, condition: Condition, at: float) -> None:
    if (condition.state, condition.since) != (beam.state, beam.state_since):
        data.mark_changed(beam.row.key)
    before, beam.state, beam.state_since = beam.state, condition.state, condition.since
    if condition.state is not before:
        _decide_state(data, beam, condition, before, at)
        view = make_view(beam, condition, at, data.rules, data.timeline)
        data.events.append(BeamEvent(condition.state.value, view, before))


def _decide_state(data: StoreData, beam: Beam, condition: Condition, before: BeamState, at: float) -> None:
    """Note by which rule and evidence the state changed."""
    run = beam.run
    progress_at = run.last_progress_at or run.last_growth_at or run.started_at
    beam.decide(
        condition.rule,
        at,
        state=condition.state.value,
        state_before=before.value,
        status=beam.row.status,
        row_knowledge=beam.row_knowledge.value,
        log=beam.log.value,
        output=data.output_state(beam).value,
        no_progress_seconds=None if progress_at is None else at - progress_at,
    )


def update_output_check(data: StoreData, beam: Beam, at: float) -> None:
    """Start the output check of a run that claims success; end it if the run does not any more."""
    rules = data.rules
    if not checking_sources(beam.source, rules.output_sources):
        return
    claim = claimed_end(beam.evidence(rules, data.source_of(beam)), at)
    before = beam.output
    if claim is not None and claim[0] is BeamState.SUCCEEDED:
        skip_before = at - rules.retention_seconds
        beam.output = before.claim(at, ended_at=claim[1], watched=_was_watched(beam), skip_before=skip_before)
    else:
        beam.output = before.withdraw()
    if beam.output is not before:
        beam.invalidate()
        data.mark_changed(beam.row.key)
        data.outputs_open.add(beam.row.key)


def _was_watched(beam: Beam) -> bool:
    """Whether the log was read before its run had ended."""
    run = beam.run
    if run.started_at is None:
        return False
    ended_later = (run.ended_at or 0.0) > run.started_at
    return run.start_seen or beam.log_seen_growing or beam.output.run_after is not None or ended_later


def advance_beams(data: StoreData, beams: Iterable[tuple[BeamKey, Beam]], at: float) -> tuple[set[str], bool]:
    """Let time pass for beams: record their states, count ended runs, remove beams without a row.

    Args:
        data: the store's data.
        beams: some of its beams.
        at: the present instant.

    Returns:
        Cases of beams whose retention is over (see :func:`remove_cases`), and whether any beam was judged again.
    """
    rules, unconfirmed, counters, source = data.rules, data.unconfirmed, data.counters, data.sources.state
    expired: set[str] = set()
    judged = False
    for key, beam in beams:
        if unconfirmed and key in unconfirmed:
            continue
        cached = beam.view
        if cached is None or not cached.recorded or not cached.valid(at, rules, source(beam.source)):
            advance_beam(data, beam, at)
            judged = True
        elif cached.rates_version != counters.rates_version:
            cached.rates_version = counters.rates_version
            _update_prior_rate(data, beam, at)
        if beam.row_missing_since is None and beam.state not in OVER_STATES and beam.source is not None:
            continue
        _count_ended_run(data, beam, at)
        if was_deleted(beam, at):
            data.remove_beam(key)
        elif (leaves := leaves_at(beam, rules)) is not None and at > leaves:
            expired.add(key.case_id)
    return expired, judged


def remove_cases(data: StoreData, cases: Iterable[str], at: float) -> None:
    """Remove those of these cases in which the retention of every beam is over."""
    for case_id in cases:
        keys = list(data.cases.beams(case_id))
        leaves = [None if key in data.unconfirmed else leaves_at(data.beams[key], data.rules) for key in keys]
        if all(each is not None and at > each for each in leaves):
            for key in keys:
                data.remove_beam(key)


def report_hidden(data: StoreData) -> None:
    """Add an event when some beams are not shown, once until all are shown again."""
    hidden = data.hidden(data.rules.max_beams)
    if hidden and not data.dropped:
        data.events.append(BeamEvent("beams_dropped", number=hidden))
    data.dropped = hidden


def _count_ended_run(data: StoreData, beam: Beam, at: float) -> None:
    run = beam.run
    if beam.run_counted or beam.state not in ENDED_STATES or run.started_at is None:
        return
    if beam.more_to_read or at < _settled_at(beam):
        return
    beam.run_counted = True
    data.mark_changed(beam.row.key)
    reason = failure_reason(run, data.output_state(beam)) if beam.state is BeamState.FAILED else None
    _count_run(data, beam, run, beam.run_sequence.number, beam.state.value, reason, beam.state_since)


def _count_run(
    data: StoreData,
    beam: Beam,
    run: BeamRun,
    number: int,
    outcome: str,
    reason: str | None,
    ended_at: float | None = None,
) -> None:
    ended = data.counters.count_run(beam, run, number, outcome, reason, ended_at)
    if ended is not None and can_be_saved(ended.key):
        data.unsaved.ended.append(with_wall_times(ended, data.timeline))


def _settled_at(beam: Beam) -> float:
    """When the end of a run may be counted. If only its row says that it failed, it may still run."""
    run = beam.run
    if run.ended:
        return beam.state_since + _SETTLE_SECONDS
    by_row = beam.state_since + _SETTLE_BY_ROW_SECONDS
    if beam.state is not BeamState.FAILED:
        return by_row
    return max(by_row, (run.last_growth_at or 0.0) + _LATE_BATCHES * run.pace.longest_seconds)
