"""Measures how often an exporter of idle logs wakes up, and compares its CPU with that of another version.

``python -m bench.wakeups --before FOLDER`` runs this version and the one that is checked out in FOLDER by turns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click

from bench import noisy
from bench.beside import exporter, signals_as_exit
from bench.figures import median, row, table

COUNT = 1000
SECONDS = 20.0
REPETITIONS = 5


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Measure this version.

    Returns:
        A table for people, and the figures by name.
    """
    return compare(None, 5 if short else COUNT, 0.5 if short else SECONDS, 1 if short else REPETITIONS)


def compare(before: Path | None, count: int, seconds: float, repetitions: int) -> tuple[str, dict[str, float]]:
    """Measure this version and another one by turns, each with and without inotify.

    Args:
        before: a checkout of the other version; ``None`` to measure this one alone.
        count: number of logs.
        seconds: duration of one measurement; it begins that long after all logs were found.
        repetitions: number of measurements of each.
    """
    versions = {"now": None} if before is None else {"before": before, "now": None}
    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = folder / "logs"
        logs.mkdir()
        for number in range(count):
            noisy.write(logs / f"c_b{number}.log", 4096, number % 5)
        for _ in range(repetitions):
            for polling_only in (False, True):
                for version, code in versions.items():
                    what = f"{version}, {'polling only' if polling_only else 'with inotify'}"
                    with exporter(folder, logs, count, polling_only=polling_only, code=code) as running:
                        time.sleep(seconds)
                        wakeups = running.wakeups()
                        percent = running.idle_percent(seconds)
                        pair = percent, (running.wakeups() - wakeups) / seconds
                        measured.setdefault(what, []).append(pair)
    figures: dict[str, float] = {}
    lines = []
    for what, pairs in measured.items():
        percents, wakeups_a_second = zip(*pairs, strict=True)
        figures |= {f"{what} %": median(percents), f"{what} wakeups": median(wakeups_a_second)}
        cpu = f"{median(percents):.2f} % ({min(percents):.2f} to {max(percents):.2f})"
        wakeups_text = f"{median(wakeups_a_second):.1f} ({min(wakeups_a_second):.1f} to {max(wakeups_a_second):.1f})"
        lines.append(row(what, cpu, wakeups_text))
    return table((f"{count} idle logs", "CPU of one core", "wake-ups a second, all threads"), lines), figures


@click.command()
@click.option(
    "--before", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout of another version."
)
@click.option("--logs", "count", default=COUNT, show_default=True)
@click.option("--seconds", default=SECONDS, show_default=True)
@click.option("--repetitions", default=REPETITIONS, show_default=True)
def main(before: Path | None, count: int, seconds: float, repetitions: int) -> None:
    """Measure idle logs."""
    with signals_as_exit():
        click.echo(compare(before and before.absolute(), count, seconds, repetitions)[0])


if __name__ == "__main__":
    main()
