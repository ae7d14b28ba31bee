"""Makes stores with many beams, through the same methods as real logs do."""

from __future__ import annotations

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.logs.events import (
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    DialectRecognised,
    Event,
    HistoriesCounted,
    LogRead,
    RunHead,
)
from exporter.sources.source import LogStat

NOW = 1_760_000_000.0
"""Time at which all beams have finished their fourth batch."""
BATCH_SECONDS = 70.0
BATCHES = 500


def keys(count: int) -> list[BeamKey]:
    """Return the keys of ``count`` beams, ten per case."""
    return [
        BeamKey(f"{70010000 + number // 10}", f"{70010000 + number // 10}_beam_{number}") for number in range(count)
    ]


def running(count: int) -> BeamStore:
    """Return a store of running beams: the most expensive kind, because their estimates change with time."""
    began = NOW - 4 * BATCH_SECONDS
    store = BeamStore(StoreRules(max_beams=max(1, count)), began)
    beams = keys(count)
    store.update_rows([BeamRow(key, began, status="simulation_running", updated_at=began) for key in beams], (), began)
    for number, key in enumerate(beams):
        store.claim(key, "local", path(key), LogStat(1000 + number, began), began)
        histories = 172_000_000 + number
        head: list[Event] = [
            RunHead("smc"),
            DialectRecognised("smc"),
            HistoriesCounted(histories),
            BatchesAnnounced(BATCHES, 10**7),
        ]
        store.apply(key, path(key), [*head, LogRead(500, True, True)], began, more=False)
        for batch in range(1, 5):
            finish(store, key, batch, began + batch * BATCH_SECONDS)
    return store


def finish(store: BeamStore, key: BeamKey, batch: int, at: float) -> None:
    """Report that a batch has started one second after the last one, and has finished."""
    begun = at - BATCH_SECONDS + 1.0
    store.apply(key, path(key), [BatchStarted(batch, BATCHES), LogRead(500 + 2 * batch, True, True)], begun, more=False)
    store.claim(key, "local", path(key), LogStat(1000 + 100 * batch, at), at)
    store.apply(key, path(key), [BatchFinished(), LogRead(501 + 2 * batch, True, True)], at, more=False)


def path(key: BeamKey) -> str:
    """Return the path of a beam's log."""
    return f"/logs/{key.beam_id}.log"
