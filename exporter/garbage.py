"""How often Python looks for cycles of garbage: by its own defaults, in every scrape of a large board.

A snapshot of ten thousand beams makes as many new views. The defaults take that for a reason to walk through young
objects dozens of times and, every few scrapes, through every object there is, which holds up all threads for a tenth of
a second. Views are freed by their counts alone; cycles come from connections that end, and those are few.
"""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 50_000
"""The default is 700; a scrape of 10 000 beams makes some 20 000 that live until the next."""


def look_seldom() -> None:
    """Set it for this process, and leave out for good what is there already: modules and their functions."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
