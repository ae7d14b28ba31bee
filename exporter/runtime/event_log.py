"""Writes one log line for each event of a beam, and at debug level one for each decision about it."""

from __future__ import annotations

import logging

import structlog

from exporter.beams.decisions import BeamDecision
from exporter.beams.snapshot import BeamEvent, BeamState, BeamView
from exporter.privacy.identifiers import SafeText

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


def logs_decisions() -> bool:
    """Whether decisions are logged: at debug level only."""
    return logging.getLogger(__name__).isEnabledFor(logging.DEBUG)


def log_decision(about: BeamDecision) -> None:
    """Write the log line of a decision, with its rule and evidence.

    Args:
        about: the decision.
    """
    _log.debug(
        "decision",
        rule=SafeText(about.decision.rule.value),
        case=about.key.case_id,
        beam=about.key.beam_id,
        source=about.source,
        run=about.run_number,
        **{name: _own_words(name, fact) for name, fact in about.decision.facts.items() if fact is not None},
    )


def _own_words(name: str, fact: object) -> object:
    """Mark the words of a decision as the exporter's own. The status of a row is not: anybody may write one."""
    if isinstance(fact, float):
        return round(fact, 3)
    return SafeText(fact) if isinstance(fact, str) and name != "status" else fact


def _duration(view: BeamView) -> float | None:
    """Return the duration of a run in seconds, as observed or else as the engine printed it; ``None`` if unknown."""
    if view.began_at is not None and view.ended_at is not None:
        return round(view.ended_at - view.began_at, 1)
    total_seconds = view.engine_times.total_seconds
    return None if total_seconds is None else round(total_seconds, 1)
