"""The beams that ``top`` shows.

Fields have the names of ``/api/v1/beams``. Missing fields and fields of another type are unknown (``None``). Control
characters in ids and texts are replaced, because a terminal would obey them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class TopBeam:
    """One beam. Ratios are 0..1, times UTC epoch seconds; ``None`` is unknown."""

    case_id: str
    beam_id: str
    source: str | None = None
    state: str = "unknown"
    reason: str | None = None
    run: int | None = None
    phase: str | None = None
    batches_total: int | None = None
    batch_current: int | None = None
    batches_completed: int | None = None
    progress_ratio: float | None = None
    estimated_ratio: float | None = None
    remaining_seconds: float | None = None
    expected_end: float | None = None
    last_progress_at: float | None = None
    status: str | None = None
    waiting_text: str | None = None
    needs_attention: bool = False

    @property
    def ratio(self) -> float | None:
        """Estimated progress, or else progress by batches."""
        return self.progress_ratio if self.estimated_ratio is None else self.estimated_ratio

    def ends_at(self, at: float) -> float | None:
        """Return the expected end, given the current time."""
        if self.expected_end is not None or self.remaining_seconds is None:
            return self.expected_end
        return at + self.remaining_seconds


@dataclass(frozen=True, slots=True)
class BeamList:
    """All beams at one time.

    Args:
        at: that time, by the clock of the origin, UTC epoch seconds.
        beams: the beams, in no particular order.
        origin: where they come from, for people.
        note: a remark for people.
    """

    at: float
    beams: tuple[TopBeam, ...]
    origin: str
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the list with the names of the API."""
        states: dict[str, int] = {}
        for beam in self.beams:
            states[beam.state] = states.get(beam.state, 0) + 1
        beams = [{**asdict(beam), "expected_end": beam.ends_at(self.at)} for beam in self.beams]
        return {"at": self.at, "origin": self.origin, "beams": beams, "summary": states}


def from_api(answer: object, at: float, origin: str) -> BeamList | None:
    """Parse an answer of ``/api/v1/beams``.

    Args:
        answer: decoded JSON.
        at: the current time, used if the answer has none.
        origin: see :class:`BeamList`.

    Returns:
        ``None`` if the answer is not a list of beams.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("beams"), list):
        return None
    said_at = _number(answer, "at")
    found = (_beam(item) for item in answer["beams"] if isinstance(item, Mapping))
    return BeamList(at if said_at is None else said_at, tuple(beam for beam in found if beam is not None), origin)


def printable(text: str) -> str:
    """Replace characters that a terminal would obey or that cannot be encoded."""
    return "".join(character if character.isprintable() else UNPRINTABLE for character in text)


def _beam(item: Mapping[str, Any]) -> TopBeam | None:
    beam_id = _text(item, "beam_id")
    if beam_id is None:
        return None
    return TopBeam(
        case_id=_text(item, "case_id") or "",
        beam_id=beam_id,
        source=_text(item, "source"),
        state=_text(item, "state") or "unknown",
        reason=_text(item, "reason"),
        run=_count(item, "run"),
        phase=_text(item, "phase"),
        batches_total=_count(item, "batches_total"),
        batch_current=_count(item, "batch_current"),
        batches_completed=_count(item, "batches_completed"),
        progress_ratio=_ratio(item, "progress_ratio"),
        estimated_ratio=_ratio(item, "estimated_ratio"),
        remaining_seconds=_number(item, "remaining_seconds"),
        expected_end=_number(item, "expected_end"),
        last_progress_at=_number(item, "last_progress_at"),
        status=_text(item, "status"),
        waiting_text=_text(item, "waiting_text"),
        needs_attention=item.get("needs_attention") is True,
    )


def _text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return printable(value) if isinstance(value, str) and value else None


def _number(item: Mapping[str, Any], name: str) -> float | None:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(item: Mapping[str, Any], name: str) -> int | None:
    value = _number(item, name)
    return None if value is None else int(value)


def _ratio(item: Mapping[str, Any], name: str) -> float | None:
    value = _number(item, name)
    return None if value is None else max(0.0, min(1.0, value))
