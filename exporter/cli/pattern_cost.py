"""Measures whether a site's regular expressions become slow on long lines (``check-config``).

Each pattern is tried with the texts of :mod:`exporter.cli.pattern_attacks` in a child process (``python -m
exporter.cli.pattern_cost``). The child is killed at a deadline, because a search cannot be interrupted.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from exporter.cli.pattern_attacks import Attack, attacks
from exporter.config import Settings
from exporter.config.document import Location
from exporter.logs.parser import SITE_LIMIT

LINE_BYTES = SITE_LIMIT
"""Length of the measured text, longer than a line of any engine."""

NAME_CHARACTERS = 255
"""Longest file name."""

SEARCH_LIMIT_SECONDS = 0.25
"""A slower search delays the other beams of its source too much."""

DEADLINE_SECONDS = 20.0
"""Longest duration of the measurement of one pattern, also on a slow and busy machine."""

_WORTH_A_LOOK_SECONDS = 0.001
"""A faster search of the longest text is accepted, however its time grows."""

_FIRST_LENGTH = 16
_LINEAR_FACTOR = 3.0
"""Limit of the growth for twice the length: 2 is linear, 4 is quadratic."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a pattern with the slowest text that was found.

    Args:
        length: length of the text, characters.
        seconds: duration of one search; infinite if it was aborted.
        growth: duration with a text of twice the length, divided by ``seconds``; infinite if it was aborted.
        text: description of the text.
    """

    length: int
    seconds: float
    growth: float
    text: str

    @property
    def too_slow(self) -> bool:
        """Whether such a line would delay other beams; the search was aborted."""
        return not math.isfinite(self.seconds)

    def __str__(self) -> str:
        if self.too_slow:
            took = f"takes longer than {SEARCH_LIMIT_SECONDS:g} s"
        else:
            took = f"takes {1000 * self.seconds:.0f} ms, {self.growth:.1f} times as long as half of it"
        return f"a text of {self.length} characters ({self.text}) {took}"


@dataclass(frozen=True, slots=True)
class SlowPattern:
    """A pattern of the configuration that becomes slow.

    Args:
        location: its key.
        pattern: the pattern.
        cost: its cost with the slowest text.
    """

    location: Location
    pattern: str
    cost: Cost

    @property
    def text(self) -> str:
        """What is wrong and what to do."""
        return (
            f"{self.pattern!r} becomes slow on long lines: {self.cost}; begin it with fixed text, and let no two "
            "repeats that follow each other match the same characters"
        )


def slow_patterns(settings: Settings) -> Iterator[SlowPattern]:
    """Yield the patterns of a configuration that take more than linear time."""
    for location, pattern, whole in _patterns(settings):
        cost = measure(pattern, whole=whole)
        if cost is not None:
            yield SlowPattern(location, pattern, cost)


def _patterns(settings: Settings) -> Iterator[tuple[Location, str, bool]]:
    """Yield each pattern with its key, and whether it must match a whole file name."""
    tracking, markers = ("progress_tracking", "patterns"), ("completion_markers",)
    for section, values, keys in (
        (tracking, settings.progress_tracking.patterns, ("total_batches", "current_batch")),
        (markers, settings.completion_markers, ("success_patterns", "failure_patterns")),
    ):
        for key in keys:
            for number, pattern in enumerate(getattr(values, key)):
                yield (*section, key, number), pattern, False
    if settings.discovery.name_pattern is not None:
        yield ("discovery", "name_pattern"), settings.discovery.name_pattern, True


def measure(pattern: str, *, whole: bool = False, deadline_seconds: float = DEADLINE_SECONDS) -> Cost | None:
    """Measure a pattern in a child process.

    Args:
        pattern: a valid regular expression.
        whole: match a whole file name, instead of searching in lines (bytes).
        deadline_seconds: longest duration of the whole measurement.

    Returns:
        The cost; ``None`` if the time seems to grow linearly.
    """
    command = [sys.executable, "-m", "exporter.cli.pattern_cost"]
    question = json.dumps({"pattern": pattern, "whole": whole})
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, text=True, timeout=deadline_seconds, check=True
        )
    except subprocess.TimeoutExpired:
        length = NAME_CHARACTERS if whole else LINE_BYTES
        return Cost(length, math.inf, math.inf, "one of those that were tried")
    answer = json.loads(done.stdout)
    return None if answer is None else Cost(**answer)


class _Overdue(Exception):
    """A search takes too long."""


def measure_here(pattern: str, *, whole: bool = False) -> Cost | None:
    """Measure in this process. Call it in the main thread, because it uses a signal."""
    if whole:
        longest, texts = NAME_CHARACTERS, attacks(pattern)
        whole_name = re.compile(pattern).fullmatch

        def matches(text: str) -> object:
            return whole_name(text)

    else:
        longest = LINE_BYTES
        encoded = pattern.encode("utf-8", "surrogatepass")
        searched = re.compile(encoded).search
        texts = attacks(encoded)

        def matches(text: str) -> object:
            return searched(text.encode("latin-1", "replace"))

    found: Cost | None = None
    for attack in texts:
        seconds = _seconds(matches, attack.text(longest))
        if seconds < max(_WORTH_A_LOOK_SECONDS, found.seconds if found else 0.0):
            continue
        cost = _growth(matches, attack, longest)
        if cost is not None:
            found = cost
            if cost.too_slow:
                break
    return found


def _growth(matches: Callable[[Any], object], attack: Attack, longest: int) -> Cost | None:
    """Return how the time grows with the length of the text; ``None`` if it grows linearly."""
    length, before = _FIRST_LENGTH, math.inf
    growth = 0.0
    while True:
        seconds = _seconds(matches, attack.text(length))
        growth = seconds / before if before else math.inf
        if not math.isfinite(seconds):
            return Cost(length, math.inf, math.inf, str(attack))
        if length >= longest:
            break
        before, length = seconds, min(length * 2, longest)
    # The shortest of three, because other processes may have delayed one.
    half, full = (min(_seconds(matches, attack.text(each)) for _ in range(3)) for each in (longest // 2, longest))
    growth = full / half if half else math.inf
    return Cost(longest, full, growth, str(attack)) if growth > _LINEAR_FACTOR else None


def _seconds(matches: Callable[[Any], object], text: str) -> float:
    """Return the processor time of one search; infinite if it was aborted."""
    began = time.thread_time()
    signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT_SECONDS)
    try:
        matches(text)
    except _Overdue:
        return math.inf
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.thread_time() - began


def _give_up(_number: int, _frame: object) -> None:
    raise _Overdue


def _main() -> None:
    question = json.load(sys.stdin)
    signal.signal(signal.SIGVTALRM, _give_up)
    cost = measure_here(question["pattern"], whole=question["whole"])
    json.dump(None if cost is None else asdict(cost), sys.stdout)


if __name__ == "__main__":
    _main()
