"""A look, drawn: one line per beam, as many columns as the width allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exporter.cli.top.beams import BeamList, TopBeam, printable
from exporter.cli.top.view import ATTENTION, TopView

_STYLES = {
    "failed": "bold red",
    "stalled": "bold yellow",
    "expired": "yellow",
    "unreachable": "magenta",
    "running": "green",
    "starting": "cyan",
    "waiting": "dim",
    "succeeded": "blue",
}
_BAR_CELLS = 12
_LINES_AROUND = 4
"""Title, notes or filter, the table's head, and the keys."""
_UNKNOWN = "–"
KEYS = "q quit  s sort  / find  f state  ↑↓ scroll  esc all"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column.

    Args:
        title: its head.
        cell: what it says of a beam at a moment.
        from_width: the narrowest terminal that shows it.
        right: numbers stand on the right.
        least: it may be cut to so many characters; ``None`` where it may not be.
        tail: what is kept of a text that is cut is its end: a beam's id begins with its case's.
    """

    title: str
    cell: Callable[[TopBeam, float], Text]
    from_width: int = 0
    right: bool = False
    least: int | None = None
    tail: bool = False


def draw(
    beam_list: BeamList, view: TopView, now: float, *, width: int, height: int | None, trouble: str = ""
) -> RenderableType:
    """The screen.

    Args:
        look: what to show.
        view: which of it, and in which order. Its ``top`` is kept within what there is.
        now: the moment by the clock of the look.
        width: of the terminal, in characters.
        height: of the terminal, in lines; ``None`` for as many as needed.
        trouble: why the look is not a new one.
    """
    beams = view.select(beam_list.beams)
    room = len(beams) if height is None else max(1, height - _LINES_AROUND)
    view.top = max(0, min(view.top, len(beams) - room))
    shown = beams[view.top : view.top + room]
    table = _table(shown, now, width)
    parts: list[RenderableType] = [_title(beam_list, now), _remark(beam_list, view, len(beams), trouble), table]
    if height is not None:
        parts += [Text()] * (room - len(shown))
        below = len(beams) - view.top - len(shown)
        more = f"  ({view.top} above, {below} below)" if view.top or below else ""
        parts.append(_line(f"{KEYS}  [sorted by {view.sort}]{more}", "reverse"))
    return Group(*parts)


def _table(beams: Sequence[TopBeam], now: float, width: int) -> Table:
    columns = [column for column in _COLUMNS if width >= column.from_width]
    rows = [[column.cell(beam, now) for column in columns] for beam in beams]
    widths = [
        max(cell_len(column.title), *(row[number].cell_len for row in rows), 0) for number, column in enumerate(columns)
    ]
    excess = sum(widths) + len(widths) - 1 - width
    for title in _CUT_FIRST:
        for number, column in enumerate(columns):
            if column.title == title and column.least is not None and excess > 0:
                cut = max(0, min(excess, widths[number] - column.least))
                widths[number] -= cut
                excess -= cut
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column, cells in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.title, width=cells, justify=justify, no_wrap=True, overflow="ellipsis")
    for row in rows:
        cut_row = zip(columns, row, widths, strict=True)
        table.add_row(*(_tail(text, cells) if column.tail else text for column, text, cells in cut_row))
    return table


def _tail(text: Text, cells: int) -> Text:
    """The end of a text that is too long."""
    plain = text.plain
    if cell_len(plain) <= cells:
        return text
    while plain and cell_len(plain) >= cells:
        plain = plain[1:]
    return Text(f"…{plain}")


def page_size(height: int) -> int:
    """How many beams fit into so many lines."""
    return max(1, height - _LINES_AROUND)


def _title(beam_list: BeamList, now: float) -> Text:
    counts = Counter(beam.state for beam in beam_list.beams)
    title = _line(f"{_clock(now, seconds=True)}  {beam_list.origin}  {_beams(len(beam_list.beams))}")
    for state in (*ATTENTION, *sorted(counts.keys() - set(ATTENTION))):
        if counts[state]:
            title.append("  ")
            title.append(f"{counts[state]} {state}", style=_STYLES.get(state, ""))
    return title


def _remark(beam_list: BeamList, view: TopView, count: int, trouble: str) -> Text:
    if trouble:
        return _line(f"not up to date: {' '.join(trouble.split())}", "bold red")
    if view.editing:
        return _line(f"find: {view.text}_", "bold")
    shown = [f"find {view.text!r}"] if view.text else []
    shown += [f"state {view.state}"] if view.state else []
    if shown:
        return _line(f"{count} of {_beams(len(beam_list.beams))}: {', '.join(shown)}", "bold")
    return _line(beam_list.note, "yellow")


def _beams(count: int) -> str:
    return "1 beam" if count == 1 else f"{count} beams"


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis", end="\n")


def _state(beam: TopBeam, now: float) -> Text:
    overdue = beam.state == "waiting" and beam.needs_attention
    return Text(beam.state, style=_STYLES["stalled" if overdue else beam.state] if beam.state in _STYLES else "")


def _progress(beam: TopBeam, now: float) -> Text:
    if beam.ratio is None:
        return Text(_UNKNOWN)
    # 100 % is for what is done, and not for what is nearly so.
    percent = 100.0 if beam.ratio == 1.0 else min(99.9, 100 * beam.ratio)
    full = int(beam.ratio * _BAR_CELLS)
    bar = Text("█" * full, style=_STYLES.get(beam.state, ""))
    bar.append("░" * (_BAR_CELLS - full), style="dim")
    bar.append(f" {percent:5.1f} %", style="")
    return bar


def _batch(beam: TopBeam, now: float) -> Text:
    if beam.batches_total is None and not beam.batch_current:
        return Text(_UNKNOWN)
    total = "?" if beam.batches_total is None else str(beam.batches_total)
    return Text(f"{beam.batch_current or 0}/{total}")


def _left(beam: TopBeam, now: float) -> Text:
    return Text(_duration(beam.remaining_seconds))


def _end(beam: TopBeam, now: float) -> Text:
    ends_at = beam.ends_at(now)
    if ends_at is None:
        return Text(_UNKNOWN)
    return Text(_clock(ends_at) if abs(ends_at - now) < 12 * 3600 else _clock(ends_at, day=True))


def _age(beam: TopBeam, now: float) -> Text:
    return Text(_duration(None if beam.last_progress_at is None else max(0.0, now - beam.last_progress_at)))


def _remarks(beam: TopBeam, now: float) -> Text:
    """Why it failed or waits, else what it does and what its row says."""
    reason, status = beam.reason, beam.status
    if reason == "status" and status is not None:
        reason, status = f"its row says {status}", None
    if beam.waiting_text is not None:
        reason, status = beam.waiting_text, None if status is not None and status in beam.waiting_text else status
    run = f"run {beam.run}" if beam.run is not None and beam.run > 1 else None
    return Text(", ".join(text for text in (reason, beam.phase, status, run) if text) or _UNKNOWN)


_COLUMNS = (
    _Column("State", _state),
    _Column("Case", lambda beam, now: Text(beam.case_id), 60, least=8, tail=True),
    _Column("Beam", lambda beam, now: Text(beam.beam_id), least=8, tail=True),
    _Column("Progress", _progress, 40),
    _Column("Batch", _batch, 70, right=True),
    _Column("Left", _left, 78, right=True),
    _Column("End", _end, 90, right=True),
    _Column("Last", _age, 100, right=True),
    _Column("Source", lambda beam, now: Text(beam.source or _UNKNOWN), 120, least=6),
    _Column("Remarks", _remarks, 110, least=8),
)
_CUT_FIRST = ("Remarks", "Source", "Case", "Beam")
"""Where the terminal is too narrow for all, columns give way in this order."""


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
    """A moment in local time."""
    try:
        local = datetime.fromtimestamp(at, timezone.utc).astimezone()
    except (OverflowError, ValueError, OSError):
        return _UNKNOWN
    return local.strftime("%d %b %H:%M" if day else "%H:%M:%S" if seconds else "%H:%M")
