"""Timed writes to a log, simulated or captured. No input or output."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Step:
    """One write: these bytes reach the file ``delay_seconds`` after the step before. No bytes: time passes."""

    delay_seconds: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Script:
    """The writes to a log, and the exit code that the shell reports (``None``: the process never ends)."""

    steps: tuple[Step, ...]
    exit_code: int | None

    @property
    def data(self) -> bytes:
        """The whole log."""
        return b"".join(step.data for step in self.steps)

    @property
    def seconds(self) -> float:
        """Its duration."""
        return math.fsum(step.delay_seconds for step in self.steps)


def replay_growth(log: bytes, growth: Sequence[tuple[float, int]]) -> Script:
    """Return a captured log as timed writes, as it grew.

    Args:
        log: the finished log.
        growth: pairs ``(seconds, size in bytes)``; size -1 while there was no file (:func:`read_growth`).

    Raises:
        ValueError: the sizes shrink, or do not end at the log's size.
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
    """Read the rows of a ``NAME.growth.csv``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another format.
    """
    with path.open(newline="") as lines:
        rows = list(csv.reader(lines))
    if not rows or rows[0] != ["t_s", "size_bytes"]:
        raise ValueError(f"{path} does not begin with t_s,size_bytes")
    return [(float(seconds), int(size)) for seconds, size in rows[1:]]
