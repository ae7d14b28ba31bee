"""A beam as readers see it: made anew, or as it was shown last where it stands still."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.beams.beam import Beam
from exporter.beams.estimate import UNFINISHED_LIMIT, Forecast, Work, stall_threshold_seconds
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import ENDED_STATES, UNKNOWN_SOURCE, BeamState, BeamView, OutputState
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import failure_reason, mismatch, output_state
from exporter.beams.view_cache import CachedView
from exporter.process.clock import Timeline

_WITHOUT_END = ENDED_STATES | {BeamState.STALLED, BeamState.EXPIRED}
"""A beam that stands still is not done at any time that could be told."""


def make_cached_view(
    beam: Beam, at: float, rules: StoreRules, rates: Mapping[Work, float], timeline: Timeline
) -> CachedView:
    """The beam as it is shown in the state that it was found in last.

    Args:
        beam: whose.
        at: the instant that the view shows.
        rules: limits of silence, and what statuses mean.
        rates: seconds per particle (or batch) of recent runs.
        timeline: converts instants to the wall-clock times that people read.
    """
    state, prior = beam.state, _prior(beam)
    prior_rate = None if prior is None else rates.get(prior)
    forecast = Forecast.of(beam.run, prior_rate)
    endless = _is_endless(beam, rules)
    return CachedView(
        view=_view(beam, at, rules, forecast, timeline, endless=endless),
        forecast=forecast,
        moves=forecast.moves and state is not BeamState.UNREACHABLE and state not in ENDED_STATES,
        endless=endless,
        prior=prior,
        prior_rate=prior_rate,
    )


def cached_view(
    beam: Beam, at: float, rules: StoreRules, source: SourceState, rates: Mapping[Work, float]
) -> BeamView | None:
    """What a view would be now, where the beam has stood still since the last one.

    Args:
        beam: whose.
        at: now, epoch seconds.
        rules: limits of silence, and what statuses mean.
        source: where its log is.
        rates: seconds per particle (or batch) of recent runs.

    Returns:
        The last view itself where the clock has changed nothing in it either; ``None`` where state and view must be
        worked out anew.
    """
    standing = beam.standing
    if standing is None or standing.shown is None or not standing.holds(at, rules, source):
        return None
    shown = standing.shown
    view = shown.again(at, beam.row, rates)
    if view is not None and shown.moves:
        beam.shown_ratio = view.estimated_ratio
    return view


def _prior(beam: Beam) -> Work | None:
    """Which earlier runs tell the current one's pace, until it has one of its own."""
    run = beam.run
    return None if run.pace.seconds_per_work else (beam.source or "", run.full_work)


def _is_endless(beam: Beam, rules: StoreRules) -> bool:
    """Whether no end of the beam is told: of one whose host was lost none that was not told before."""
    run, state = beam.run, beam.state
    if state is not BeamState.UNREACHABLE:
        return state in _WITHOUT_END
    progress_since = run.last_progress_at or run.last_growth_at or run.started_at
    return progress_since is not None and beam.state_since - progress_since > stall_threshold_seconds(run, rules.stall)


def _estimates(
    beam: Beam, forecast: Forecast, at: float, ended_at: float | None, *, endless: bool
) -> tuple[float, float | None]:
    """Estimated progress, which never goes back between announcements, and remaining time."""
    state, announcements = beam.state, beam.run.batches.announcements
    moment = beam.state_since if state is BeamState.UNREACHABLE else at
    ratio, remaining = forecast.at(moment if ended_at is None else min(moment, ended_at))
    if announcements != beam.shown_announcements:
        beam.shown_announcements, beam.shown_ratio = announcements, 0.0
    if state is not BeamState.SUCCEEDED:
        ratio = min(ratio, UNFINISHED_LIMIT)  # its log may say success while the dose has not been found
    beam.shown_ratio = ratio = max(ratio, beam.shown_ratio)
    # Where the row alone says that it succeeded, it may be that of the run before: that is not kept.
    return 1.0 if state is BeamState.SUCCEEDED else ratio, None if endless else remaining


def _view(
    beam: Beam, at: float, rules: StoreRules, forecast: Forecast, timeline: Timeline, *, endless: bool
) -> BeamView:
    def wall(instant: float | None) -> float | None:
        return None if instant is None else timeline.to_wall(instant)

    run, state, stat = beam.run, beam.state, None if beam.stale else beam.stat
    batches, pace, dose = run.batches, run.pace, run.dose
    reason = failure_reason(beam, rules) if state is BeamState.FAILED else None
    ended_at = run.ended_at if run.ended else beam.state_since if state in ENDED_STATES else None
    output = output_state(beam, rules)
    saving = run.succeeded and output.undecided
    ratio, remaining = _estimates(beam, forecast, at, ended_at, endless=endless)
    if saving:
        ended_at = None
        remaining = 0.0 if state is BeamState.RUNNING else None
    return BeamView(
        key=beam.row.key,
        source=beam.source or UNKNOWN_SOURCE,
        state=state,
        state_since=timeline.to_wall(beam.state_since),
        run_number=beam.run_sequence.number,
        dialect=run.dialect,
        phase="saving" if saving else run.phase,
        batches_total=batches.total,
        batch_current=batches.started,
        batches_completed=batches.finished,
        announcements=batches.announcements,
        progress_ratio=batches.ratio,
        estimated_ratio=ratio,
        remaining_seconds=remaining,
        started_at=wall(run.started_at),
        ended_at=wall(ended_at),
        last_progress_at=wall(run.last_progress_at),
        stall_threshold_seconds=stall_threshold_seconds(run, rules.stall),
        batch_duration_seconds=pace.mean_seconds,
        particles_per_batch=run.particles_per_batch,
        particles=run.particles,
        log_path=beam.path,
        log_size_bytes=None if stat is None else stat.size_bytes,
        log_modified_at=None if stat is None else wall(beam.log_modified_at),
        log_seen_growing=beam.grew,
        log_buffered=run.buffered,
        log_unmatched=run.unmatched,
        reason=reason,
        failure_text=run.failures[run.reason] if run.reason else None,
        log_succeeded=run.succeeded and not output.undecided and output is not OutputState.MISSING,
        row=beam.row,
        start_seen=run.start_seen,
        dose_path=dose.path,
        dose_dimensions=dose.dimensions,
        dose_max_gy=dose.max_dose_gy,
        doses_written=dose.written,
        dose_written_before_failure=dose.written_before(reason),
        engine_times=run.engine_times,
        status_is_simulating=beam.row.status in rules.statuses.simulating,
        log_of_earlier_run=beam.stale,
        attributed_by_date=beam.set_aside is not None,
        status_mismatch=mismatch(beam, at, rules),
        recent=b"" if stat is None else beam.recent,
        output=output,
        output_file=None if output is OutputState.NOT_CONFIGURED else beam.output.file,
        output_problem=None if output is OutputState.NOT_CONFIGURED else beam.output.problem,
        revision=object(),
    )
