"""Measures the cost of 1 000 and 10 000 logs that do not grow: CPU, memory and scrapes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench import noisy
from bench.beside import Running, exporter, mtail, stat_loop
from bench.figures import median, row, table

COUNTS = (1000, 10_000)
SECONDS = 20.0
_SETTLE_SECONDS = 20.0


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Run the exporter with its default settings, with and without inotify; a loop of ``stat``; mtail.

    Returns:
        A table for people, and the figures by name (percent of a core unless the name says otherwise).
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    for count in (5,) if short else COUNTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            logs = folder / "logs"
            logs.mkdir()
            for number in range(count):
                noisy.write(logs / f"c_b{number}.log", 4096, number % 5)
            seconds = 0.5 if short else SECONDS
            with exporter(folder, logs, count, polling_only=False) as running:
                ours = _measure("announced", running, count, seconds, figures)
            with exporter(folder, logs, count, polling_only=True) as running:
                polling = _measure("polling", running, count, seconds, figures)
            with stat_loop(folder, logs) as floor:
                least = figures[f"{count} floor"] = _settled_percent(floor, seconds)
            with mtail(folder, logs) as other:
                theirs = _measure("mtail", other, count, seconds, figures) if other is not None else ("", "")
            lines.append(row(str(count), ours[0], polling[0], f"{least:.2f} %", theirs[0], ours[1], theirs[1]))
    head = ("logs", "ours", "polling only", "`stat` alone", "mtail", "memory, scrape", "mtail's")
    return table(head, lines), figures


def _settled_percent(running: Running, seconds: float) -> float:
    # The work after a start (first scrape, first listings) does not count as idle.
    time.sleep(min(_SETTLE_SECONDS, seconds))
    return running.idle_percent(seconds)


def _measure(name: str, running: Running, count: int, seconds: float, figures: dict[str, float]) -> tuple[str, str]:
    percent = _settled_percent(running, seconds)
    memory = running.memory_mib()
    scrapes = []
    for _ in range(3):
        began = time.perf_counter()
        running.metrics()
        scrapes.append(1000 * (time.perf_counter() - began))
    figures |= {
        f"{count} {name}": percent,
        f"{count} {name} MiB": memory,
        f"{count} {name} scrape ms": median(scrapes),
    }
    return f"{percent:.2f} %", f"{memory:.0f} MiB, {median(scrapes):.0f} ms"
