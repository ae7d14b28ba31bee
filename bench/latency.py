"""Measures the delay from the end of a line in a log until /metrics shows it, among 1 000 and 10 000 logs.

There are three delays: until the store has the value, until a scrape of this metric alone (``name[]``) shows it, and
until a scrape of all metrics does. Scrapes follow each other without a pause, so each delay contains at least one.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path

from bench import noisy
from bench.beside import Running, exporter, mtail
from bench.figures import percentile, row, table
from exporter.beams.rules import StoreRules
from exporter.beams.store import BeamStore
from exporter.config import Settings
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.pipeline import Pipeline
from exporter.sources import inotify

COUNTS = (1000, 10_000)
APPENDS = 100
SCRAPES = 10
METRIC = "mqi_beam_batch_current"


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Append lines at irregular intervals and wait until each is shown.

    Returns:
        A table for people, and milliseconds by name.
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
            appends, scrapes = (3, 2) if short else (APPENDS, SCRAPES)
            cells = [str(count)]
            for kind, polling_only in (("announced", False), ("polling", True)):
                delays = _until_store_has_value(logs, count, appends if not polling_only else scrapes, polling_only)
                cells.append(_note(f"{count} {kind} store", delays, figures))
            with exporter(folder, logs, count, polling_only=False) as running:
                one = _until_scrape_shows_value(running, logs, appends, METRIC)
                cells.append(_note(f"{count} metric alone", one, figures))
                cells.append(_note(f"{count} metrics", _until_scrape_shows_value(running, logs, scrapes), figures))
            with mtail(folder, logs) as other:
                cells.append(
                    ""
                    if other is None
                    else _note(f"{count} mtail metrics", _until_scrape_shows_value(other, logs, scrapes), figures)
                )
            lines.append(row(*cells))
    head = ("logs", "store", "store, polling only", "/metrics, one metric", "/metrics", "mtail's /metrics")
    return table(head, lines), figures


def _note(name: str, delays: list[float], figures: dict[str, float]) -> str:
    milliseconds = [1000 * delay for delay in delays]
    p50, p99 = percentile(milliseconds, 50), percentile(milliseconds, 99)
    figures |= {f"{name} p50 ms": p50, f"{name} p99 ms": p99}
    return f"p50 {p50:.1f}, p99 {p99:.1f} ms"


def _append(log: Path, batch: int) -> None:
    with log.open("ab") as file:
        file.write(noisy.batch(batch))


def _pause(step: int) -> None:
    """Sleep between two appends, never in step with the polls."""
    time.sleep(0.020 + 0.013 * (step % 37))


class _Watching(BeamStore):
    """A store that signals new values; polling it a thousand times a second would slow what is measured."""

    def __init__(self, at: float) -> None:
        super().__init__(StoreRules(), at)
        self.told = threading.Event()

    def apply(self, *arguments: object, **named: object) -> bool:
        again = super().apply(*arguments, **named)  # type: ignore[arg-type]
        self.told.set()
        return again


def _until_store_has_value(logs: Path, count: int, appends: int, polling_only: bool) -> list[float]:
    settings = Settings.model_validate(
        {
            "sources": [{"name": "local", "kind": "local", "log_path": [f"{logs}/{{case_id}}_{{beam_id}}.log"]}],
            "discovery": {"kind": "directory"},
        }
    )
    store = _Watching(time.time())
    kernel = inotify.open_watcher
    if polling_only:
        inotify.open_watcher = lambda: None
    following = Pipeline(settings, store, PlainIdentifiers(), time.time)
    inotify.open_watcher = kernel
    following.start()
    try:
        while sum(view.batches_total is not None for view in store.snapshot(time.time()).beams) < count:
            time.sleep(0.05)
        # Wait until inotify watches every log, and until the listings after the start are over.
        time.sleep(8.0 if count > 5 else 1.0)
        delays = []
        for step in range(appends):
            _pause(step)
            store.told.clear()
            began = time.perf_counter()
            _append(logs / f"c_b{step * 7 % count}.log", 1000 + step)
            store.told.wait(30)
            delays.append(time.perf_counter() - began)
    finally:
        following.stop()
        following.close()
    return delays


def _until_scrape_shows_value(running: Running, logs: Path, appends: int, *names: str) -> list[float]:
    number = 5
    log = logs / f"c_b{number % len(list(logs.iterdir()))}.log"
    shown = re.compile(rf"batch_current\{{[^}}]*{log.stem.removeprefix('c_')}[\".][^}}]*\}} (\S+)")
    delays = []
    for step in range(appends):
        _pause(step)
        batch = (5000 if names else 7000) + step  # the value must only rise; the scrapes of one metric come first
        began = time.perf_counter()
        _append(log, batch)
        while True:
            found = shown.search(running.metrics(*names))
            if found is not None and float(found[1]) == batch:
                break
        delays.append(time.perf_counter() - began)
    return delays
