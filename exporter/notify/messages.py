"""The words of a message: a subject, and a few lines that can be read on a phone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.beams.labels import reason_text
from exporter.beams.snapshot import BeamState, BeamView
from exporter.logs.events import INTERRUPTIONS
from exporter.notify.occurrences import NotificationKind, Occurrence
from exporter.privacy.identifiers import Identifiers

_LISTED = 20
"""A message lists at most so many; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to people.

    Args:
        kind: what it is about.
        subject: one line.
        body: a few lines of plain text.
    """

    kind: NotificationKind
    subject: str
    body: str


def write_message(occurrences: Sequence[Occurrence], identifiers: Identifiers, at: float) -> Message:
    """Put occurrences of one kind into one message.

    Args:
        occurrences: at least one, all of the same kind.
        identifiers: how ids and texts are shown.
        at: now, epoch seconds; times are shown in the time zone of this machine.
    """
    kind = occurrences[0].kind
    described = [_describe(each, identifiers, at) for each in occurrences]
    if len(described) == 1:
        subject, lines = described[0]
        return Message(kind, subject, "\n".join(lines) or subject)
    several = {
        NotificationKind.CASE_DONE: "cases are done",
        NotificationKind.CASE_FAILED: "cases ended with failures",
        NotificationKind.BEAM_FAILED: "beams failed",
        NotificationKind.BEAM_STALLED: "beams stalled",
        NotificationKind.SOURCE_DOWN: "sources are down",
    }[kind]
    paragraphs = ["\n  ".join((subject, *lines)) for subject, lines in described[:_LISTED]]
    if len(described) > _LISTED:
        paragraphs.append(f"and {len(described) - _LISTED} more")
    return Message(kind, f"{len(described)} {several}", "\n".join(paragraphs))


def write_test_message(at: float) -> Message:
    """The message of ``mqi-exporter notify test``."""
    when = _clock_text(at, at)
    body = f"Sent at {when} by `mqi-exporter notify test`. Real messages arrive the same way."
    return Message(NotificationKind.CASE_DONE, "Test message of the beam exporter", body)


def _describe(occurrence: Occurrence, identifiers: Identifiers, at: float) -> tuple[str, list[str]]:
    """The subject and the lines of one occurrence."""
    match occurrence.kind:
        case NotificationKind.CASE_DONE:
            case = identifiers.case(occurrence.beams[0].key.case_id)
            return f"Case {case} is done", [_case_line(occurrence.beams, at)]
        case NotificationKind.CASE_FAILED:
            case = identifiers.case(occurrence.beams[0].key.case_id)
            done = sum(beam.state is BeamState.SUCCEEDED for beam in occurrence.beams)
            lines = [f"{done} of {len(occurrence.beams)} beams are done."]
            failed = [beam for beam in occurrence.beams if beam.state is BeamState.FAILED]
            lines += [
                f"Beam {identifiers.beam(beam.key.beam_id)}: {_reason(beam, identifiers)}" for beam in failed[:_LISTED]
            ]
            return f"Case {case} ended with failures", lines
        case NotificationKind.BEAM_FAILED:
            [beam] = occurrence.beams
            what = "was interrupted" if beam.reason in INTERRUPTIONS else "failed"
            return f"{_beam_name(beam, identifiers)} {what}", [f"Reason: {_reason(beam, identifiers)}", *_reached(beam)]
        case NotificationKind.BEAM_STALLED:
            [beam] = occurrence.beams
            since = beam.last_progress_at
            lines = [] if since is None else [f"No progress since {_clock_text(since, at)}."]
            return f"{_beam_name(beam, identifiers)} has stalled", [*lines, *_reached(beam)]
        case _:
            source = occurrence.source
            assert source is not None, "it is about a source"
            lines = [] if source.problem is None else [f"Reason: {identifiers.problem(source.problem)}"]
            if source.last_poll_at is not None:
                lines.append(f"Last answer: {_clock_text(source.last_poll_at, at)}.")
            lines.append("Its beams show their last known values until it answers.")
            return f"Source {source.name} is down", lines


def _case_line(beams: Sequence[BeamView], at: float) -> str:
    ends = [beam.ended_at for beam in beams]
    known = [end for end in ends if end is not None]
    count = f"All {len(beams)} beams are done" if len(beams) > 1 else "Its only beam is done"
    return f"{count}, the last at {_clock_text(max(known), at)}." if known else f"{count}."


def _beam_name(beam: BeamView, identifiers: Identifiers) -> str:
    return f"Case {identifiers.case(beam.key.case_id)}, beam {identifiers.beam(beam.key.beam_id)}"


def _reason(beam: BeamView, identifiers: Identifiers) -> str:
    status = None if beam.row.status is None else identifiers.status(beam.row.status)
    return reason_text(beam.reason, status) or "not known"


def _reached(beam: BeamView) -> list[str]:
    if not beam.batches_total:
        return []
    return [f"Batches finished: {beam.batches_completed} of {beam.batches_total}."]


def _clock_text(then: float, at: float) -> str:
    """Time of day on this machine, with the date where it is not today's."""
    when, now = time.localtime(then), time.localtime(at)
    return time.strftime("%H:%M" if when[:3] == now[:3] else "%Y-%m-%d %H:%M", when)
