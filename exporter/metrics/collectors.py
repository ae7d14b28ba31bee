"""Collects what the metrics read at a scrape: one snapshot of the store, and the state of the exporter itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from exporter.beams.cases import group_by_case
from exporter.beams.forecast import expected_ends
from exporter.beams.snapshot import BeamKey, BeamView, StoreSnapshot, Summary
from exporter.metrics import definitions as metrics
from exporter.metrics.encoder import MetricGroup
from exporter.metrics.metric_types import format_labels
from exporter.privacy.identifiers import Identifiers


class StoreCollector:
    """Collects every metric that comes from the store.

    Args:
        snapshot: returns a snapshot of the store. It is called once for each scrape, so that all numbers of a scrape
            were true at one moment.
        identifiers: how ids are shown.
    """

    def __init__(self, snapshot: Callable[[], StoreSnapshot], *, identifiers: Identifiers) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._labelled_beams: tuple[list[tuple[BeamKey, str]], list[str]] = [], []

    def __call__(self) -> Iterator[MetricGroup[Any]]:
        """Return the metrics of one snapshot."""
        snapshot = self._snapshot()
        cases, durations = group_by_case(snapshot, expected_ends(snapshot)), snapshot.batch_durations
        yield MetricGroup(metrics.BEAM_METRICS, snapshot.beams, self._labels_of(snapshot.beams))
        yield MetricGroup(
            metrics.CASE_METRICS, cases, [format_labels(self._case_label(case.case_id)) for case in cases]
        )
        yield MetricGroup(metrics.STORE_METRICS, [snapshot], [""])
        yield MetricGroup(metrics.BATCH_METRICS, [*durations.values()], [_source_label(name) for name in durations])
        yield MetricGroup(
            metrics.SOURCE_METRICS, snapshot.sources, [_source_label(source.name) for source in snapshot.sources]
        )
        if snapshot.database is not None:
            yield MetricGroup(metrics.DATABASE_METRICS, [snapshot.database], [""])

    def _labels_of(self, beams: Sequence[BeamView]) -> list[str]:
        """Return the labels of each beam. They are kept between scrapes: making them takes as long as half a scrape."""
        keys = [(beam.key, beam.source) for beam in beams]
        known_keys, labels = self._labelled_beams
        if keys != known_keys:
            known = dict(zip(known_keys, labels, strict=True))
            labels = [known.get(key) or self._make_labels(*key) for key in keys]
            self._labelled_beams = keys, labels
        return labels

    def _make_labels(self, key: BeamKey, source: str) -> str:
        beam = ("beam_id", self._identifiers.beam(key.beam_id))
        return format_labels(self._case_label(key.case_id), beam, ("source", source))

    def _case_label(self, case_id: str) -> tuple[str, str]:
        return ("case_id", self._identifiers.case(case_id))


class ScrapeMeter:
    """Measures scrapes of all metrics: their time and size. Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = Summary()
        self._last_size_bytes: int | None = None

    def observe(self, *, seconds: float, size_bytes: int) -> None:
        """Add one scrape: the time it took to make, in seconds, and its size before compression."""
        with self._lock:
            self._seconds = self._seconds.plus(seconds)
            self._last_size_bytes = size_bytes

    def read(self) -> tuple[Summary, int | None]:
        """Return the seconds of all scrapes, and the size of the last in bytes (``None`` before the first)."""
        with self._lock:
            return self._seconds, self._last_size_bytes


class ExporterCollector:
    """Collects the metrics about the exporter itself.

    Args:
        version: the exporter's version.
        reload_status: returns how the configuration was last read; called once for each scrape.
        scrapes: the meter that the web server writes to.
        protection: returns how the web server is protected; called once for each scrape.
        store_up: returns whether the state can be written to disk; ``None`` where it is not kept.
        notifications: returns the messages to people by name and outcome.
    """

    def __init__(
        self,
        version: str,
        *,
        reload_status: Callable[[], metrics.ReloadStatus],
        scrapes: ScrapeMeter,
        protection: Callable[[], metrics.ProtectionView] = lambda: metrics.ProtectionView({}),
        store_up: Callable[[], bool | None] = lambda: None,
        notifications: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        self._version = version
        self._reload_status = reload_status
        self._scrapes = scrapes
        self._protection = protection
        self._store_up = store_up
        self._notifications = notifications

    def __call__(self) -> Iterator[MetricGroup[Any]]:
        """Return the one group of these metrics."""
        seconds, size_bytes = self._scrapes.read()
        view = metrics.ExporterView(
            self._version,
            self._reload_status(),
            seconds,
            size_bytes,
            self._protection(),
            self._store_up(),
            self._notifications(),
        )
        yield MetricGroup(metrics.OWN_METRICS, [view], [""])


def process_registry() -> CollectorRegistry:
    """Return the client library's ``process_*`` and ``python_*`` metrics in a registry of their own.

    The library's global registry belongs to the program that embeds us. ``auto_describe`` lets the registry know the
    names of its metrics, so that a scrape can ask for some of them.
    """
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _source_label(name: str) -> str:
    return format_labels(("source", name))
