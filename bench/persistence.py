"""Measures the store on disk: how long after a line in a log it is written, and what writing costs."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import noisy
from bench.beside import Running, configured, free_port
from bench.figures import median, percentile, row, table

BEAMS = 100
APPENDS = 100
LOADS = (0.0, 1.0, 10.0, 100.0)
"""Lines a second in all logs together."""
SECONDS = 10.0
REPETITIONS = 3
_SEED = 7
_LIMIT_MS = 500.0
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Site:
    """Logs that an exporter follows, and where its store is."""

    running: Running
    logs: list[Path]
    store: Path


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Append lines, and compare exporters with and without a store under the same load.

    Returns:
        A table for people, and the figures by name.
    """
    figures: dict[str, float] = {}
    beams, appends, seconds, repetitions = (3, 2, 0.5, 1) if short else (BEAMS, APPENDS, SECONDS, REPETITIONS)
    with _exporter(beams, keep=True) as site:
        delays = _delays(site, appends)
    p50, p99 = percentile(delays, 50), percentile(delays, 99)
    figures |= {"written p50": p50, "written p99": p99, "written limit": _LIMIT_MS}
    line = row(f"{beams} logs, {appends} lines", f"{p50:.0f} ms", f"{p99:.0f} ms", f"{max(delays):.0f} ms")
    delay = table(("a line appended until it is on disk", "p50", "p99", "longest"), [line])
    lines = []
    for load in LOADS[:2] if short else LOADS:
        percents: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(repetitions):
            for keep in (False, True):
                with _exporter(beams, keep=keep) as site:
                    percents[keep].append(_percent_under_load(site, load, seconds))
        without, kept = median(percents[False]), median(percents[True])
        figures |= {f"{load:g} a second without": without, f"{load:g} a second with": kept}
        lines.append(row(f"{load:g} lines a second", f"{without:.2f} %", f"{kept:.2f} %", f"{kept - without:+.2f} %"))
    cost = table((f"CPU of one core, {beams} logs", "without a store", "with", "the store"), lines)
    return f"{delay}\n\n{cost}", figures


@contextmanager
def _exporter(beams: int, *, keep: bool) -> Iterator[_Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = [folder / f"c_b{number}.log" for number in range(beams)]
        for log in logs:
            log.write_bytes(noisy.HEAD)
        store = folder / "state.db"
        port = free_port()
        config = folder / "exporter.yaml"
        config.write_text(
            f'sources: [{{name: local, kind: local, log_path: "{folder}/{{case_id}}_{{beam_id}}.log"}}]\n'
            f'discovery: {{kind: directory}}\nweb: {{listen_address: "127.0.0.1:{port}"}}\n'
            + (f"state: {{file: {store}}}\n" if keep else ""),
            encoding="utf-8",
        )
        with configured(config, folder / "exporter.out", polling_only=False, port=port) as running:
            running.wait_until(lambda text: text.count("\nmqi_beam_batches_total{") >= beams)
            time.sleep(2.0)
            yield _Site(running, logs, store)


def _delays(site: _Site, appends: int) -> list[float]:
    """Append one line after another at irregular intervals; milliseconds until a reader of the store sees each."""
    chance = random.Random(_SEED)
    delays = []
    with closing(sqlite3.connect(f"file:{site.store}?mode=ro", uri=True)) as database:
        for number in range(appends):
            time.sleep(chance.uniform(0.2, 1.0))
            log = site.logs[number % len(site.logs)]
            began = _append(log, 1 + number)
            written = f'"offset":{log.stat().st_size},'
            beam_id = log.stem.removeprefix("c_")
            while written not in _state(database, beam_id):
                assert time.perf_counter() < began + _PATIENCE_SECONDS, f"{log.name} is not written"
                time.sleep(0.002)
            delays.append(1000 * (time.perf_counter() - began))
    return delays


def _state(database: sqlite3.Connection, beam_id: str) -> str:
    state: str = database.execute("SELECT state FROM beams WHERE beam_id = ?", (beam_id,)).fetchone()[0]
    return state


def _append(log: Path, number: int) -> float:
    with log.open("ab") as file:
        file.write(noisy.batch(number))
    return time.perf_counter()


def _percent_under_load(site: _Site, lines_a_second: float, seconds: float) -> float:
    """Return the percentage of one core that the exporter uses while batches start at this rate."""
    began, cpu, sent = time.perf_counter(), site.running.cpu_seconds(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        while sent < elapsed * lines_a_second:
            _append(site.logs[sent % len(site.logs)], 1 + sent // len(site.logs))
            sent += 1
        time.sleep(0.01)
    return 100 * (site.running.cpu_seconds() - cpu) / (time.perf_counter() - began)
