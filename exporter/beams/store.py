"""Every beam now known: the one place where state lives, and the one thing all readers read.

Discovery tells the store which beams there are, each source's monitor what their logs say, the mirror how the
database is. Readers get a :class:`~exporter.beams.snapshot.StoreSnapshot`. The lock is held for short copies only and
never while calling out; what is worth a log line is kept as a :class:`BeamEvent` for whoever asks next.

What becomes of the beams is the :class:`~exporter.beams.roster.Roster`'s, which knows no threads: here is who may touch
it when, and by which clock. A store may go on where one of an earlier process stopped (:mod:`exporter.beams.restart`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from exporter.beams import restart
from exporter.beams.output import OutputSearchResult
from exporter.beams.roster import Roster
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
from exporter.logs.events import Event
from exporter.process.clock import UNSET_CLOCK, ClockReading, Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat

_BEAMS_AT_ONCE = 250
"""So many are worked out under the lock in some milliseconds."""
_UNCHANGED_AT_ONCE = 1000
"""So many whose states last take 0.3 ms: the thread that advances them need not give way before."""
_SAVED_AT_ONCE = 200
"""Beams encoded under the lock at once: 3 to 6 ms."""
Thing = TypeVar("Thing")


class BeamStore:
    """All beams, thread-safe.

    Args:
        rules: limits and meanings from the configuration; may be exchanged with :meth:`set_rules`.
        at: the present instant: runs that ended earlier are shown but not counted.
        timeline: how instants and wall-clock times correspond now; where nothing is passed they are the same.
    """

    NOT_SAVED = frozenset(
        {
            "_roster",  # saved all the same, by exporter.beams.restart
            *("_lock", "_listeners", "_timeline"),
            *("_database", "_refused", "_errors"),  # of the process: they begin at 0 with it
        }
    )

    def __init__(self, rules: StoreRules, at: float, timeline: Callable[[], Timeline] = lambda: UNSET_CLOCK) -> None:
        self._lock = threading.Lock()
        self._timeline = timeline
        self._roster = Roster(rules, at, timeline)
        self._database: DatabaseView | None = None
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._listeners: tuple[Callable[[], None], ...] = ()

    def add_listener(self, told: Callable[[], None]) -> None:
        """Have ``told`` called when a beam has made progress, in the thread that brought it; it must be quick."""
        with self._lock:
            self._listeners = (*self._listeners, told)

    def remove_listener(self, told: Callable[[], None]) -> None:
        """Have ``told`` called no more."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != told)

    def _tell(self) -> None:
        """Call the listeners; never under the lock."""
        for told in self._listeners:
            told()

    def set_rules(self, rules: StoreRules) -> None:
        """Take a reloaded configuration; beams and their runs stay."""
        with self._lock:
            self._roster.set_rules(rules)

    @property
    def timeline(self) -> Timeline:
        """How instants and wall-clock times correspond now."""
        return self._timeline()

    # Restarts

    def on_unsaved(self, notify: Callable[[], None] | None) -> None:
        """Have ``notify`` called when there is something to save; it is called under the lock and must be quick."""
        with self._lock:
            self._roster.unsaved.notify = notify

    def collect_changes(self, clocks: ClockReading | None = None) -> StoreChanges:
        """Return what has changed since the last call, true at one moment. Called by one thread.

        Beams are encoded a few at a time, since all of ten thousand would keep sources waiting; those that changed
        meanwhile are encoded again in the end, together with the counters.

        Args:
            clocks: by which clocks times are.
        """
        unsaved = self._roster.unsaved
        with self._lock:
            unsaved.begin()
            keys = list(unsaved.beams)
        beams: dict[BeamKey, bytes | None] = {}
        for some in _a_few_at_once(keys, _SAVED_AT_ONCE):
            with self._lock:
                for key in some:
                    unsaved.beams.pop(key, None)
                beams |= encode_beams(some, self._roster.beams)
        with self._lock:
            return restart.changes(self._roster, beams, clocks)

    def confirm_saved(self, changes: StoreChanges) -> None:
        """Note that these changes are saved.

        Counters are shown as they are there: what a next process counts again was never shown, and they never step
        back, which Prometheus would take for a restart from 0.
        """
        with self._lock:
            ended = self._roster.unsaved.ended
            for run in changes.ended:
                if ended and ended[0] is run:
                    ended.popleft()
            self._roster.counts.saved(changes.counters)

    def show_saved_counters(self, counters: SavedCounters) -> None:
        """Show these counters, which are saved, until :meth:`confirm_saved`; see there why."""
        with self._lock:
            self._roster.counts.saved(counters)

    def reject_saved(self) -> None:
        """Note that nothing can be saved: counters are shown as they are, and everything must be saved again."""
        with self._lock:
            self._roster.counts.saved(None)
            restart.mark_all(self._roster)

    def source_states(self) -> dict[str, SourceState]:
        """The sources, as they are saved."""
        with self._lock:
            return self._roster.sources.to_state()

    def resume(self, state: RestoredState, sources: Collection[str], *, runs_are_saved: bool = True) -> None:
        """Go on where the store stopped whose state this is; before anything else is told to this one.

        Args:
            state: its beams are the store's from now on.
            sources: those of the configuration.
            runs_are_saved: its runs that ended are in the history already.
        """
        with self._lock:
            restart.resume(self._roster, state, sources, self._timeline())
            if not runs_are_saved:
                self._roster.unsaved.ended.extend(state.ended)

    def checkpoints(self, source: str) -> tuple[dict[BeamKey, Checkpoint | None], float | None]:
        """Where a source goes on after a restart.

        Returns:
            How far the logs of its beams had been read (``None`` where one had been looked for in vain), and when the
            source was looked at last.
        """
        with self._lock:
            return restart.checkpoints(self._roster, source)

    # Discovery

    def keys(self) -> frozenset[BeamKey]:
        """Every beam on the store."""
        with self._lock:
            return frozenset(self._roster.beams)

    def update_rows(self, rows: Iterable[BeamRow], missing: Collection[BeamKey], at: float) -> None:
        """Take what discovery has found.

        Args:
            rows: beams, known or new.
            missing: known beams that are not there any more.
            at: when discovery began to look.
        """
        news = False
        with self._lock:
            self._roster.turned_away = 0
        for some in _a_few_at_once(list(rows)):
            with self._lock:
                for row in some:
                    news |= self._roster.take_row(row, at)
        with self._lock:
            self._roster.miss(missing, at)
        if news:
            self._tell()

    def count_refused(self, reasons: Mapping[str, int]) -> None:
        """Count ids that discovery refused, by reason."""
        with self._lock:
            self._refused.update(reasons)

    # Sources

    @property
    def watch_version(self) -> int:
        """Changes whenever :meth:`watched_beams` changes, so that a poll of idle beams builds no list."""
        return self._roster.watch_version

    def watched_beams(self, source: str) -> list[WatchedBeam]:
        """Beams whose logs ``source`` should look for; those followed elsewhere too, since a newer log may turn up."""
        with self._lock:
            return self._roster.watched(source)

    def clock_offset_seconds(self, source: str) -> float | None:
        """How much the files of a source are dated later than our clock says; ``None`` while that is not known."""
        with self._lock:
            return self._roster.sources.clock_offset_seconds(source, self._timeline())

    def set_clock_offset(self, source: str, seconds: float | None, *, clock_steps: int) -> None:
        """Take what was learned of the clock that dates a source's files.

        Args:
            source: its name.
            seconds: how much later it is than ours; negative where it is behind; ``None`` where that is not known.
            clock_steps: how often our clock had been set then; nothing is taken where it was set since.
        """
        with self._lock:
            if clock_steps == self._timeline().clock_steps:
                self._roster.set_clock_offset(source, seconds)

    def claim(
        self,
        key: BeamKey,
        source: str,
        path: str,
        stat: LogStat,
        at: float,
        *,
        moved: bool = False,
        written: bool = False,
    ) -> bool:
        """A source has found a log of a beam, or looked at it again.

        Args:
            key: the beam.
            source, path, stat: the log.
            at: now.
            moved: by the beam's row its log is not where the one is that is followed.
            written: it appeared or grew since the last poll.

        Returns:
            Whether the source should follow it.
        """
        with self._lock:
            return self._roster.claim(key, source, path, stat, at, moved=moved, written=written)

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
        """Take what one read of a beam's log has brought.

        Args:
            key: the beam.
            path: the log, as claimed; what comes from another is dropped.
            events: what it says, ending with a :class:`~exporter.logs.events.LogRead`.
            at: when it was written, as well as that is known.
            more: there is more to read at once.
            read_at: when it was read, where that was later.
            recent: the log's last bytes, for people.
            checkpoint: how far it has been read now.
            polled_at: the poll before, which did not see what this read has brought;
                ``None`` where there was none.

        Returns:
            Whether the log must be read again from its beginning, as one that has been replaced.
        """
        with self._lock:
            news = self._roster.apply(
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
            again = self._roster.must_read_again(key)
        if news:
            self._tell()
        return again

    def output_searches_due(self, source: str, at: float, limit: int) -> Sequence[OutputSearch]:
        """For which beams a source should look for the dose file now.

        Args:
            source: its name.
            at: now.
            limit: at most so many.
        """
        if not self._roster.outputs_open:
            return ()
        with self._lock:
            return self._roster.output_searches_due(source, at, limit)

    def update_output(self, question: OutputSearch, source: str, look: OutputSearchResult, at: float) -> None:
        """Take what a look for a dose file has shown.

        Args:
            question: for what it was.
            source: where.
            look: what it has shown.
            at: when.
        """
        with self._lock:
            news = self._roster.update_output(question, source, look, at)
        if news:
            self._tell()

    def add_source(self, name: str, kind: str = "local") -> None:
        """There is a source of this name: a beam without a log may have one there until the source has been polled.

        Args:
            name: the source's name.
            kind: ``local`` or ``ssh``.
        """
        with self._lock:
            self._roster.add_source(name, kind)

    def update_source(self, view: SourceView, at: float) -> None:
        """Take a source's health after a look at it.

        Args:
            view: it.
            at: when the look was over.
        """
        with self._lock:
            self._roster.update_source(view, at)

    def remove_source(self, name: str) -> None:
        """A source has left the configuration."""
        with self._lock:
            self._roster.remove_source(name)

    # Mirror, errors

    def update_database(self, view: DatabaseView | None) -> None:
        """Take the mirror's health.

        Args:
            view: it; ``None`` without a database. Where it says of no write, the last one is that of before.
        """
        with self._lock:
            if view is not None and view.last_write_at is None and self._database is not None:
                view = replace(view, last_write_at=self._database.last_write_at)
            self._database = view

    def declare_errors(self, where: str) -> None:
        """Count errors of this part of the exporter from 0 on: the first one would not show in ``increase()`` else."""
        with self._lock:
            self._errors[where] += 0

    def count_error(self, where: str) -> None:
        """An unexpected error was survived, in this part of the exporter."""
        with self._lock:
            self._errors[where] += 1

    # Time

    def advance(self, at: float) -> None:
        """Let time pass: count runs that have ended, forget beams that ended long ago."""
        with self._lock:
            beams = list(self._roster.beams.items())
        due: set[str] = set()
        unchanged = 0
        for start in range(0, len(beams), _BEAMS_AT_ONCE):
            some = beams[start : start + _BEAMS_AT_ONCE]
            with self._lock:
                retired, judged = self._roster.settle(some, at)
            due |= retired
            unchanged += len(some)
            if judged or unchanged > _UNCHANGED_AT_ONCE:
                unchanged = 0
                time.sleep(0)  # whoever waits for the lock gets it
        for cases in _a_few_at_once(sorted(due)):
            with self._lock:
                self._roster.retire(cases, at)
        with self._lock:
            self._roster.report_dropped()

    def pop_events(self) -> list[BeamEvent]:
        """What happened since the last call."""
        with self._lock:
            events = list(self._roster.events)
            self._roster.events.clear()
        return events

    def snapshot(self, at: float) -> StoreSnapshot:
        """Everything readers may know, true at ``at``.

        The lock is let go between some beams and the next. What arrives meanwhile is in the snapshot where its beam is
        still to come.
        """
        roster = self._roster
        with self._lock:
            shown = list(islice(roster.beams.values(), roster.rules.max_beams))
        beams: list[BeamView] = []
        for some in _a_few_at_once(shown):
            with self._lock:
                beams += roster.views(some, at)
        with self._lock:
            counts, timeline, database = roster.counts.view(), self._timeline(), self._database
            if database is not None and database.last_write_at is not None:
                database = replace(database, last_write_at=timeline.to_wall(database.last_write_at))
            return StoreSnapshot(
                at=timeline.to_wall(at),
                wall_offset_seconds=timeline.wall_offset_seconds,
                beams=tuple(beams),
                beams_dropped=roster.beyond(len(beams)),
                sources=roster.sources.views(counts.anomalies, timeline),
                database=database,
                runs=counts.runs,
                batch_durations=counts.durations,
                discovery_refused=dict(self._refused),
                errors=dict(self._errors),
                ended=roster.counts.ended(timeline),
                rows_from_restart=frozenset(roster.rows_from_restart),
            )


def _a_few_at_once(things: Sequence[Thing], at_once: int = _BEAMS_AT_ONCE) -> Iterator[Sequence[Thing]]:
    """Things in parts, for work under the lock: a source that has read news must not wait for all of ten thousand."""
    for start in range(0, len(things), at_once):
        yield things[start : start + at_once]
        time.sleep(0)  # whoever waits for the lock gets it
