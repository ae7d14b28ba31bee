"""From one process to the next: what a store leaves behind, and how another goes on with it.

Beams of an earlier process are shown as they were until their source has been looked at once, or their logs have been
read: nobody knows yet what happened meanwhile, and what is known must not be judged by today's clock.
"""

from __future__ import annotations

from collections.abc import Collection

from exporter.beams.counters import from_wall_times
from exporter.beams.saved import (
    RestoredState,
    SavedSources,
    StoreChanges,
    encode_beams,
    encode_forgotten,
    encode_parts,
)
from exporter.beams.snapshot import BeamKey
from exporter.beams.state_rules import state_from_log
from exporter.beams.store_data import StoreData
from exporter.beams.transitions import judge_and_record
from exporter.process.clock import ClockReading, Timeline
from exporter.sources.checkpoint import Checkpoint


def changes(data: StoreData, beams: dict[BeamKey, bytes | None], clocks: ClockReading | None) -> StoreChanges:
    """Return what has changed since the store was saved last; from now on it counts as saved.

    Args:
        data: the store's data.
        beams: beams that have been encoded already.
        clocks: by which clocks its times are.
    """
    unsaved = data.unsaved
    beams |= encode_beams(unsaved.beams, data.beams)
    unsaved.beams.clear()
    forgotten = encode_forgotten(unsaved.forgotten, data.forgotten.by_key)
    unsaved.forgotten.clear()
    counters = data.counters.to_saved()
    parts = encode_parts(counters, SavedSources(data.sources.to_state(), clocks), list(data.counters.rates.items()))
    return StoreChanges(beams, forgotten, parts, list(unsaved.ended), counters)


def mark_all(data: StoreData) -> None:
    """Record that nothing of the store is saved."""
    data.unsaved.forgotten |= dict.fromkeys(data.forgotten.by_key)
    for key in data.beams:
        data.unsaved.mark(key)


def resume(data: StoreData, state: RestoredState, sources: Collection[str], timeline: Timeline) -> None:
    """Let a store go on where another stopped; before anything else is told to it.

    Args:
        data: the store's data.
        state: of the other.
        sources: those of the configuration.
        timeline: continues that of the other.
    """
    beams = state.beams
    data.replace_beams(beams)
    data.unconfirmed = {key for key, beam in beams.items() if beam.source in sources}
    data.rows_from_restart = set(beams)
    data.forgotten.by_key = state.forgotten
    data.sources.resume(state.sources.states, sources)
    ended = [from_wall_times(run, timeline) for run in state.ended]
    data.counters.resume(state.counters, state.rates, ended)
    for beam in beams.values():
        # Told by its log just before the state was written, and not yet seen by anybody who judges states.
        if beam.run.ended_at is not None and state_from_log(beam.run) is not None:
            judge_and_record(data, beam, beam.run.ended_at)


def checkpoints(data: StoreData, source: str) -> tuple[dict[BeamKey, Checkpoint | None], float | None]:
    """Where a source goes on; see :meth:`~exporter.beams.store.BeamStore.checkpoints`."""
    looked_at = data.sources.state(source).last_poll_at
    found: dict[BeamKey, Checkpoint | None] = {}
    for key in data.unconfirmed:
        beam = data.beams[key]
        if beam.source == source and beam.checkpoint is not None:
            found[key] = beam.checkpoint
    if looked_at is not None:
        for key, beam in data.beams.items():
            if beam.source is None and beam.first_seen_at < looked_at:
                found[key] = None
    return found, looked_at
