"""Timed writes: what a log's file receives and when, simulated or captured. Pure."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """One write: ``delay_seconds`` after the step before it, these bytes reach the file (none: time passes)."""

    delay_seconds: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Script:
    """What a log's file receives, and what the shell reports at the end (``None``: the process never ends)."""

    steps: tuple[Step, ...]
    exit_code: int | None

    @property
    def data(self) -> bytes:
        """The whole log."""
        return b"".join(step.data for step in self.steps)

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return math.fsum(step.delay_seconds for step in self.steps)


def replay_growth(log: bytes, growth: Sequence[tuple[float, int]]) -> Script:
    """A captured log, revealed as it really grew.

    Args:
        log: the finished log.
        growth: ``(seconds, size in bytes)`` over time, -1 while there was no file (:func:`read_growth`).

    Raises:
        ValueError: the sizes shrink or do not end at the log's own size.
    """
    steps: list[Step] = []
    size = 0
    looked_at = next((seconds for seconds, seen in growth if seen >= 0), 0.0)
    for seconds, seen in growth:
        if max(seen, 0) == size:
            continue
        if seen < size:
            raise ValueError(f"the log shrinks from {size} to {seen} bytes after {seconds} s")
        steps.append(Step(seconds - looked_at, log[size:seen]))
        size, looked_at = seen, seconds
    if size != len(log):
        raise ValueError(f"the growth ends at {size} bytes, the log has {len(log)}")
    return Script(tuple(steps), 0)


def read_growth(path: Path) -> list[tuple[float, int]]:
    """Rows of a ``NAME.growth.csv``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file.
    """
    with path.open(newline="") as lines:
        rows = list(csv.reader(lines))
    if not rows or rows[0] != ["t_s", "size_bytes"]:
        raise ValueError(f"{path} does not begin with t_s,size_bytes")
    return [(float(seconds), int(size)) for seconds, size in rows[1:]]
