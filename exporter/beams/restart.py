"""From one process to the next: what a roster leaves behind, and how another goes on with it.

Beams of an earlier process are shown as they were until their source has been looked at once, or their logs have been
read: nobody knows yet what happened meanwhile, and what is known must not be judged by today's clock.
"""

from __future__ import annotations

from collections.abc import Collection

from exporter.beams.beam import Beam
from exporter.beams.retention import Retention
from exporter.beams.roster import Roster
from exporter.beams.saved import EncodedBeams, SavedStore
from exporter.beams.snapshot import BeamKey
from exporter.beams.state_rules import state_from_log
from exporter.sources.checkpoint import Checkpoint


def begin_to_save(roster: Roster) -> EncodedBeams:
    """Beams are encoded from now on, a few at a time; those that change meanwhile are noted."""
    roster.encoded = EncodedBeams()
    return roster.encoded


def saved(roster: Roster, encoded: EncodedBeams) -> SavedStore:
    """The roster as it is now; ends what :func:`begin_to_save` has begun."""
    roster.encoded = None
    return SavedStore(
        beams=encoded.finish(roster.beams),
        retired=roster.retired.to_state(),
        source_states=roster.sources.to_state(),
        **roster.counts.to_state(),
    )


def resume(roster: Roster, state: SavedStore, beams: dict[BeamKey, Beam], sources: Collection[str]) -> None:
    """Let a roster go on where another stopped; before anything else is told to it.

    Args:
        roster: it.
        state: from :func:`saved`.
        beams: its beams.
        sources: those of the configuration.
    """
    roster.replace_beams(beams)
    roster.unconfirmed = {key for key, beam in beams.items() if beam.source in sources}
    roster.rows_from_restart = set(beams)
    roster.retired = Retention(state.retired)
    roster.sources.resume(state.source_states, sources)
    roster.counts.resume(state)
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
