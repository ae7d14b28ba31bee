"""Draws a list of beams: one line per beam, with as many columns as the width allows."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeAlias

from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.shortcuts import print_formatted_text
from prompt_toolkit.utils import get_cwidth

from exporter.cli.top.beams import BeamList, TopBeam, printable
from exporter.cli.top.view import ATTENTION, TopView

if TYPE_CHECKING:
    from exporter.cli.top.readers import BeamReader

Fragments: TypeAlias = list[tuple[str, str]]
"""A line or a cell: pieces of text, each after its style as prompt_toolkit writes styles."""

_STYLES = {
    "failed": "bold ansired",
    "stalled": "bold ansiyellow",
    "expired": "ansiyellow",
    "unreachable": "ansimagenta",
    "running": "ansigreen",
    "starting": "ansicyan",
    "waiting": "dim",
    "succeeded": "ansiblue",
}
_BAR_CELLS = 12
_WIDTH_WITHOUT_TERMINAL = 200
_LINES_AROUND = 4
"""Title, notes or filter, the head of the table, and the keys."""
_UNKNOWN = "–"
KEYS = "q quit  s sort  / find  f state  ↑↓ scroll  esc all"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column.

    Args:
        title: its head.
        cell: its text for a beam at a time.
        minimum_terminal_width: a narrower terminal does not show the column.
        right: align to the right.
        least: the fewest characters that it may be cut to; ``None`` where it may not be cut.
        tail: cut the beginning instead of the end: a beam's id begins with its case's.
    """

    title: str
    cell: Callable[[TopBeam, float], Fragments]
    minimum_terminal_width: int = 0
    right: bool = False
    least: int | None = None
    tail: bool = False


def draw(
    beam_list: BeamList, view: TopView, now: float, *, width: int, height: int | None, trouble: str = ""
) -> list[Fragments]:
    """Return the lines of the screen, none of them wider than ``width``.

    Args:
        beam_list: the beams.
        view: sort order and filters. Its ``top`` is moved back if it is beyond the last beam.
        now: the current time by the clock of the list's origin, UTC epoch seconds.
        width: of the terminal, in characters.
        height: of the terminal, in lines; ``None`` for as many as needed.
        trouble: why the list is not up to date.
    """
    beams = view.select(beam_list.beams)
    room = len(beams) if height is None else page_size(height)
    view.top = max(0, min(view.top, len(beams) - room))
    shown = beams[view.top : view.top + room]
    lines = [_title(beam_list, now), _remark(beam_list, view, len(beams), trouble), *_table(shown, now, width)]
    if height is not None:
        lines += [[] for _ in range(room - len(shown))]
        below = len(beams) - view.top - len(shown)
        more = f"  ({view.top} above, {below} below)" if view.top or below else ""
        lines.append([("reverse", f"{KEYS}  [sorted by {view.sort}]{more}")])
    return [_clip(line, width) for line in lines]


def show_once(reader: BeamReader, view: TopView) -> None:
    """Print all beams once.

    Raises:
        exporter.cli.top.readers.Unavailable: the beams cannot be read.
    """
    beam_list = reader.read()
    width = _WIDTH_WITHOUT_TERMINAL
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        width = shutil.get_terminal_size().columns
    for line in draw(beam_list, view, beam_list.at, width=width, height=None):
        print_formatted_text(FormattedText(line), file=sys.stdout)


def page_size(height: int) -> int:
    """Return how many beams fit into a terminal of so many lines."""
    return max(1, height - _LINES_AROUND)


def _table(beams: Sequence[TopBeam], now: float, width: int) -> list[Fragments]:
    columns = [column for column in _COLUMNS if width >= column.minimum_terminal_width]
    rows = [[column.cell(beam, now) for column in columns] for beam in beams]
    widths = [
        max(get_cwidth(column.title), *(_width(row[number]) for row in rows), 0)
        for number, column in enumerate(columns)
    ]
    excess = sum(widths) + len(widths) - 1 - width
    for title in _CUT_FIRST:
        for number, column in enumerate(columns):
            if column.title == title and column.least is not None and excess > 0:
                cut = max(0, min(excess, widths[number] - column.least))
                widths[number] -= cut
                excess -= cut
    head = [[("bold", column.title)] for column in columns]
    return [
        [
            piece
            for cell, cells, column in zip(row, widths, columns, strict=True)
            for piece in _fit(cell, cells, column)
        ][:-1]
        for row in (head, *rows)
    ]


def _fit(cell: Fragments, width: int, column: _Column) -> Fragments:
    """Cut or pad a cell to a width; a blank follows it."""
    if column.tail and _width(cell) > width:
        [(style, text)] = cell
        while text and get_cwidth(text) >= width:
            text = text[1:]
        cell = [(style, f"…{text}")]
    cell = _clip(cell, width)
    blanks = ("", " " * (width - _width(cell)))
    return [blanks, *cell, ("", " ")] if column.right else [*cell, blanks, ("", " ")]


def _clip(line: Fragments, width: int) -> Fragments:
    """Cut the end of a line that is too long."""
    if _width(line) <= width:
        return line
    kept, room = [], width - 1
    for style, text in line:
        while get_cwidth(text) > room:
            text = text[:-1]
        kept.append((style, text))
        room -= get_cwidth(text)
    return [*kept, ("", "…")]


def _width(line: Fragments) -> int:
    return sum(get_cwidth(text) for _, text in line)


def _title(beam_list: BeamList, now: float) -> Fragments:
    counts = Counter(beam.state for beam in beam_list.beams)
    text = f"{_clock(now, seconds=True)}  {beam_list.origin}  {_beams(len(beam_list.beams))}"
    title: Fragments = [("", printable(text))]
    for state in (*ATTENTION, *sorted(counts.keys() - set(ATTENTION))):
        if counts[state]:
            title += [("", "  "), (_STYLES.get(state, ""), f"{counts[state]} {state}")]
    return title


def _remark(beam_list: BeamList, view: TopView, count: int, trouble: str) -> Fragments:
    filters = [f"find {view.text!r}"] if view.text else []
    filters += [f"state {view.state}"] if view.state else []
    if trouble:
        style, text = "bold ansired", f"not up to date: {' '.join(trouble.split())}"
    elif view.editing:
        style, text = "bold", f"find: {view.text}_"
    elif filters:
        style, text = "bold", f"{count} of {_beams(len(beam_list.beams))}: {', '.join(filters)}"
    else:
        style, text = "ansiyellow", beam_list.note
    return [(style, printable(text))]


def _beams(count: int) -> str:
    return "1 beam" if count == 1 else f"{count} beams"


def _state(beam: TopBeam, now: float) -> Fragments:
    overdue = beam.state == "waiting" and beam.needs_attention
    return [(_STYLES.get("stalled" if overdue else beam.state, ""), beam.state)]


def _progress(beam: TopBeam, now: float) -> Fragments:
    if beam.ratio is None:
        return _plain(None)
    # Only a finished beam shows 100 %.
    percent = 100.0 if beam.ratio == 1.0 else min(99.9, 100 * beam.ratio)
    full = int(beam.ratio * _BAR_CELLS)
    return [
        (_STYLES.get(beam.state, ""), "█" * full),
        ("dim", "░" * (_BAR_CELLS - full)),
        ("", f" {percent:5.1f} %"),
    ]


def _batch(beam: TopBeam, now: float) -> Fragments:
    if beam.batches_total is None and not beam.batch_current:
        return _plain(None)
    total = "?" if beam.batches_total is None else str(beam.batches_total)
    return _plain(f"{beam.batch_current or 0}/{total}")


def _end(beam: TopBeam, now: float) -> Fragments:
    ends_at = beam.ends_at(now)
    if ends_at is None:
        return _plain(None)
    return _plain(_clock(ends_at, day=abs(ends_at - now) >= 12 * 3600))


def _age(beam: TopBeam, now: float) -> Fragments:
    return _plain(_duration(None if beam.last_progress_at is None else max(0.0, now - beam.last_progress_at)))


def _remarks(beam: TopBeam, now: float) -> Fragments:
    """Why the beam failed or waits; else its phase, the status of its row and its run."""
    reason, status = beam.reason, beam.status
    if reason == "status" and status is not None:
        reason, status = f"its row says {status}", None
    if beam.waiting_text is not None:
        reason, status = beam.waiting_text, None if status is not None and status in beam.waiting_text else status
    run = f"run {beam.run}" if beam.run is not None and beam.run > 1 else None
    return _plain(", ".join(text for text in (reason, beam.phase, status, run) if text))


def _plain(text: str | None) -> Fragments:
    return [("", text or _UNKNOWN)]


_COLUMNS = (
    _Column("State", _state),
    _Column("Case", lambda beam, now: [("", beam.case_id)], 60, least=8, tail=True),
    _Column("Beam", lambda beam, now: [("", beam.beam_id)], least=8, tail=True),
    _Column("Progress", _progress, 40),
    _Column("Batch", _batch, 70, right=True),
    _Column("Left", lambda beam, now: _plain(_duration(beam.remaining_seconds)), 78, right=True),
    _Column("End", _end, 90, right=True),
    _Column("Last", _age, 100, right=True),
    _Column("Source", lambda beam, now: _plain(beam.source), 120, least=6),
    _Column("Remarks", _remarks, 110, least=8),
)
_CUT_FIRST = ("Remarks", "Source", "Case", "Beam")
"""The columns that are cut where the terminal is too narrow, in this order."""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _UNKNOWN
    whole = int(max(0.0, min(seconds, 1e10)))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 86400} d"


def _clock(at: float, *, day: bool = False, seconds: bool = False) -> str:
    """A time of day, local."""
    try:
        local = datetime.fromtimestamp(at, timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):
        return _UNKNOWN
    return local.strftime("%d %b %H:%M" if day else "%H:%M:%S" if seconds else "%H:%M")
