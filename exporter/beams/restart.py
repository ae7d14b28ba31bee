"""From one process to the next: what a roster leaves behind, and how another goes on with it.

Beams of an earlier process are shown as they were until their source has been looked at once, or their logs have been
read: nobody knows yet what happened meanwhile, and what is known must not be judged by today's clock.
"""

from __future__ import annotations

from collections.abc import Collection

from exporter.beams.counters import from_wall_times
from exporter.beams.roster import Roster
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
from exporter.process.clock import ClockReading, Timeline
from exporter.sources.checkpoint import Checkpoint


def changes(roster: Roster, beams: dict[BeamKey, bytes | None], clocks: ClockReading | None) -> StoreChanges:
    """Return what has changed since the roster was saved last; from now on it counts as saved.

    Args:
        roster: it.
        beams: those that have been encoded already.
        clocks: by which clocks its times are.
    """
    unsaved = roster.unsaved
    beams |= encode_beams(unsaved.beams, roster.beams)
    unsaved.beams.clear()
    forgotten = encode_forgotten(unsaved.forgotten, roster.retired.forgotten)
    unsaved.forgotten.clear()
    counters = roster.counts.to_saved()
    parts = encode_parts(counters, SavedSources(roster.sources.to_state(), clocks), list(roster.counts.rates.items()))
    return StoreChanges(beams, forgotten, parts, list(unsaved.ended), counters)


def mark_all(roster: Roster) -> None:
    """Note that nothing of the roster is saved."""
    roster.unsaved.forgotten |= dict.fromkeys(roster.retired.forgotten)
    for key in roster.beams:
        roster.unsaved.mark(key)


def resume(roster: Roster, state: RestoredState, sources: Collection[str], timeline: Timeline) -> None:
    """Let a roster go on where another stopped; before anything else is told to it.

    Args:
        roster: it.
        state: of the other.
        sources: those of the configuration.
        timeline: continues that of the other.
    """
    beams = state.beams
    roster.replace_beams(beams)
    roster.unconfirmed = {key for key, beam in beams.items() if beam.source in sources}
    roster.rows_from_restart = set(beams)
    roster.retired.forgotten = state.forgotten
    roster.sources.resume(state.sources.states, sources)
    ended = [from_wall_times(run, timeline) for run in state.ended]
    roster.counts.resume(state.counters, state.rates, ended)
    for beam in beams.values():
        # Told by its log just before the state was written, and not yet seen by anybody who judges states.
        if beam.run.ended_at is not None and state_from_log(beam.run) is not None:
            roster.evaluate(beam, beam.run.ended_at)


def checkpoints(roster: Roster, source: str) -> tuple[dict[BeamKey, Checkpoint | None], float | None]:
    """Where a source goes on; see :meth:`~exporter.beams.store.BeamStore.checkpoints`."""
    looked_at = roster.sources.state(source).last_poll_at
    found: dict[BeamKey, Checkpoint | None] = {}
    for key in roster.unconfirmed:
        beam = roster.beams[key]
        if beam.source == source and beam.checkpoint is not None:
            found[key] = beam.checkpoint
    if looked_at is not None:
        for key, beam in roster.beams.items():
            if beam.source is None and beam.first_seen_at < looked_at:
                found[key] = None
    return found, looked_at
