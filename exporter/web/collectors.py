"""What fills the metrics at a scrape: one snapshot of the board, and what the exporter knows of itself."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.beams.snapshot import BeamView, BoardSnapshot, Summary
from exporter.identifiers import Identifiers
from exporter.web import metrics
from exporter.web.families import Definition, Items, Labels, Thing, encodable


class BoardCollector(Collector):
    """Every metric that comes from the board.

    Args:
        snapshot: takes a snapshot of the board; called once per scrape, so that all numbers of a scrape were true at
            one moment.
        identifiers: how ids are shown.
    """

    def __init__(self, snapshot: Callable[[], BoardSnapshot], *, identifiers: Identifiers) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers

    def describe(self) -> Iterator[Metric]:
        """The families without samples, by which the registry refuses a name that is taken."""
        own = set(metrics.OWN_METRICS)
        return (metric.empty_family() for _, table in metrics.GROUPS for metric in table if metric not in own)

    def collect(self) -> Iterator[Metric]:
        """All families that have samples, from one snapshot."""
        snapshot = self._snapshot()
        yield from _families(metrics.BEAM_METRICS, [(beam, self._beam_labels(beam)) for beam in snapshot.beams])
        yield from _families(metrics.CASE_METRICS, self._cases(snapshot))
        yield from _families(metrics.BOARD_METRICS, [(snapshot, {})])
        yield from _families(
            metrics.BATCH_METRICS, [(view, _source_labels(name)) for name, view in snapshot.batch_durations.items()]
        )
        yield from _families(metrics.SOURCE_METRICS, [(view, _source_labels(view.name)) for view in snapshot.sources])
        if snapshot.database is not None:
            yield from _families(metrics.DATABASE_METRICS, [(snapshot.database, {})])

    def _beam_labels(self, beam: BeamView) -> Labels:
        return {
            "case_id": encodable(self._identifiers.case(beam.key.case_id)),
            "beam_id": encodable(self._identifiers.beam(beam.key.beam_id)),
            "source": encodable(beam.source),
        }

    def _cases(self, snapshot: BoardSnapshot) -> list[tuple[float, Labels]]:
        """Mean estimated progress of each case, with its labels."""
        ratios: defaultdict[str, list[float]] = defaultdict(list)
        for beam in snapshot.beams:
            ratios[beam.key.case_id].append(beam.estimated_ratio)
        return [
            (sum(of_beams) / len(of_beams), {"case_id": encodable(self._identifiers.case(case_id))})
            for case_id, of_beams in ratios.items()
        ]


class ScrapeMeter:
    """How long scrapes took and how large they were; written by the web server, safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = Summary()
        self._last_size_bytes: int | None = None

    def observe(self, *, seconds: float, size_bytes: int) -> None:
        """Counts one scrape: the time it took to make, and its size before compression."""
        with self._lock:
            self._seconds = self._seconds.plus(seconds)
            self._last_size_bytes = size_bytes

    def read(self) -> tuple[Summary, int | None]:
        """Seconds of all scrapes, and the size of the last in bytes (``None`` before the first)."""
        with self._lock:
            return self._seconds, self._last_size_bytes


class ExporterCollector(Collector):
    """What the exporter says of itself.

    Args:
        version: the exporter's version.
        reload_status: how the configuration was last read; called once per scrape.
        scrapes: the meter that the web server writes to.
        protection: how the web server is protected; called once per scrape.
    """

    def __init__(
        self,
        version: str,
        *,
        reload_status: Callable[[], metrics.ReloadStatus],
        scrapes: ScrapeMeter,
        protection: Callable[[], metrics.ProtectionView] = lambda: metrics.ProtectionView({}),
    ) -> None:
        self._version = version
        self._reload_status = reload_status
        self._scrapes = scrapes
        self._protection = protection

    def describe(self) -> Iterator[Metric]:
        """The families without samples, by which the registry refuses a name that is taken."""
        return (metric.empty_family() for metric in metrics.OWN_METRICS)

    def collect(self) -> Iterator[Metric]:
        """All families that have samples."""
        seconds, size_bytes = self._scrapes.read()
        view = metrics.ExporterView(self._version, self._reload_status(), seconds, size_bytes, self._protection())
        return _families(metrics.OWN_METRICS, [(view, {})])


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """A registry of our own with these collectors and the client's ``process_*`` and ``python_*``.

    The client's global registry is left alone: a program that embeds us may use it for itself.

    Raises:
        ValueError: two collectors have a metric of the same name.
    """
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _families(table: Iterable[Definition[Thing]], items: Items[Thing]) -> Iterator[Metric]:
    """The families of a table that have a sample; one without would only be a line of help."""
    for metric in table:
        family = metric.family(items)
        if family.samples:
            yield family


def _source_labels(name: str) -> Labels:
    return {"source": encodable(name)}
