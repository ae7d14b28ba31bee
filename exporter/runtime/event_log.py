"""Writes one log line for each event of a beam."""

from __future__ import annotations

import structlog

from exporter.beams.snapshot import BeamEvent, BeamState, BeamView

_log = structlog.get_logger(__name__)


def log_event(event: BeamEvent) -> None:
    """Write the log line of an event. Some events have none.

    Args:
        event: the event.
    """
    if event.kind == "beams_dropped":
        _log.warning("more beams than max_beams, some are not exported", dropped=event.number)
        return
    view = event.view
    if view is None:
        return
    about = {
        "case": view.key.case_id,
        "beam": view.key.beam_id,
        "source": view.source,
        "run": view.run_number,
    }
    match event.kind:
        case "new_run":
            _log.info("new run", **about)
        case "starting" if event.before is BeamState.WAITING:
            _log.info("run started", **about)
        case "running" if event.before is BeamState.WAITING:
            _log.info("run started", **about, batches=view.batches_total)
        case "running" if event.before is not BeamState.STARTING:
            _log.info("beam continues", **about, before=event.before.value if event.before else None)
        case "succeeded":
            _log.info("run succeeded", **about, batches=view.batches_completed, seconds=_duration(view))
        case "failed":
            by_row = view.reason == "status" and view.row.status is not None
            detail = {"status": view.row.status} if by_row else {"text": view.failure_text}
            _log.warning("run failed", **about, reason=view.reason, **detail, progress=round(view.progress_ratio, 4))
        case "stalled":
            _log.warning("beam stalled", **about, threshold_seconds=round(view.stall_threshold_seconds, 1))
        case "expired":
            _log.warning("beam expired: its log has not grown for too long", **about)


def _duration(view: BeamView) -> float | None:
    """Return the duration of a run in seconds, as observed or else as the engine printed it; ``None`` if unknown."""
    if view.began_at is not None and view.ended_at is not None:
        return round(view.ended_at - view.began_at, 1)
    total_seconds = view.engine_times.total_seconds
    return None if total_seconds is None else round(total_seconds, 1)
