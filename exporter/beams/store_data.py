"""The data of the store: all beams, and what belongs to all of them.

The modules :mod:`~exporter.beams.row_updates`, :mod:`~exporter.beams.log_updates`,
:mod:`~exporter.beams.output_searches`, :mod:`~exporter.beams.transitions` and :mod:`~exporter.beams.restart` change it.
None of them knows threads or clocks: :class:`~exporter.beams.store.BeamStore` calls them under its lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from exporter.beams.beam import Beam
from exporter.beams.cases import CaseIndex
from exporter.beams.counters import Counters
from exporter.beams.decisions import BeamDecision
from exporter.beams.retention import ForgottenBeams
from exporter.beams.rules import StoreRules
from exporter.beams.saved import UnsavedChanges
from exporter.beams.snapshot import BeamEvent, BeamKey, BeamState, OutputState
from exporter.beams.sources import Sources, SourceState
from exporter.process.clock import Timeline

_EVENTS_KEPT = 10_000


class StoreData:
    """All beams, and what belongs to all of them. Not thread-safe.

    Args:
        rules: the configuration.
        at: the present instant: runs that ended earlier are shown but not counted.
        timeline: how instants and wall-clock times correspond now.

    Attributes:
        beams: all beams, in the order in which they were found.
        cases: the beams of each case.
        forgotten: what is remembered of removed beams.
        sources: health and clock of the sources.
        counters: totals over all beams.
        events: what has happened since the last :meth:`BeamStore.pop_events`.
        keep_decisions: whether decisions are kept for :meth:`BeamStore.pop_decisions`; ``decisions``: those kept.
        unconfirmed: beams of an earlier process whose source has not been polled yet. They are shown as they were.
        rows_from_restart: beams whose rows this process has not read yet.
        unsaved: what has changed since the last save.
        rows_without_room: number of rows of the last discovery that were not added because of ``max_beams``.
        dropped: number of beams that are not shown, as last reported.
        outputs_open: beams whose dose file may have to be searched for.
        watch_version: changes whenever :meth:`BeamStore.watched_beams` changes.
    """

    __slots__ = (
        *("rules", "_timeline", "beams", "cases", "forgotten", "sources", "counters", "events", "unconfirmed"),
        *("keep_decisions", "decisions"),
        *("rows_from_restart", "unsaved", "rows_without_room", "dropped", "outputs_open", "watch_version"),
    )

    def __init__(self, rules: StoreRules, at: float, timeline: Callable[[], Timeline]) -> None:
        self.rules = rules
        self._timeline = timeline
        self.beams: dict[BeamKey, Beam] = {}
        self.cases = CaseIndex()
        self.forgotten = ForgottenBeams()
        self.sources = Sources()
        self.counters = Counters(at)
        self.events: deque[BeamEvent] = deque(maxlen=_EVENTS_KEPT)
        self.keep_decisions = False
        self.decisions: deque[BeamDecision] = deque(maxlen=_EVENTS_KEPT)
        self.unconfirmed: set[BeamKey] = set()
        self.rows_from_restart: set[BeamKey] = set()
        self.unsaved = UnsavedChanges()
        self.rows_without_room = 0
        self.dropped = 0
        self.outputs_open: set[BeamKey] = set()
        self.watch_version = 0

    @property
    def timeline(self) -> Timeline:
        """How instants and wall-clock times correspond now."""
        return self._timeline()

    def source_of(self, beam: Beam) -> SourceState:
        """Return the source of the beam's log; all sources together if it has no log."""
        return self.sources.state(beam.source)

    def output_state(self, beam: Beam) -> OutputState:
        """Return whether the dose file of the beam's run is there."""
        return beam.output.state_for(beam.source, self.rules.output_sources)

    def mark_changed(self, key: BeamKey) -> None:
        """Record that a beam must be saved again."""
        self.unsaved.mark(key)

    def collect_decisions(self, beam: Beam) -> None:
        """Move a beam's decisions to ``decisions``; drop them if decisions are not kept."""
        if beam.decisions and self.keep_decisions:
            about = beam.row.key, beam.source, beam.run_sequence.number
            self.decisions += (BeamDecision(*about, each) for each in beam.decisions)
        beam.decisions = ()

    def add_beam(self, beam: Beam) -> None:
        """Add a beam that was found."""
        self.beams[beam.row.key] = beam
        self.mark_changed(beam.row.key)
        self.cases.add(beam.row.key)
        self.watch_version += 1

    def remove_beam(self, key: BeamKey) -> None:
        """Remove a beam, and remember how it was."""
        beam = self.beams.pop(key)
        self.cases.remove(key)
        self.rows_from_restart.discard(key)
        self.watch_version += 1
        self.unsaved.forgotten |= dict.fromkeys(self.forgotten.remember(beam, self.rules))
        self.mark_changed(key)

    def replace_beams(self, beams: dict[BeamKey, Beam]) -> None:
        """Replace all beams by those of an earlier process."""
        self.beams = beams
        self.cases = CaseIndex(beams)
        self._reopen_output_checks()

    def set_rules(self, rules: StoreRules) -> None:
        """Replace the configuration."""
        self.rules = rules
        self._reopen_output_checks()

    def _reopen_output_checks(self) -> None:
        """Check dose files from now on; runs that were shown as succeeded before that stay so."""
        self.outputs_open = set(self.beams)
        for key, beam in self.beams.items():
            if beam.state is BeamState.SUCCEEDED and beam.output.state is OutputState.NOT_DUE:
                beam.output = beam.output.skip()
                self.mark_changed(key)

    def confirm(self, source: str) -> None:
        """Record that a source was polled in this process, or left the configuration: its beams are judged again."""
        if self.unconfirmed:
            self.unconfirmed = {key for key in self.unconfirmed if self.beams[key].source != source}

    def hidden(self, shown: int) -> int:
        """Return how many beams are not shown because of ``max_beams``, if ``shown`` of them are."""
        return max(0, len(self.beams) - shown) + self.rows_without_room
