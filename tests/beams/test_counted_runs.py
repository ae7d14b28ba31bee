"""Runs that have ended are counted before their beams are forgotten."""

from __future__ import annotations

import pytest

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow, SourceView
from exporter.beams.store import BeamStore
from exporter.logs.events import BatchesAnnounced, BatchStarted, Event, LogRead, RunFailed, RunSucceeded
from exporter.sources.source import LogStat

NOW = 1_760_000_000.0
KEY = BeamKey("c", "b")
PATH = "/logs/b.log"


def _read(store: BeamStore, at: float, *events: Event) -> None:
    store.claim(KEY, "local", PATH, LogStat(9, at), at)
    store.apply(KEY, PATH, [*events, LogRead(9, True, True)], at, more=False)


@pytest.mark.parametrize(
    ("verdict", "status", "outcome"),
    [
        ([RunSucceeded("done")], "simulation_running", ("local", "succeeded", "")),
        ([RunFailed("cuda", "no device")], "failed", ("local", "failed", "cuda")),
        ([], "failed", ("local", "failed", "status")),
    ],
    ids=["by its log", "failed by its log", "by its row alone"],
)
def test_a_run_is_counted_once_however_soon_its_beam_is_removed(
    verdict: list[Event], status: str, outcome: tuple[str, str, str]
) -> None:
    store = BeamStore(StoreRules(retention_seconds=0.5, failed_retention_seconds=0.5), NOW)
    store.update_rows([BeamRow(KEY, NOW, status="simulation_running", updated_at=NOW)], (), NOW)
    _read(store, NOW + 1, BatchesAnnounced(2, 10), BatchStarted(1, 2), *verdict)
    store.update_rows([BeamRow(KEY, NOW + 1, status=status, updated_at=NOW + 1)], (), NOW + 1)
    at = NOW + 1
    while store.keys() and at < NOW + 60:
        at += 0.25
        store.update_source(SourceView("local", "local", up=True, last_poll_at=at), at)
        store.advance(at)

    assert not store.keys()
    assert store.snapshot(at).runs == {outcome: 1}
