"""Sort order, filters and scroll position of ``top``, changed by keys. Independent of terminals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from exporter.beams.snapshot import BeamState
from exporter.cli.top.beams import TopBeam

_Choice = TypeVar("_Choice")
_Order: TypeAlias = tuple[Any, ...]

STATES = tuple(state.value for state in BeamState)
ATTENTION = ("failed", "stalled", "expired", "unreachable", "running", "starting", "waiting", "succeeded")
"""States, the most urgent first."""


def _attention(beam: TopBeam) -> _Order:
    # A waiting beam whose log is overdue is sorted as stalled.
    state = "stalled" if beam.state == "waiting" and beam.needs_attention else beam.state
    order = ATTENTION.index(state) if state in ATTENTION else len(ATTENTION)
    return (order, *_by_name(beam))


def _by_name(beam: TopBeam) -> _Order:
    return (_natural(beam.case_id), _natural(beam.beam_id))


def _by_progress(beam: TopBeam) -> _Order:
    return (-(beam.ratio if beam.ratio is not None else -1.0), *_by_name(beam))


def _by_time_left(beam: TopBeam) -> _Order:
    return (math.inf if beam.remaining_seconds is None else beam.remaining_seconds, *_by_name(beam))


def _by_age(beam: TopBeam) -> _Order:
    return (math.inf if beam.last_progress_at is None else beam.last_progress_at, *_by_name(beam))


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that compares digits as numbers: ``_2`` comes before ``_10``."""
    parts = re.findall(r"([0-9]{1,18})|([^0-9]+)", text)
    return tuple((0, int(number), "") if number else (1, 0, rest.casefold()) for number, rest in parts)


SORTS: dict[str, Callable[[TopBeam], _Order]] = {
    "state": _attention,
    "case": _by_name,
    "progress": _by_progress,
    "left": _by_time_left,
    "age": _by_age,
}
"""Sort orders by name, in the order of the key ``s``."""


@dataclass
class TopView:
    """Sort order, filters and scroll position.

    Attributes:
        sort: one of :data:`SORTS`.
        text: show only beams with this text in an id, source, status or reason.
        state: show only beams in this state; ``None`` shows all.
        editing: keys are added to ``text``.
        top: number of beams scrolled out above.
        over: the user wants to quit.
    """

    sort: str = "state"
    text: str = ""
    state: str | None = None
    editing: bool = False
    top: int = 0
    over: bool = False

    def select(self, beams: Iterable[TopBeam]) -> list[TopBeam]:
        """Return the beams to show, in order."""
        wanted = self.text.casefold()
        found = [beam for beam in beams if self.state in (None, beam.state) and wanted in _searched(beam)]
        return sorted(found, key=SORTS[self.sort])

    def handle_key(self, key: str, states: Iterable[str], page: int = 10) -> None:
        """Change the view as a key says.

        Args:
            key: a character, or ``enter``, ``escape``, ``backspace``, ``up``, ``down``, ``pageup``, ``pagedown``.
            states: the states of the present beams.
            page: number of beams that fit on the screen.
        """
        if self.editing:
            self._edit(key)
            return
        match key:
            case "q" | "Q":
                self.over = True
            case "s":
                self.sort = _next(list(SORTS), self.sort)
            case "/":
                self.editing = True
            case "f":
                there = set(states)
                choices: list[str | None] = [
                    None,
                    *(state for state in STATES if state in there or state == self.state),
                ]
                self.state, self.top = _next(choices, self.state), 0
            case "escape":
                self.text, self.state, self.top = "", None, 0
            case "up" | "down":
                self.top += 1 if key == "down" else -1
            case "pageup" | "pagedown":
                self.top += page if key == "pagedown" else -page
        self.top = max(0, self.top)

    def _edit(self, key: str) -> None:
        match key:
            case "enter":
                self.editing = False
            case "escape":
                self.text, self.editing = "", False
            case "backspace":
                self.text = self.text[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.text += key
        self.top = 0


def _searched(beam: TopBeam) -> str:
    texts = (beam.case_id, beam.beam_id, beam.source, beam.status, beam.reason, beam.phase)
    return "\n".join(text for text in texts if text).casefold()


def _next(choices: Sequence[_Choice], now: _Choice) -> _Choice:
    return choices[(choices.index(now) + 1) % len(choices)]
