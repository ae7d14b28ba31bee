"""Regular expressions and conversions for numbers, durations and grid sizes as the engines print them."""

from __future__ import annotations

import math

_DIGITS = rb"[+-]?\d{1,40}(?:\.\d{0,40})?"
NUMBER = rb"(" + _DIGITS + rb"(?:[eE][+-]?\d{1,4})?)(?![\w.])"
"""One group: a decimal number, also in scientific notation. ``nan`` and ``inf`` do not match."""

SCIENTIFIC = rb"(" + _DIGITS + rb"[eE][+-]?\d{1,4})(?![\w.])"
"""One group: a number in scientific notation, which is never rounded to 0."""

DURATION = rb"(" + _DIGITS + rb"(?:[eE][+-]?\d{1,4})?) ?(ms|milli-seconds|s|seconds)\b"
"""Two groups: a number and its unit."""

GRID = rb"\(?(\d{1,9})(?:x|, ?)(\d{1,9})(?:x|, ?)(\d{1,9})\b"
"""Three groups: the size of a dose grid, printed as ``400x400x1`` or ``(400, 400, 1)``."""

_SECONDS_PER_UNIT = {b"ms": 0.001, b"milli-seconds": 0.001, b"s": 1.0, b"seconds": 1.0}


def number(text: bytes) -> float | None:
    """Convert text that :data:`NUMBER` matched; ``None`` if it is too large for a float."""
    value = float(text)
    return value if math.isfinite(value) else None


def seconds(text: bytes, unit: bytes) -> float | None:
    """Convert a duration to seconds.

    Args:
        text: the number.
        unit: the unit as printed.

    Returns:
        Seconds; ``None`` if the number is negative or too large.
    """
    value = number(text)
    return None if value is None or value < 0 else value * _SECONDS_PER_UNIT[unit]
