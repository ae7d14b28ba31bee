"""What one process saves of the store, and how the next one continues it.

Beams of an earlier process are shown as they were until their source has been polled, or their log read. Nobody knows
yet what happened meanwhile, so they must not be judged by the present instant.
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
    """Return what has changed since the last save, and count it as saved.

    Args:
        data: the store's data.
        beams: beams that have been encoded already.
        clocks: the clocks at present.
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
    """Mark everything in the store as unsaved."""
    data.unsaved.forgotten |= dict.fromkeys(data.forgotten.by_key)
    for key in data.beams:
        data.unsaved.mark(key)


def resume(data: StoreData, state: RestoredState, sources: Collection[str], timeline: Timeline) -> None:
    """Continue the state of an earlier process.

    Args:
        data: the store's data.
        state: the saved state.
        sources: the sources of the configuration.
        timeline: continues that of the earlier process.
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
        # The log showed the end just before the state was saved, and the state was not recorded yet.
        if beam.run.ended_at is not None and state_from_log(beam.run) is not None:
            judge_and_record(data, beam, beam.run.ended_at)


def checkpoints(data: StoreData, source: str) -> tuple[dict[BeamKey, Checkpoint | None], float | None]:
    """Return where a source continues; see :meth:`~exporter.beams.store.BeamStore.checkpoints`."""
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
