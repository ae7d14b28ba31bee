"""Explains to page, API and ``top`` why a beam waits.

"No log yet" is only claimed for sources that answered. A beam whose row reports a running simulation is treated
differently from one that queues: it needs attention after a while.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.beams.labels import status_text
from exporter.beams.rules import ATTENTION_SECONDS
from exporter.beams.snapshot import BeamState, BeamView, SourceView
from exporter.metrics.metric_types import encodable
from exporter.privacy.identifiers import Identifiers

WAITING_REASONS = (
    "log_of_earlier_run",
    "log_unreadable",
    "source_down",
    "not_polled",
    "folder_missing",
    "no_log_while_running",
    "no_log",
)


@dataclass(frozen=True, slots=True)
class WaitingReason:
    """Why a beam waits.

    Args:
        reason: one of :data:`WAITING_REASONS`.
        text: ``reason`` in words.
    """

    reason: str
    text: str


def explain_waiting(beam: BeamView, sources: Sequence[SourceView], identifiers: Identifiers) -> WaitingReason | None:
    """Explain why a beam waits; ``None`` if it does not wait.

    Args:
        beam: the beam.
        sources: all sources.
        identifiers: turns statuses and paths into what may leave the process.
    """
    if beam.state is not BeamState.WAITING:
        return None
    if beam.log_path is not None:
        return _with_log(beam, sources, identifiers)
    polled = [source for source in sources if source.up]
    down = [source for source in sources if source.up is False]
    parts: list[str] = []
    reason = "not_polled" if sources and not polled else "no_log"
    if polled or not sources:
        parts.append(_no_log(beam, polled, identifiers))
        if beam.status_is_simulating:
            reason = "no_log_while_running"
    missing = [(source, folder) for source in polled for folder in source.folders_missing or ()]
    if missing:
        source, folder = missing[0]
        where = f" on {encodable(source.name)}" if source.kind == "ssh" else ""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        parts.append(f"the folder {encodable(identifiers.path(folder))} does not exist{where}{more}")
        reason = "folder_missing"
    if down:
        parts.append(f"{_names(down)} cannot be reached, so logs there are unknown")
        reason = "source_down"
    unpolled = [source for source in sources if source.up is None]
    if unpolled:
        have = "has" if len(unpolled) == 1 else "have"
        parts.append(f"{_names(unpolled)} {have} not been polled yet")
    return WaitingReason(reason, "; ".join(parts))


def needs_attention(beam: BeamView, sources: Sequence[SourceView], at: float) -> bool:
    """Whether a beam should be checked.

    Args:
        beam: the beam.
        sources: all sources.
        at: now, UTC epoch seconds.
    """
    if beam.state in (BeamState.FAILED, BeamState.STALLED, BeamState.EXPIRED, BeamState.UNREACHABLE):
        return True
    if beam.state is not BeamState.WAITING or not beam.status_is_simulating:
        return False
    return at - beam.simulating_since >= ATTENTION_SECONDS and any(source.up for source in sources)


def _with_log(beam: BeamView, sources: Sequence[SourceView], identifiers: Identifiers) -> WaitingReason:
    """Explain a beam that waits although there is a log."""
    if not beam.log_of_earlier_run:
        return WaitingReason("log_unreadable", "its log cannot be read")
    text = "there is only the log of an earlier run"
    if beam.status_is_simulating:
        text = f"{_row_says(beam, identifiers)}, but {text}"
    source = next((each for each in sources if each.name == beam.source), None)
    if beam.attributed_by_date:
        text += ", older than the row's last change"
        if source is not None and source.clock_offset_seconds is None:
            text += f" (by its date; the clock of {encodable(source.name)} has not been compared yet)"
    if source is not None and source.up is False:
        text += f"; {encodable(source.name)} cannot be reached"
    return WaitingReason("log_of_earlier_run", text)


def _no_log(beam: BeamView, polled: Sequence[SourceView], identifiers: Identifiers) -> str:
    if not beam.status_is_simulating:
        return "no log yet"
    count = 1 if beam.row.log_path is not None else sum(source.log_places for source in polled)
    places = f" at {count} {'place' if count == 1 else 'places'}" if count else ""
    return f"{_row_says(beam, identifiers)}, but no log was found{places}"


def _row_says(beam: BeamView, identifiers: Identifiers) -> str:
    """Quote the row's status, and since when it has it, in this machine's time zone."""
    status = status_text(encodable(identifiers.status(beam.row.status or "")))
    try:
        since = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(beam.simulating_since))
    except (ValueError, OverflowError, OSError):  # a row may contain any time
        return f"MQI Communicator says '{status}'"
    return f"MQI Communicator has said '{status}' since {since}"


def _names(sources: Sequence[SourceView]) -> str:
    names = [encodable(source.name) for source in sources]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
