"""Measures how costs grow with the number of logs: ten, a hundred, a thousand, ten thousand.

The plot shows each cost divided by its cost at the smallest number. A line steeper than the dashed one grows faster
than linearly. The exponent of each step says the same as a number: 1 is linear, 0 is constant.
"""

from __future__ import annotations

import gzip
import math
import re
import tempfile
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

from bench import noisy
from bench.beside import Running, exporter
from bench.figures import median, row, table

COUNTS = (10, 100, 1000, 10_000)
SECONDS = 20.0
PLOT = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"

MEASURES = {
    "round": ("a round of polls, polling only", "ms"),
    "polling CPU": ("processor, polling only", "% of a core"),
    "CPU": ("processor, announced", "% of a core"),
    "memory": ("memory", "MiB"),
    "scrape": ("time of a scrape", "ms"),
    "size": ("size of a scrape", "MB"),
}
_COLOURS = ("#888888", "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728", "#000000")
_SCRAPES = 5
_SETTLE_SECONDS = 15.0


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Follow idle logs, scrape their beams, and draw the plot.

    Returns:
        A table for people, and the figures by name.
    """
    counts = (5, 20) if short else COUNTS
    seconds = 0.5 if short else SECONDS
    costs = {count: _costs(count, seconds) for count in counts}
    figures = {f"{count} {name}": value for count, cost in costs.items() for name, value in cost.items()}
    lines = [row(str(count), *(f"{cost[name]:.3g}" for name in MEASURES)) for count, cost in costs.items()]
    for fewer, more in pairwise(counts):
        steps = [_exponent(costs, name, fewer, more) for name in MEASURES]
        lines.append(row(f"exponent, {fewer} to {more}", *(f"{step:.2f}" for step in steps)))
    per_beam = [(costs[counts[-1]][name] - costs[counts[0]][name]) / (counts[-1] - counts[0]) for name in MEASURES]
    lines.append(row("each further log", *(f"{each:.2g}" for each in per_beam)))
    if short:
        with tempfile.TemporaryDirectory() as folder:
            draw(costs, Path(folder) / PLOT.name)
    else:
        draw(costs, PLOT)
    return table(("logs", *(f"{what}, {unit}" for what, unit in MEASURES.values())), lines), figures


def _costs(count: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder, logs = Path(name), Path(name) / "logs"
        logs.mkdir()
        for number in range(count):
            noisy.write(logs / f"c_b{number}.log", 4096, number % 5)
        with exporter(folder, logs, count, polling_only=True) as running:
            time.sleep(min(_SETTLE_SECONDS, seconds))
            before = _rounds(running)
            polling = running.idle_percent(seconds)
            after = _rounds(running)
        with exporter(folder, logs, count) as running:
            time.sleep(min(_SETTLE_SECONDS, seconds))
            idle = running.idle_percent(seconds)
            scrapes = [_scrape(running) for _ in range(_SCRAPES)]
            memory = running.memory_mib()
    return {
        "round": 1000 * (after[1] - before[1]) / max(1.0, after[0] - before[0]),
        "polling CPU": polling,
        "CPU": idle,
        "memory": memory,
        "scrape": median([each[0] for each in scrapes]),
        "size": scrapes[-1][1],
    }


def _rounds(running: Running) -> tuple[float, float]:
    """Return the number of rounds of polls so far, and their total seconds."""
    text = running.metrics()
    number, seconds = (
        float(re.findall(rf"^mqi_source_poll_seconds_{part}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)[0])
        for part in ("count", "sum")
    )
    return number, seconds


def _scrape(running: Running) -> tuple[float, float]:
    """Return the milliseconds of a scrape like one of Prometheus, and the megabytes of its text."""
    request = urllib.request.Request(running.url, headers={"Accept-Encoding": "gzip"})
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        packed = answer.read()
    return 1000 * (time.perf_counter() - began), len(gzip.decompress(packed)) / 1e6


def _exponent(costs: dict[int, dict[str, float]], name: str, fewer: int, more: int) -> float:
    # The kernel counts CPU time in hundredths of a second: smaller costs cannot be measured.
    small, large = max(costs[fewer][name], 1e-3), max(costs[more][name], 1e-3)
    return math.log(large / small) / math.log(more / fewer)


def draw(costs: dict[int, dict[str, float]], file: Path) -> None:
    """Draw each measure relative to its value at the smallest number, on logarithmic axes."""
    # Imported here because it installs an import hook.
    import pygal
    from pygal.style import CleanStyle

    least, most = min(costs), max(costs)
    chart = pygal.XY(
        style=CleanStyle(
            font_family="sans-serif", colors=_COLOURS, stroke_width=2, label_font_size=12, legend_font_size=13
        ),
        title=f"How cost grows with the number of idle logs ({least} logs: 1)",
        x_title="logs",
        y_title="times as much",
        x_value_formatter=lambda exponent: f"{10**exponent:,.0f}".replace(",", " "),
        value_formatter=lambda exponent: f"{10**exponent:,.0f}".replace(",", " "),
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        width=900,
        height=640,
        margin_bottom=40,
        js=[],
    )
    chart.x_labels = [math.log10(count) for count in costs]
    chart.y_labels = list(range(math.ceil(math.log10(most / least)) + 1))
    linear = [(math.log10(count), math.log10(count / least)) for count in costs]
    chart.add("in proportion to the logs", linear, stroke_style={"dasharray": "6, 6"}, show_dots=False)
    for name, (what, _) in MEASURES.items():
        first = max(costs[least][name], 1e-3)
        chart.add(
            what,
            [(math.log10(count), math.log10(max(cost[name], 1e-3) / first)) for count, cost in costs.items()],
        )
    file.write_bytes(chart.render(is_unicode=False))
