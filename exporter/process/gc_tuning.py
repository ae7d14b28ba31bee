"""Tunes Python's garbage collector for large snapshots.

A snapshot of ten thousand beams makes as many new objects. With Python's default settings each scrape would start
dozens of collections of young objects, and every few scrapes a full one, which stops all threads for a tenth of a
second. Views need no collector, because they form no reference cycles. Requests and connections do, and they keep large
buffers alive. So the web server reports the size of its garbage, and a collection starts when enough has gathered.
"""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 50_000
"""Threshold for young objects; the default is 700. A scrape of 10 000 beams makes about 20 000 objects."""

_LEFT_BYTES = 8 * 1024 * 1024
"""Reported garbage that starts a collection. A flood of scrapes reaches it within a second, a scraper in hours."""
_YOUNG_TIMES = 15
"""Number of collections of young objects, which take milliseconds, between two full collections."""

_left_bytes = 0
_times = 0


def collect_less_often() -> None:
    """Raise the threshold, and exclude all present objects (modules and functions) from collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def report_garbage(size_bytes: int) -> None:
    """Report that a request or connection has ended, and collect if enough garbage has gathered.

    Only one thread may call this.

    Args:
        size_bytes: size of what the request or connection kept alive.
    """
    global _left_bytes, _times  # noqa: PLW0603 -- there is one garbage collector
    _left_bytes += size_bytes
    if _left_bytes < _LEFT_BYTES:
        return
    _left_bytes = 0
    _times += 1
    gc.collect(2 if _times % (_YOUNG_TIMES + 1) == 0 else 1)
