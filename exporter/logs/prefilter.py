"""Which lines of what was read of a log are worth a closer look: at the speed of C, with nothing left out.

A line can say something only if it begins as a line of the engines does (:data:`~exporter.logs.patterns.BEGINNINGS`) or
holds a mark of another writer (:data:`~exporter.logs.patterns.FOREIGN_MARKS`). Both are looked for in a whole block at
once, and no Python runs for the other lines, which are nearly all of a noisy log:

- The beginnings are one expression whose first character is the newline before them: ``re`` goes from newline to
  newline as fast as memory allows, and the tree behind it is left at the first byte that does not fit.
- The marks stand anywhere in a line. ``hyperscan`` looks for all of them in one pass, seven times as fast as one search
  for each, and is asked for no more than whether there is one: its calls back into Python, one for each match, would
  each wait for the interpreter's lock. Without it (no wheel for the platform, a processor that is too old) each mark is
  searched for.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence

from exporter.logs.patterns import BEGINNINGS, FOREIGN_MARKS

_SMALL_BLOCK_BYTES = 8192
"""Below, a few searches take less than a thread's way out of the interpreter's lock and back."""

_Finder = Callable[[bytes], bool]


def _tree(literals: Iterable[bytes]) -> bytes:
    """A regular expression for any of ``literals`` that tries each byte once; where one begins another, the shorter."""
    branches: dict[int, list[bytes]] = {}
    for literal in literals:
        if not literal:
            return b""
        branches.setdefault(literal[0], []).append(literal[1:])
    expressions = [re.escape(bytes([first])) + _tree(rest) for first, rest in branches.items()]
    return expressions[0] if len(expressions) == 1 else b"(?:" + b"|".join(expressions) + b")"


_FIRST_BYTES = b"".join(re.escape(bytes([first])) for first in sorted({beginning[0] for beginning in BEGINNINGS}))
_BEGUN = re.compile(rb"\n(?=[" + _FIRST_BYTES + rb"])(" + _tree(BEGINNINGS) + rb"[^\n]*)")
"""The set of first bytes is tested before the tree, which tries one branch after another: 9 % less time for noise."""


def _new_finder(marks: Sequence[bytes]) -> _Finder | None:
    """A function that says whether one of ``marks`` is in a block, or ``None`` where hyperscan cannot be used."""
    try:
        import hyperscan
    except ImportError:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    expressions = [b"".join(b"\\x%02x" % byte for byte in mark) for mark in marks]
    try:
        database.compile(expressions=expressions, ids=list(range(len(marks))), elements=len(marks))
    except hyperscan.error:
        # A processor without the instructions it was built for.
        return None

    hit = False

    def found(*_: object) -> bool:
        nonlocal hit
        hit = True
        return True

    def find(block: bytes) -> bool:
        nonlocal hit
        hit = False
        try:
            database.scan(block, match_event_handler=found)
        except hyperscan.ScanTerminated:
            return True
        return hit

    return find


class _PerThread(threading.local):
    """Hyperscan's scratch space belongs to one thread; each source has its own."""

    def __init__(self) -> None:
        self.finder = _new_finder(FOREIGN_MARKS)


_per_thread = _PerThread()


def marks_in(data: bytes, start: int = 0) -> list[bytes]:
    """Those of :data:`FOREIGN_MARKS` that are somewhere in ``data`` from ``start`` on: nearly always none."""
    if len(data) >= _SMALL_BLOCK_BYTES:
        finder = _per_thread.finder
        if finder is not None and not finder(data):
            return []
    return [mark for mark in FOREIGN_MARKS if data.find(mark, start) >= 0]


def candidate_lines(data: bytes, start: int, end: int, marks: Iterable[bytes]) -> list[bytes]:
    """Lines that may say something, in their order.

    Args:
        data: where they are; nothing of it is copied but those lines.
        start: of the newline before the first of them.
        end: behind the newline that ends the last.
        marks: from :func:`marks_in`.

    Returns:
        Lines without their newlines.
    """
    if not marks:
        return _BEGUN.findall(data, start, end)
    found = {match.start(1): match[1] for match in _BEGUN.finditer(data, start, end)}
    for mark in marks:
        at = data.find(mark, start, end)
        while at >= 0:
            line_start, line_end = data.rfind(b"\n", start, at) + 1, data.find(b"\n", at)
            found[line_start] = data[line_start:line_end]
            at = data.find(mark, line_end, end)
    return [found[line_start] for line_start in sorted(found)]
