"""What fills the metrics at a scrape: one snapshot of the store, and what the exporter knows of itself."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from exporter.beams.cases import case_progress
from exporter.beams.snapshot import BeamKey, BeamView, StoreSnapshot, Summary
from exporter.metrics import definitions as metrics
from exporter.metrics.encoder import MetricGroup
from exporter.metrics.metric_types import Labels, encodable
from exporter.privacy.identifiers import Identifiers


class StoreCollector:
    """Every metric that comes from the store.

    Args:
        snapshot: takes a snapshot of the store; called once per scrape, so that all numbers of a scrape were true at
            one moment.
        identifiers: how ids are shown.
    """

    def __init__(self, snapshot: Callable[[], StoreSnapshot], *, identifiers: Identifiers) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._keys: list[tuple[BeamKey, str]] = []

    def __call__(self) -> Iterator[MetricGroup[Any]]:
        """All groups, from one snapshot."""
        snapshot = self._snapshot()
        beams, cases, durations = snapshot.beams, _cases(snapshot), snapshot.batch_durations
        yield MetricGroup(
            metrics.BEAM_METRICS, self._keys_of(beams), beams, self._beam_labels, BeamView.differs_only_in_estimates
        )
        yield MetricGroup(metrics.CASE_METRICS, [*cases], [*cases.values()], self._case_labels)
        yield MetricGroup(metrics.STORE_METRICS, [()], [snapshot], tuple)
        yield MetricGroup(metrics.BATCH_METRICS, [*durations], [*durations.values()], _source_labels)
        yield MetricGroup(
            metrics.SOURCE_METRICS, [source.name for source in snapshot.sources], snapshot.sources, _source_labels
        )
        if snapshot.database is not None:
            yield MetricGroup(metrics.DATABASE_METRICS, [()], [snapshot.database], tuple)

    def _keys_of(self, beams: tuple[BeamView, ...]) -> list[tuple[BeamKey, str]]:
        """What tells the beams' series apart; mostly the same as in the scrape before."""
        if len(self._keys) != len(beams) or not all(
            key is beam.key and source == beam.source for (key, source), beam in zip(self._keys, beams, strict=True)
        ):
            self._keys = [(beam.key, beam.source) for beam in beams]
        return self._keys

    def _beam_labels(self, key_and_source: tuple[BeamKey, str]) -> Labels:
        key, source = key_and_source
        beam = ("beam_id", encodable(self._identifiers.beam(key.beam_id)))
        return (*self._case_labels(key.case_id), beam, *_source_labels(source))

    def _case_labels(self, case_id: str) -> Labels:
        return (("case_id", encodable(self._identifiers.case(case_id))),)


class ScrapeMeter:
    """How long scrapes took and how large they were; written by the web server, safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = Summary()
        self._last_size_bytes: int | None = None

    def observe(self, *, seconds: float, size_bytes: int) -> None:
        """Counters one scrape: the time it took to make, and its size before compression."""
        with self._lock:
            self._seconds = self._seconds.plus(seconds)
            self._last_size_bytes = size_bytes

    def read(self) -> tuple[Summary, int | None]:
        """Seconds of all scrapes, and the size of the last in bytes (``None`` before the first)."""
        with self._lock:
            return self._seconds, self._last_size_bytes


class ExporterCollector:
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

    def __call__(self) -> Iterator[MetricGroup[Any]]:
        """The one group there is."""
        seconds, size_bytes = self._scrapes.read()
        view = metrics.ExporterView(self._version, self._reload_status(), seconds, size_bytes, self._protection())
        yield MetricGroup(metrics.OWN_METRICS, [()], [view], tuple)


def process_registry() -> CollectorRegistry:
    """The client's ``process_*`` and ``python_*``, in a registry of our own.

    The client's global registry is left alone: a program that embeds us may use it for itself. This one knows the names
    of its metrics, so that it can be asked for some of them.
    """
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _cases(snapshot: StoreSnapshot) -> dict[str, float]:
    """How far each case is."""
    beams: defaultdict[str, list[BeamView]] = defaultdict(list)
    for beam in snapshot.beams:
        beams[beam.key.case_id].append(beam)
    return {case_id: case_progress(of_case) for case_id, of_case in beams.items()}


def _source_labels(name: str) -> Labels:
    return (("source", encodable(name)),)
