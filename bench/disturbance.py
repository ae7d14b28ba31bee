"""Measures whether the exporter disturbs a simulation: the work that processes do with and without it.

The exporter runs as in its systemd unit: with low priority, on any core. Runs with and without it alternate, so that a
change in the speed of the machine affects both. The ratio of each pair counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from bench import noisy
from bench.beside import Running, exporter
from bench.figures import median, row, table

PAIRS = 9
SECONDS = 3.0
IDLE_LOGS = 1000
_SETTLE_SECONDS = 4.0
"""Time for the work after a start (first scrape, first listings), which is not measured."""

_Beside = Callable[[], AbstractContextManager[Running | None]]


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Measure a writer that appends as fast as it can, and a process that keeps one core busy.

    Returns:
        A table for people, and the figures by name: work per second, and ratios (1: no disturbance).
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    for polling_only in (False,) if short else (False, True):
        lines += [measure(short, polling_only, figures) for measure in (_writer, _pinned)]
    head = (
        "what",
        "without",
        "with the exporter",
        "ratio, median of pairs",
        "worst and best pair",
        "the exporter takes",
    )
    return table(head, lines), figures


def _writer(short: bool, polling_only: bool, figures: dict[str, float]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder, logs = Path(name), Path(name) / "logs"
        logs.mkdir()
        log = logs / "c_b0.log"

        def write(seconds: float) -> float:
            # Each time from an empty log: earlier writes must not influence the figures.
            log.write_bytes(noisy.HEAD)
            return _work("append", str(log), seconds)

        beside = partial(exporter, folder, logs, 1, polling_only=polling_only, nice=True)
        log.write_bytes(noisy.HEAD)
        return _pairs("lines a second of a writer", write, beside, short, polling_only, figures)


def _pinned(short: bool, polling_only: bool, figures: dict[str, float]) -> str:
    count = 20 if short else IDLE_LOGS
    with tempfile.TemporaryDirectory() as name:
        folder, logs = Path(name), Path(name) / "logs"
        logs.mkdir()
        for number in range(count):
            noisy.write(logs / f"c_b{number}.log", 4096, number % 5)
        beside = partial(exporter, folder, logs, count, polling_only=polling_only, nice=True)
        what = f"million steps a second on one core, {count} idle logs"
        return _pairs(what, partial(_work, "spin"), beside, short, polling_only, figures)


def _pairs(
    what: str,
    work: Callable[[float], float],
    beside: _Beside,
    short: bool,
    polling_only: bool,
    figures: dict[str, float],
) -> str:
    seconds = 0.2 if short else SECONDS
    alone: list[float] = []
    followed: list[float] = []
    cpu: list[float] = []
    for pair in range(1 if short else PAIRS):
        # The order within a pair alternates, too.
        for with_it in (False, True) if pair % 2 else (True, False):
            with beside() if with_it else nullcontext() as running:
                if running is not None and not short:
                    time.sleep(_SETTLE_SECONDS)
                before = running.cpu_seconds() if running is not None else 0.0
                done = work(seconds)
                if running is not None:
                    cpu.append(100 * (running.cpu_seconds() - before) / seconds)
            (followed if with_it else alone).append(done)
    ratios = [one / other for one, other in zip(followed, alone, strict=True)]
    key = f"{what}{', polling only' if polling_only else ''}"
    figures |= {
        f"{key}: alone": median(alone),
        f"{key}: followed": median(followed),
        f"{key}: ratio": median(ratios),
        f"{key}: exporter CPU %": median(cpu),
    }
    return row(
        key,
        f"{median(alone):.4g}",
        f"{median(followed):.4g}",
        f"{median(ratios):.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}",
        f"{median(cpu):.1f} % of a core",
    )


def _work(*arguments: str | float) -> float:
    command = [sys.executable, "-m", "bench.neighbour", *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
