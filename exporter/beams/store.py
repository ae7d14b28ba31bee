"""The state of all beams: the one place where it lives, and the one thing that all readers read.

Discovery updates rows, the pollers of the sources what logs say, the mirror how the database is. Readers get a
:class:`~exporter.beams.snapshot.StoreSnapshot`. Each method holds the lock for short copies only and never while
calling out. What a call changes is decided in the modules that :mod:`exporter.beams.store_data` names.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from exporter.beams import log_updates, output_searches, reads, restart, row_updates, transitions
from exporter.beams.decisions import BeamDecision
from exporter.beams.explanation import Explanation
from exporter.beams.output import OutputSearchResult
from exporter.beams.rules import StoreRules
from exporter.beams.saved import RestoredState, SavedCounters, StoreChanges, encode_beams
from exporter.beams.snapshot import (
    BeamEvent,
    BeamKey,
    BeamRow,
    BeamView,
    DatabaseView,
    OutputSearch,
    SourceView,
    StoreSnapshot,
    WatchedBeam,
)
from exporter.beams.sources import SourceState
from exporter.beams.store_data import StoreData
from exporter.logs.events import Event
from exporter.process.clock import UNSET_CLOCK, ClockReading, Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat

_BEAMS_AT_ONCE = 250
"""Beams handled while the lock is held: some milliseconds of work."""
_UNCHANGED_AT_ONCE = 1000
"""Beams with unchanged states handled before another thread may have the lock: 0.3 ms of work."""
_SAVED_AT_ONCE = 200
"""Beams encoded while the lock is held: 3 to 6 ms of work."""
Thing = TypeVar("Thing")


class BeamStore:
    """All beams; thread-safe. Instants are on the steady timeline (:mod:`exporter.process.clock`).

    Args:
        rules: limits and meanings from the configuration; :meth:`set_rules` replaces them.
        at: the present instant: runs that ended earlier are shown but not counted.
        timeline: returns how instants and wall-clock times correspond now; by default they are the same.
    """

    def __init__(self, rules: StoreRules, at: float, timeline: Callable[[], Timeline] = lambda: UNSET_CLOCK) -> None:
        self._lock = threading.Lock()
        self._timeline = timeline
        self._data = StoreData(rules, at, timeline)
        self._database: DatabaseView | None = None
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._listeners: tuple[Callable[[], None], ...] = ()

    @property
    def timeline(self) -> Timeline:
        """How instants and wall-clock times correspond now."""
        return self._timeline()

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever a beam has made progress, in the thread that brought it; it must be quick."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: Callable[[], None]) -> None:
        """Stop calling ``listener``."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def _notify(self, changed: bool) -> None:
        """Call the listeners after a change; never under the lock."""
        for listener in self._listeners if changed else ():
            listener()

    def set_rules(self, rules: StoreRules) -> None:
        """Replace the configuration; beams and their runs stay."""
        with self._lock:
            self._data.set_rules(rules)

    # Restarts

    def on_unsaved(self, notify: Callable[[], None] | None) -> None:
        """Call ``notify`` when there is something to save. It is called under the lock and must be quick."""
        with self._lock:
            self._data.unsaved.notify = notify

    def collect_changes(self, clocks: ClockReading | None = None) -> StoreChanges:
        """Return what has changed since the last call, all true at one instant. For one thread.

        Beams are encoded in groups, since encoding ten thousand would keep sources waiting. Beams that change meanwhile
        are encoded again at the end, together with the counters.

        Args:
            clocks: the clocks at present; the next process continues the timeline from them.
        """
        unsaved = self._data.unsaved
        with self._lock:
            unsaved.begin()
            keys = list(unsaved.beams)
        beams: dict[BeamKey, bytes | None] = {}
        for some in _in_parts(keys, _SAVED_AT_ONCE):
            with self._lock:
                for key in some:
                    unsaved.beams.pop(key, None)
                beams |= encode_beams(some, self._data.beams)
        with self._lock:
            return restart.changes(self._data, beams, clocks)

    def confirm_saved(self, changes: StoreChanges) -> None:
        """Record that these changes are saved.

        Readers see the saved counters. Others would be counted again after a crash, and to Prometheus a counter that
        steps back looks like a restart from 0.
        """
        with self._lock:
            ended = self._data.unsaved.ended
            for run in changes.ended:
                if ended and ended[0] is run:
                    ended.popleft()
            self._data.counters.show_saved(changes.counters)

    def show_saved_counters(self, counters: SavedCounters) -> None:
        """Show readers these saved counters until :meth:`confirm_saved` brings newer ones."""
        with self._lock:
            self._data.counters.show_saved(counters)

    def reject_saved(self) -> None:
        """Record that saving failed: show the present counters, and save everything again."""
        with self._lock:
            self._data.counters.show_saved(None)
            restart.mark_all(self._data)

    def source_states(self) -> dict[str, SourceState]:
        """Return the health of each source, as it is saved."""
        with self._lock:
            return self._data.sources.to_state()

    def resume(self, state: RestoredState, sources: Collection[str], *, runs_are_saved: bool = True) -> None:
        """Continue the state of an earlier process. Call it before anything else.

        Args:
            state: the saved state; its beams belong to this store from now on.
            sources: the sources of the configuration.
            runs_are_saved: the history holds its ended runs already.
        """
        with self._lock:
            restart.resume(self._data, state, sources, self._timeline())
            if not runs_are_saved:
                self._data.unsaved.ended.extend(state.ended)

    def checkpoints(self, source: str) -> tuple[dict[BeamKey, Checkpoint | None], float | None]:
        """Return where a source continues after a restart.

        Returns:
            How far the log of each beam had been read (``None`` if none had been found), and when the source was polled
            last.
        """
        with self._lock:
            return restart.checkpoints(self._data, source)

    # Discovery

    def keys(self) -> frozenset[BeamKey]:
        """Return the keys of all beams."""
        with self._lock:
            return frozenset(self._data.beams)

    def update_rows(self, rows: Iterable[BeamRow], missing: Collection[BeamKey], at: float) -> None:
        """Apply what discovery has found.

        Args:
            rows: beams, known or new.
            missing: known beams that do not exist any more.
            at: when discovery began to read.
        """
        changed = False
        with self._lock:
            self._data.rows_without_room = 0
        for some in _in_parts(list(rows)):
            with self._lock:
                for row in some:
                    changed |= row_updates.update_row(self._data, row, at)
        with self._lock:
            row_updates.mark_missing(self._data, missing, at)
        self._notify(changed)

    def count_refused(self, reasons: Mapping[str, int]) -> None:
        """Count ids that discovery refused, by reason."""
        with self._lock:
            self._refused.update(reasons)

    # Sources

    @property
    def watch_version(self) -> int:
        """Changes whenever :meth:`watched_beams` changes, so that a poll of idle beams builds no list."""
        return self._data.watch_version

    def watched_beams(self, source: str) -> list[WatchedBeam]:
        """Return the beams whose logs a source looks for.

        Beams whose logs are followed on other sources are included, since a newer log may appear.
        """
        with self._lock:
            return log_updates.watched_beams(self._data, source)

    def clock_offset_seconds(self, source: str) -> float | None:
        """Return how much later a source dates its files than our clock says; ``None`` while that is not known."""
        with self._lock:
            return self._data.sources.clock_offset_seconds(source, self._timeline())

    def set_clock_offset(self, source: str, seconds: float | None, *, clock_steps: int) -> None:
        """Record how much later a source dates its files than our clock says.

        Args:
            source: its name.
            seconds: the offset, negative if its clock is behind ours; ``None`` while that is not known.
            clock_steps: how often our clock had been set when that was learned. An older offset is ignored.
        """
        with self._lock:
            if clock_steps == self._timeline().clock_steps:
                log_updates.set_clock_offset(self._data, source, seconds)

    def claim(
        self,
        key: BeamKey,
        source: str,
        path: str,
        stat: LogStat,
        at: float,
        *,
        path_moved: bool = False,
        written: bool = False,
    ) -> bool:
        """Decide whether a source follows a log that it has found, or polled again.

        Args:
            key: the beam.
            source, path, stat: the log.
            at: the present instant.
            path_moved: the row names another place than that of the log that is followed now.
            written: the log appeared or grew since the last poll.

        Returns:
            Whether the source follows it.
        """
        with self._lock:
            return log_updates.claim_log(
                self._data, key, source, path, stat, at, path_moved=path_moved, written=written
            )

    def apply(
        self,
        key: BeamKey,
        path: str,
        events: list[Event],
        at: float,
        *,
        more: bool,
        read_at: float | None = None,
        recent: bytes = b"",
        checkpoint: Checkpoint | None = None,
        polled_at: float | None = None,
    ) -> bool:
        """Apply what one read of a beam's log has brought.

        Args:
            key: the beam.
            path: the log; a read of another log than the claimed one is ignored.
            events: what it says, ending with a :class:`~exporter.logs.events.LogRead`.
            at: when it was written, as far as known.
            more: unread bytes are left.
            read_at: when it was read, if that was later.
            recent: the log's last bytes, for people.
            checkpoint: how far it has been read now.
            polled_at: when the poll before began, which did not see this; ``None`` without one.

        Returns:
            Whether the log must be read again from its beginning, as one that has been replaced.
        """
        with self._lock:
            progressed, read_again = log_updates.apply_read(
                self._data,
                key,
                path,
                events,
                at,
                read_at=at if read_at is None else read_at,
                more=more,
                recent=recent,
                checkpoint=checkpoint,
                polled_at=polled_at,
            )
        self._notify(progressed)
        return read_again

    def output_searches_due(self, source: str, at: float, limit: int) -> Sequence[OutputSearch]:
        """Return the dose files that a source should search for now.

        Args:
            source: its name.
            at: the present instant.
            limit: largest number of searches.
        """
        if not self._data.outputs_open:
            return ()
        with self._lock:
            return output_searches.due_searches(self._data, source, at, limit)

    def update_output(self, search: OutputSearch, source: str, result: OutputSearchResult, at: float) -> None:
        """Apply the result of a search for a dose file.

        Args:
            search: the search.
            source: the source that made it.
            result: what it found.
            at: when.
        """
        with self._lock:
            changed = output_searches.update_output(self._data, search, source, result, at)
        self._notify(changed)

    def add_source(self, name: str, kind: str = "local") -> None:
        """Add a source. Until it has been polled, a beam without a log may have one there.

        Args:
            name: its name.
            kind: ``local`` or ``ssh``.
        """
        with self._lock:
            self._data.sources.add(name, kind)

    def update_source(self, view: SourceView, at: float) -> None:
        """Update the health of a source after a poll that ended at an instant."""
        with self._lock:
            self._data.sources.update(view, at)
            self._data.confirm(view.name)

    def remove_source(self, name: str) -> None:
        """Remove a source that has left the configuration."""
        with self._lock:
            self._data.sources.remove(name)
            self._data.confirm(name)

    # Mirror, errors

    def update_database(self, view: DatabaseView | None) -> None:
        """Update the health of the mirror.

        Args:
            view: its health; ``None`` without a database. If it names no last write, the one before is kept.
        """
        with self._lock:
            if view is not None and view.last_write_at is None and self._database is not None:
                view = replace(view, last_write_at=self._database.last_write_at)
            self._database = view

    def declare_errors(self, where: str) -> None:
        """Count errors of a part of the exporter from 0 on, so that ``increase()`` shows the first one."""
        with self._lock:
            self._errors[where] += 0

    def count_error(self, where: str) -> None:
        """Count an unexpected error that a part of the exporter has survived."""
        with self._lock:
            self._errors[where] += 1

    # Time and readers

    def advance(self, at: float) -> None:
        """Let time pass: record states, count runs that have ended, remove beams that ended long ago."""
        with self._lock:
            beams = list(self._data.beams.items())
        expired: set[str] = set()
        unchanged = 0
        for start in range(0, len(beams), _BEAMS_AT_ONCE):
            some = beams[start : start + _BEAMS_AT_ONCE]
            with self._lock:
                cases, judged = transitions.advance_beams(self._data, some, at)
            expired |= cases
            unchanged += len(some)
            if judged or unchanged > _UNCHANGED_AT_ONCE:
                unchanged = 0
                time.sleep(0)  # lets another thread have the lock
        for case_ids in _in_parts(sorted(expired)):
            with self._lock:
                transitions.remove_cases(self._data, case_ids, at)
        with self._lock:
            transitions.report_hidden(self._data)

    def pop_events(self) -> list[BeamEvent]:
        """Return what has happened since the last call."""
        with self._lock:
            events = list(self._data.events)
            self._data.events.clear()
        return events

    def keep_decisions(self, keep: bool) -> None:
        """Keep every decision about a beam for :meth:`pop_decisions`, or stop doing so."""
        with self._lock:
            self._data.keep_decisions = keep

    def pop_decisions(self) -> list[BeamDecision]:
        """Return what was decided about beams since the last call, if decisions are kept; the last 10 000 at most."""
        with self._lock:
            decisions = list(self._data.decisions)
            self._data.decisions.clear()
        return decisions

    def explain(self, key: BeamKey, at: float) -> Explanation | None:
        """Return the evidence about a beam, and the rules by which it was judged; ``None`` for an unknown beam.

        Args:
            key: the beam.
            at: now.
        """
        with self._lock:
            return reads.explain(self._data, key, at)

    def snapshot(self, at: float) -> StoreSnapshot:
        """Return everything that readers may know, true at an instant. It changes nothing.

        The lock is released between groups of beams: what arrives meanwhile shows in the groups that are still to come.
        """
        data = self._data
        with self._lock:
            beams, timeline = list(islice(data.beams.values(), data.rules.max_beams)), self._timeline()
        views: list[BeamView] = []
        for some in _in_parts(beams):
            with self._lock:
                views += reads.views_at(data, some, at, timeline)
        with self._lock:
            return reads.make_snapshot(
                data, views, at, timeline, database=self._database, refused=self._refused, errors=self._errors
            )


def _in_parts(things: Sequence[Thing], size: int = _BEAMS_AT_ONCE) -> Iterator[Sequence[Thing]]:
    """Split work that is done under the lock, so that a source that has read news need not wait for all of it."""
    for start in range(0, len(things), size):
        yield things[start : start + size]
        time.sleep(0)  # lets another thread have the lock
