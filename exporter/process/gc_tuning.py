"""How often Python looks for cycles of garbage: by its own defaults, in every scrape of a large store.

A snapshot of ten thousand beams makes as many new views. The defaults take that for a reason to walk through young
objects dozens of times and, every few scrapes, through every object there is, which holds up all threads for a tenth of
a second. Views are freed by their counts alone; cycles come from requests and connections that end, and hold what these
held: a megabyte of an answer, the buffers of TLS. So the web server says what it leaves behind, and that is looked for.
"""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 50_000
"""The default is 700; a scrape of 10 000 beams makes some 20 000 that live until the next."""

_LEFT_BYTES = 8 * 1024 * 1024
"""So much may lie about. A flood of scrapes leaves it in a fraction of a second, an ordinary scraper in hours."""
_YOUNG_TIMES = 15
"""Of so many searches among young objects, which take milliseconds, the next is among all."""

_left_bytes = 0
_times = 0


def collect_less_often() -> None:
    """Set it for this process, and leave out for good what is there already: modules and their functions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def report_garbage(size_bytes: int) -> None:
    """A request or a connection has ended, and so much may be in a cycle of garbage. Called by one thread."""
    global _left_bytes, _times  # noqa: PLW0603 -- the interpreter has one search for garbage
    _left_bytes += size_bytes
    if _left_bytes < _LEFT_BYTES:
        return
    _left_bytes = 0
    _times += 1
    gc.collect(2 if _times % (_YOUNG_TIMES + 1) == 0 else 1)
