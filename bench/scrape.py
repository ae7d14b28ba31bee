"""Measures scrapes of many running beams: our encoder beside the client library's, on the same store.

All beams run, so two metrics of each change with time; every tenth beam has finished a batch since the last scrape.
"""

from __future__ import annotations

import gzip
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from bench import stores
from bench.figures import median, row, table
from bench.inside import as_in_the_exporter
from exporter.beams.store import BeamStore
from exporter.metrics.collectors import StoreCollector
from exporter.metrics.encoder import MetricsEncoder, gzip_chunks
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.sources.source import LogStat
from tests.support.client_encoder import ClientCollector

SCRAPE_SECONDS = 15.0
CHANGED_OF = 10
PROBE_SECONDS = 0.001
_WHAT = {
    "text": "text 0.0.4",
    "openmetrics": "OpenMetrics",
    "first": "the first scrape",
    "idle": "no value has changed since the last scrape",
    "uncached": "text 0.0.4, all lines made again",
    "named": "one metric of all beams (`name[]`)",
}
NAMED = "mqi_beam_batch_current"
REFERENCE_GAUGES = 12
REFERENCE_MS = {1000: 192.0, 10_000: 1240.0}
"""Time of the fixed work, by number of beams, on the machine on which the targets were set.

The fixed work is :data:`REFERENCE_GAUGES` gauges for each beam, encoded by the client library. How fast a machine is
differs from minute to minute. So the pace of a machine is the time of the fixed work, and our time counts relative to
it.
"""


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Measure scrapes of stores of several sizes.

    Returns:
        A table for people, and the figures by name (milliseconds unless the name says otherwise).
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    with as_in_the_exporter():
        _sizes(short, figures, lines)
    head = ("what", "the client's encoder, gzip", "ours, gzip", "ratio (of CPU)", "to reach")
    return table(head, lines), figures


def _sizes(short: bool, figures: dict[str, float], lines: list[str]) -> None:
    for beams in (50,) if short else (1000, 10_000):
        _scrapes(beams, 2 if short else 9, 1 if short else 3, figures, lines)


class _Site:
    """A store, and the time that passes between its scrapes."""

    def __init__(self, beams: int) -> None:
        self.store: BeamStore = stores.running(beams)
        self.at = stores.NOW
        self.beams = beams
        self._keys = stores.keys(beams)
        self._rounds = itertools.count(1)

    def groups(self) -> StoreCollector:
        return StoreCollector(lambda: self.store.snapshot(self.at), identifiers=PlainIdentifiers())

    def pass_time(self) -> None:
        """Let one scrape interval pass, in which every tenth beam finishes a batch."""
        self.at += SCRAPE_SECONDS
        number = next(self._rounds)
        for key in self._keys[number % CHANGED_OF :: CHANGED_OF]:
            stores.finish(self.store, key, 4 + number, self.at)

    def touch(self) -> None:
        """Do what a poll does for a log that has not grown."""
        key = self._keys[0]
        self.store.claim(key, "local", stores.path(key), LogStat(1, self.at), self.at)


def _scrapes(beams: int, times: int, clients_times: int, figures: dict[str, float], lines: list[str]) -> None:
    site = _Site(beams)
    before = _resident_bytes()
    collector = site.groups()
    encoder = MetricsEncoder(collector)

    def ours(*, openmetrics: bool = False, names: frozenset[str] | None = None) -> bytes:
        return b"".join(gzip_chunks(encoder.encode(openmetrics=openmetrics, names=names)))

    def ours_uncached() -> bytes:
        return b"".join(gzip_chunks(MetricsEncoder(collector).encode(openmetrics=False)))

    first, first_cpu, size = _timed(site, ours, 1)
    warm, cpu, size = _timed(site, ours, times)
    open_metrics, open_metrics_cpu, _ = _timed(site, lambda: ours(openmetrics=True), times)
    idle = _timed(site, ours, times, pass_time=False)[:2]
    uncached = _timed(site, ours_uncached, times)[:2]
    delay = _delay(site, ours, times)
    named = _timed(site, lambda: ours(names=frozenset({NAMED})), times)[:2]
    kept = _resident_bytes() - before
    text = sum(map(len, encoder.encode(openmetrics=False)))
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ClientCollector(site.groups()))

    def their_text() -> bytes:
        return gzip.compress(generate_latest(registry), 1)

    theirs, their_cpu, _ = _timed(site, their_text, clients_times)
    their_delay = _delay(site, their_text, clients_times)

    def their_openmetrics() -> bytes:
        return gzip.compress(generate_openmetrics(registry), 1)  # type: ignore[no-untyped-call]

    def their_named() -> bytes:
        # A restricted registry has all that the encoder uses, but not the type that the library declares for it.
        return gzip.compress(generate_latest(cast(CollectorRegistry, registry.restricted_registry([NAMED]))), 1)

    named_theirs, named_their_cpu, _ = _timed(site, their_named, clients_times)
    their_open_metrics, their_open_metrics_cpu, _ = _timed(site, their_openmetrics, clients_times)
    reach = {1000: "30 ms", 10_000: "400 ms"}.get(beams, "")
    reference, paced = _pace(site, ours, times)
    _, paced_uncached = _pace(site, ours_uncached, times)
    figures |= {
        f"{beams} delay": delay,
        f"{beams} client delay": their_delay,
        f"{beams} size bytes": text,
        f"{beams} gzip bytes": size,
        f"{beams} kept bytes": max(kept, 1),
        f"{beams} reference": reference,
        f"{beams} of reference": paced,
        f"{beams} uncached of reference": paced_uncached,
    }
    for what, our_times, their_times in (
        ("text", (warm, cpu), (theirs, their_cpu)),
        ("openmetrics", (open_metrics, open_metrics_cpu), (their_open_metrics, their_open_metrics_cpu)),
        ("first", (first, first_cpu), (theirs, their_cpu)),
        ("idle", idle, (theirs, their_cpu)),
        ("uncached", uncached, (theirs, their_cpu)),
        ("named", named, (named_theirs, named_their_cpu)),
    ):
        figures |= {
            f"{beams} {what}": our_times[0],
            f"{beams} {what} cpu": our_times[1],
            f"{beams} {what} client": their_times[0],
            f"{beams} {what} client cpu": their_times[1],
            f"{beams} {what} ratio": their_times[0] / our_times[0],
            f"{beams} {what} cpu ratio": their_times[1] / our_times[1],
        }
        cells = [f"{wall:.0f} ms, CPU {cpu_time:.0f} ms" for wall, cpu_time in (their_times, our_times)]
        lines.append(row(f"{beams} beams, {_WHAT[what]}", *cells, f"{their_times[1] / our_times[1]:.1f}", reach))
    lines += [
        row(
            f"{beams} beams, worst delay of another thread",
            f"{their_delay:.1f} ms",
            f"{delay:.1f} ms",
            f"{their_delay / delay:.1f}",
            "50 ms",
        ),
        row(
            f"{beams} beams, size",
            f"{text / 1e6:.1f} MB",
            f"{size / 1e6:.2f} MB",
            f"{text / size:.0f}",
            "",
        ),
        row(f"{beams} beams, memory for scrapes", "", f"{kept / 2**20:.0f} MiB", "", ""),
        row(
            f"{beams} beams, text 0.0.4 in turns with {REFERENCE_GAUGES} gauges by the client, without gzip",
            f"{reference:.0f} ms",
            f"{reference * paced:.0f} ms",
            f"{1 / paced:.1f}",
            _at_their_pace(beams, paced),
        ),
        row(
            f"{beams} beams, the same, all lines made again",
            f"{reference:.0f} ms",
            f"{reference * paced_uncached:.0f} ms",
            f"{1 / paced_uncached:.1f}",
            _at_their_pace(beams, paced_uncached),
        ),
    ]


def _at_their_pace(beams: int, paced: float) -> str:
    theirs = REFERENCE_MS.get(beams)
    if theirs is None:
        return ""
    return f"{theirs:.0f} ms where the targets were set: {paced * theirs:.0f} ms at that pace"


class _Gauges(Collector):
    """The fixed work: gauges of the client library, which wants new objects for each scrape."""

    def __init__(self, beams: int) -> None:
        self._labels = [(key.case_id, key.beam_id, "local") for key in stores.keys(beams)]

    def collect(self) -> Iterator[Metric]:
        for number in range(REFERENCE_GAUGES):
            family = GaugeMetricFamily(f"gauge_{number}", "A gauge.", labels=("case_id", "beam_id", "source"))
            for place, labels in enumerate(self._labels):
                family.add_metric(labels, place + number / 7)
            yield family


def _pace(site: _Site, scrape: Callable[[], bytes], times: int) -> tuple[float, float]:
    """Measure our scrapes relative to the fixed work, in turns.

    Returns:
        The median milliseconds of the fixed work, and the median ratio of a scrape to it.
    """
    registry = CollectorRegistry()
    registry.register(_Gauges(site.beams))
    fixed, shares = [], []
    for _ in range(times):
        taken, _, _ = _timed(site, lambda: generate_latest(registry), 1)
        fixed.append(taken)
        shares.append(_timed(site, scrape, 1)[0] / taken)
    return median(fixed), median(shares)


def _timed(site: _Site, scrape: Callable[[], bytes], times: int, *, pass_time: bool = True) -> tuple[float, float, int]:
    """Return the median time and CPU time in milliseconds, and the size of the last answer in bytes."""
    taken, cpu, size = [], [], 0
    for _ in range(times):
        if pass_time:
            site.pass_time()
        began, began_cpu = time.perf_counter(), time.thread_time()
        size = len(scrape())
        taken.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.thread_time() - began_cpu))
    return median(taken), median(cpu), size


def _delay(site: _Site, scrape: Callable[[], bytes], times: int) -> float:
    """Return the longest delay of another thread during scrapes, in milliseconds."""
    worst = 0.0
    for _ in range(times):
        site.pass_time()
        with _probe(site.touch) as delays:
            scrape()
        worst = max(worst, *delays)
    return worst


@contextmanager
def _probe(work: Callable[[], None]) -> Iterator[list[float]]:
    """Measure the delays of another thread in milliseconds. It repeatedly sleeps and then does what a poll does."""
    delays: list[float] = []
    running, over = threading.Event(), threading.Event()

    def sleep_and_work() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(PROBE_SECONDS)
            work()
            delays.append(1000 * (time.perf_counter() - began - PROBE_SECONDS))
            running.set()

    thread = threading.Thread(target=sleep_and_work)
    thread.start()
    running.wait()
    delays.clear()
    try:
        yield delays
    finally:
        over.set()
        thread.join()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
