"""Every beam now known: the one place where state lives, and the one thing all readers read.

Discovery tells the board which beams there are, each source's monitor what their logs say, the mirror how the
database is. Readers get a :class:`~exporter.beams.snapshot.BoardSnapshot`. The lock is held for short copies only and
never while calling out; what is worth a log line is kept as a :class:`Notice` for whoever asks next.

A board may go on where one of an earlier process stopped. Its beams are then shown as they were until their source has
been looked at once, or their logs have been read: nobody knows yet what happened meanwhile, and what is known must not
be judged by today's clock.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

from exporter.beams.beam import Beam, SourceState, StatusRules
from exporter.beams.counts import Counts
from exporter.beams.estimate import StallRules
from exporter.beams.retirement import OVER_STATES, Retirement, may_leave
from exporter.beams.run import BeamRun
from exporter.beams.saved import Copies, SavedBoard
from exporter.beams.snapshot import (
    ENDED_STATES,
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    BoardSnapshot,
    DatabaseView,
    SourceView,
)
from exporter.logs.bookmark import Bookmark
from exporter.logs.events import Event
from exporter.logs.source import LogStat
from exporter.moments import moved
from exporter.plain_state import take

_SETTLE_SECONDS = 2.0
"""An ended run is counted when so much time has passed: the cause may follow its first symptom in the next read."""
_SETTLE_BY_ROW_SECONDS = 10.0
_NOTICES_KEPT = 10_000
BEAMS_HELD = 2
"""So many times ``max_beams`` are held: those that are not shown are followed all the same, for when others go."""
_BEAMS_AT_ONCE = 250
"""So many are worked out under the lock in some milliseconds."""
Thing = TypeVar("Thing")
_NO_SOURCE = SourceState()
_SAVED_AT_ONCE = 200
"""Beams copied under the lock at once: 3 to 6 ms."""


@dataclass(frozen=True, slots=True)
class BoardRules:
    """What the board needs of the configuration. Times in seconds."""

    stall: StallRules = field(default_factory=StallRules)
    statuses: StatusRules = field(default_factory=StatusRules)
    retention_seconds: float = 3600.0
    failed_retention_seconds: float = 86400.0
    max_beams: int = 10_000


@dataclass(frozen=True, slots=True)
class Watched:
    """A beam whose log a source should look for, or at.

    Args:
        row: the beam.
        path: the log followed, where it is this source's.
        rarely: nothing is expected of it soon.
    """

    row: BeamRow
    path: str | None
    rarely: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that deserves one log line.

    Args:
        kind: a beam's new state, ``new_run`` or ``beams_dropped``.
        view: the beam.
        before: the state it was in.
        number: of the new run, or of the beams dropped.
    """

    kind: str
    view: BeamView | None = None
    before: BeamState | None = None
    number: int = 0


class Board:
    """All beams, thread-safe.

    Args:
        rules: limits and meanings from the configuration; may be exchanged with :meth:`set_rules`.
        at: now, epoch seconds: runs that ended earlier are shown but not counted.
    """

    NOT_SAVED = frozenset(
        {
            *("_lock", "_rules", "_listeners", "_notices", "_dropped", "_turned_away", "_unconfirmed"),
            *("_copies", "_watch_version", "_moved_seconds"),
            "_counts",  # saved all the same: its own to_state fills its fields
            *("_sources", "_database", "_refused", "_errors"),  # of the process: they begin at 0 with it
        }
    )

    def __init__(self, rules: BoardRules, at: float) -> None:
        self._lock = threading.Lock()
        self._rules = rules
        self._counts = Counts(at)
        self._beams: dict[BeamKey, Beam] = {}
        self._retired = Retirement()
        self._sources: dict[str, SourceView] = {}
        self._source_states: dict[str, SourceState] = {}
        self._database: DatabaseView | None = None
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._notices: deque[Notice] = deque(maxlen=_NOTICES_KEPT)
        self._dropped = 0
        self._turned_away = 0
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._unconfirmed: set[BeamKey] = set()
        self._copies: Copies | None = None
        self._watch_version = 0
        self._moved_seconds = 0.0

    def listen(self, told: Callable[[], None]) -> None:
        """Have ``told`` called when a beam has made progress, in the thread that brought it; it must be quick."""
        with self._lock:
            self._listeners = (*self._listeners, told)

    def unlisten(self, told: Callable[[], None]) -> None:
        """Have ``told`` called no more."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != told)

    def _tell(self) -> None:
        """Call the listeners; never under the lock."""
        for told in self._listeners:
            told()

    def set_rules(self, rules: BoardRules) -> None:
        """Take a reloaded configuration; beams and their runs stay."""
        with self._lock:
            self._rules = rules

    def move(self, seconds: float) -> None:
        """The clock was set by so much: what began ten seconds ago did so by the new time, too."""
        with self._lock:
            self._moved_seconds += seconds
            self._counts.move(seconds)
            for key, beam in self._beams.items():
                beam.move(seconds)
                self._change().add(key)
            self._source_states = {
                name: SourceState(moved(each.down_since, seconds), moved(each.last_poll_at, seconds))
                for name, each in self._source_states.items()
            }
            self._sources = {
                name: replace(each, last_poll_at=moved(each.last_poll_at, seconds))
                for name, each in self._sources.items()
            }
            if self._database is not None:
                self._database = replace(self._database, last_write_at=moved(self._database.last_write_at, seconds))

    def excuse(self, seconds: float) -> None:
        """So much time has passed in which nobody could look: it is no beam's silence."""
        with self._lock:
            self._moved_seconds += seconds
            for key, beam in self._beams.items():
                beam.excuse(seconds)
                self._change().add(key)

    @property
    def moved_seconds(self) -> float:
        """How much moments have been moved in all: whoever keeps one elsewhere adds what came since."""
        return self._moved_seconds

    def moment(self, clock: Callable[[], float]) -> tuple[float, float]:
        """The time, and what :attr:`moved_seconds` was then: whoever is told both knows what time that is later."""
        while True:
            moved_seconds = self._moved_seconds
            at = clock()
            if moved_seconds == self._moved_seconds:
                return at, moved_seconds

    # Restarts

    def to_state(self) -> SavedBoard:
        """Everything that a next process needs to go on, as plain data, true at one moment. Called by one thread.

        Beams are copied a few at a time, since all of ten thousand would keep sources waiting for a quarter of a
        second; those that changed meanwhile are copied again in the end, together with the counters.
        """
        with self._lock:
            keys = list(self._beams)
            copies = self._copies = Copies()
        for some in _a_few_at_once(keys, _SAVED_AT_ONCE):
            with self._lock:
                copies.take(some, self._beams)
        with self._lock:
            self._copies = None
            return take(
                self,
                SavedBoard,
                beams=copies.of(self._beams),
                retired=self._retired.to_state(),
                source_states=dict(self._source_states),
                clocks=None,
                **self._counts.to_state(),
            )

    def _change(self) -> set[BeamKey]:
        """Beams that changed while they are being saved, where they are."""
        return self._copies.changed if self._copies is not None else set()

    def resume(self, state: SavedBoard, sources: Collection[str]) -> None:
        """Go on where the board stopped whose state this is; before anything else is told to this one.

        Args:
            state: from :meth:`to_state`.
            sources: those of the configuration.

        Raises:
            ValueError: it cannot be a board's state; nothing has been taken of it.
        """
        beams = {each.row.key: Beam.from_state(each) for each in state.beams}
        with self._lock:
            self._beams = beams
            self._unconfirmed = {key for key, beam in beams.items() if beam.source in sources}
            self._retired = Retirement(state.retired)
            self._source_states = {name: each for name, each in state.source_states.items() if name in sources}
            self._counts.resume(state)
            for beam in beams.values():
                # Told by its log just before the state was written, and not yet seen by anybody who judges states.
                if beam.run.ended_at is not None and beam.log_verdict() is not None:
                    self._evaluate(beam, beam.run.ended_at)

    def bookmarks(self, source: str) -> tuple[dict[BeamKey, Bookmark | None], float | None]:
        """Where a source goes on after a restart.

        Returns:
            How far the logs of its beams had been read (``None`` where one had been looked for in vain), and when the
            source was looked at last.
        """
        with self._lock:
            looked_at = self._source_states.get(source, SourceState()).last_poll_at
            beams = {key: self._beams[key] for key in self._unconfirmed}
            found: dict[BeamKey, Bookmark | None] = {
                key: beam.bookmark for key, beam in beams.items() if beam.source == source and beam.bookmark is not None
            }
            if looked_at is not None:
                for key, beam in self._beams.items():
                    if beam.source is None and beam.first_seen_at < looked_at:
                        found[key] = None
            return found, looked_at

    def saved(self, state: SavedBoard | None) -> None:
        """A next process would go on with this state; ``None``: with none.

        Counters are shown as they are there: what a next process counts again was never shown, and they never step
        back, which Prometheus would take for a restart from 0.
        """
        with self._lock:
            self._counts.saved(state)

    def unsaved_runs(self) -> bool:
        """Whether runs have been counted that are not shown yet."""
        with self._lock:
            return self._counts.unsaved_runs()

    def _confirm(self, source: str) -> None:
        """The source has been looked at, or cannot be: its beams live in this process now."""
        if self._unconfirmed:
            self._unconfirmed = {key for key in self._unconfirmed if self._beams[key].source != source}

    # Discovery

    def keys(self) -> frozenset[BeamKey]:
        """Every beam on the board."""
        with self._lock:
            return frozenset(self._beams)

    def take_rows(
        self,
        rows: Iterable[BeamRow],
        missing: Collection[BeamKey],
        at: float,
        *,
        moved_seconds: float | None = None,
    ) -> None:
        """Take what discovery has found.

        Args:
            rows: beams, known or new.
            missing: known beams that are not there any more.
            at: when discovery began to look.
            moved_seconds: what :attr:`moved_seconds` was then, where the clock may have been set since.
        """
        news = False
        with self._lock:
            self._turned_away = 0
            unmoved_at = at - (self._moved_seconds if moved_seconds is None else moved_seconds)
        for some in _a_few_at_once(list(rows)):
            with self._lock:
                for row in some:
                    news |= self._take_row(row, unmoved_at + self._moved_seconds)
        with self._lock:
            at = unmoved_at + self._moved_seconds
            for key in missing:
                beam = self._beams.get(key)
                if beam is not None and beam.gone_since is None:
                    beam.gone_since = at
        if news:
            self._tell()

    def _take_row(self, row: BeamRow, at: float) -> bool:
        """Returns whether the beam has another status now."""
        beam = self._beams.get(row.key)
        if beam is None:
            self._admit(row, at)
            return False
        if row.key in self._unconfirmed:
            # What its log says must be known before a row may end a run; rows are read again and again.
            return False
        news = row.status != beam.row.status
        before = beam.run, beam.succession.number, beam.counted
        looked_for = _looked_for(beam)
        if beam.take_row(row, at, self._rules.statuses):
            self._run_begun(beam, *before)
        self._watch_version += looked_for != _looked_for(beam)
        return news

    def _admit(self, row: BeamRow, at: float) -> None:
        if self._retired.stays_away(row):
            return
        if len(self._beams) >= BEAMS_HELD * self._rules.max_beams:
            # Rows are read again and again: it is taken when there is room.
            self._turned_away += 1
            return
        beam = Beam(row, at)
        if (run_number := self._retired.run_number(row.key)) is not None:
            beam.succession.number = run_number
        if row.status in self._rules.statuses.terminal:
            beam.terminal_since = at if row.updated_at is None else min(at, row.updated_at)
        self._beams[row.key] = beam
        self._watch_version += 1

    def refused(self, reasons: Mapping[str, int]) -> None:
        """Count ids that discovery refused, by reason."""
        with self._lock:
            self._refused.update(reasons)

    # Sources

    @property
    def watch_version(self) -> int:
        """Another number whenever :meth:`watched` would answer something else: ten thousand idle beams need no list."""
        return self._watch_version

    def watched(self, source: str) -> list[Watched]:
        """Beams whose logs ``source`` should look for; those followed elsewhere too, since a newer log may turn up."""
        with self._lock:
            return [
                Watched(
                    beam.row,
                    beam.path if beam.source == source else None,
                    beam.state is BeamState.EXPIRED and beam.terminal_since is None,
                )
                for beam in self._beams.values()
            ]

    def claim(self, key: BeamKey, source: str, path: str, stat: LogStat, at: float) -> bool:
        """A source has found a log of a beam, or looked at it again.

        Returns:
            Whether the source should follow it.
        """
        with self._lock:
            beam = self._beams.get(key)
            if beam is None:
                return False
            before = beam.run, beam.succession.number, beam.counted
            where = beam.source, beam.path
            claimed = beam.claim(source, path, stat, at)
            self._watch_version += where != (beam.source, beam.path)
            if beam.succession.number != before[1]:
                self._run_begun(beam, *before)
            return claimed

    def apply(
        self,
        key: BeamKey,
        path: str,
        events: list[Event],
        at: float,
        *,
        more: bool,
        read_at: float | None = None,
        moved_seconds: float | None = None,
        recent: bytes = b"",
        bookmark: Bookmark | None = None,
    ) -> None:
        """Take what one read of a beam's log has brought.

        Args:
            key: the beam.
            path: the log, as claimed; what comes from another is dropped.
            events: what it says, ending with a :class:`~exporter.logs.events.LogRead`.
            at: when it was written, as well as that is known.
            more: there is more to read at once.
            read_at: when it was read, where that was later.
            moved_seconds: what :attr:`moved_seconds` was when it was read, where the clock may have been set since.
            recent: the log's last bytes, for people.
            bookmark: how far it has been read now.
        """
        with self._lock:
            beam = self._beams.get(key)
            if beam is None or beam.path != path or beam.source is None:
                return
            read_at = at if read_at is None else read_at
            if moved_seconds is not None:
                at += self._moved_seconds - moved_seconds
                read_at += self._moved_seconds - moved_seconds
            self._change().add(key)
            self._unconfirmed.discard(key)
            beam.recent, beam.bookmark = recent, bookmark
            stage = beam.stage
            before = beam.run, beam.succession.number, beam.counted
            began = beam.apply(events, at, read_at=read_at, more=more, statuses=self._rules.statuses)
            if began:
                self._run_begun(beam, *before)
            run = beam.run
            for seconds in run.timed:
                self._counts.count_batch(beam.source, seconds)
            if run.anomalies != beam.anomalies:
                self._counts.count_anomalies(beam.source, run.anomalies - beam.anomalies)
                beam.anomalies = Counter(run.anomalies)
            if self._retired.was_counted(beam):
                beam.counted = True
            news = beam.stage != stage
        if news:
            self._tell()

    def publish_source(self, view: SourceView, at: float, *, moved_seconds: float | None = None) -> None:
        """Take a source's health after a look at it.

        Args:
            view: it.
            at: when the look was over.
            moved_seconds: what :attr:`moved_seconds` was then, where the clock may have been set since.
        """
        with self._lock:
            since = 0.0 if moved_seconds is None else self._moved_seconds - moved_seconds
            at += since
            self._sources[view.name] = view = replace(view, last_poll_at=moved(view.last_poll_at, since))
            state = self._source_states.get(view.name, SourceState())
            down_since = (state.down_since or at) if view.up is False else None
            self._source_states[view.name] = SourceState(down_since, view.last_poll_at)
            self._confirm(view.name)

    def remove_source(self, name: str) -> None:
        """A source has left the configuration."""
        with self._lock:
            self._sources.pop(name, None)
            self._source_states.pop(name, None)
            self._confirm(name)

    # Mirror, errors

    def publish_database(self, view: DatabaseView | None, *, moved_seconds: float | None = None) -> None:
        """Take the mirror's health.

        Args:
            view: it; ``None`` without a database. Where it says of no write, the last one is that of before.
            moved_seconds: what :attr:`moved_seconds` was when it was written, where the clock may have been set since.
        """
        with self._lock:
            if view is not None and view.last_write_at is not None:
                since = 0.0 if moved_seconds is None else self._moved_seconds - moved_seconds
                view = replace(view, last_write_at=view.last_write_at + since)
            elif view is not None and self._database is not None:
                view = replace(view, last_write_at=self._database.last_write_at)
            self._database = view

    def expect_errors(self, where: str) -> None:
        """Count errors of this part of the exporter from 0 on: the first one would not show in ``increase()`` else."""
        with self._lock:
            self._errors[where] += 0

    def count_error(self, where: str) -> None:
        """An unexpected error was survived, in this part of the exporter."""
        with self._lock:
            self._errors[where] += 1

    # Time

    def settle(self, at: float) -> None:
        """Let time pass: count runs that have ended, forget beams that ended long ago."""
        with self._lock:
            beams = list(self._beams.items())
            unmoved_at = at - self._moved_seconds
        for some in _a_few_at_once(beams):
            with self._lock:
                at = unmoved_at + self._moved_seconds
                for key, beam in some:
                    if self._unconfirmed and key in self._unconfirmed:
                        continue
                    self._judge(beam, at)
                    if beam.gone_since is None and beam.state not in OVER_STATES:
                        continue
                    self._count(beam, at)
                    if may_leave(beam, at, self._rules):
                        self._retire(key, beam)
        with self._lock:
            dropped = max(0, len(self._beams) - self._rules.max_beams) + self._turned_away
            if dropped and not self._dropped:
                self._notices.append(Notice("beams_dropped", number=dropped))
            self._dropped = dropped

    def notices(self) -> list[Notice]:
        """What happened since the last call."""
        with self._lock:
            notices = list(self._notices)
            self._notices.clear()
        return notices

    def snapshot(self, at: float) -> BoardSnapshot:
        """Everything readers may know, true at ``at``.

        The lock is let go between some beams and the next. What arrives meanwhile is in the snapshot where its beam is
        still to come.
        """
        with self._lock:
            shown = list(islice(self._beams.values(), self._rules.max_beams))
            unmoved_at = at - self._moved_seconds
        beams: list[BeamView] = []
        for some in _a_few_at_once(shown):
            with self._lock:
                at = unmoved_at + self._moved_seconds
                beams += [self._shown(beam, at) for beam in some]
        with self._lock:
            counts = self._counts.view()
            return BoardSnapshot(
                at=at,
                beams=tuple(beams),
                beams_dropped=max(0, len(self._beams) - len(beams)) + self._turned_away,
                sources=tuple(
                    _with_anomalies(view, counts.anomalies.get(view.name, {})) for view in self._sources.values()
                ),
                database=self._database,
                runs=counts.runs,
                batch_durations=counts.durations,
                discovery_refused=dict(self._refused),
                errors=dict(self._errors),
                ended=self._counts.ended,
            )

    def _shown(self, beam: Beam, at: float) -> BeamView:
        """The beam at a moment, worked out only where it did not stand still."""
        if self._unconfirmed and beam.row.key in self._unconfirmed:
            return self._view(beam, at)
        rules, rates, source = self._rules, self._counts.rates, self._source_state(beam)
        view = beam.still(at, rules.stall, rules.statuses, source, rates)
        if view is None:
            self._judge(beam, at)
            forecast = beam.forecast(rates)
            view = beam.view(at, rules.stall, rules.statuses, forecast)
            beam.keep(view, forecast, rates)
        return view

    def _source_state(self, beam: Beam) -> SourceState:
        return self._source_states.get(beam.source or "", _NO_SOURCE)

    def _judge(self, beam: Beam, at: float) -> None:
        """Evaluate the beam's state where it may be another than it was, and keep how long that holds."""
        rules, source = self._rules, self._source_state(beam)
        if not beam.stands_still(at, rules.stall, rules.statuses, source):
            self._evaluate(beam, at)
            beam.judged(at, rules.stall, rules.statuses, source)

    def _evaluate(self, beam: Beam, at: float) -> None:
        rules = self._rules
        state, since = beam.evaluate(at, rules.stall, rules.statuses, self._source_state(beam))
        if state is beam.state and since == beam.state_since:
            return
        before, beam.state, beam.state_since = beam.state, state, since
        beam.changed()
        if state is not before:
            self._watch_version += BeamState.EXPIRED in (state, before)
            self._notices.append(Notice(state.value, self._view(beam, at), before))

    def _view(self, beam: Beam, at: float) -> BeamView:
        return beam.view(at, self._rules.stall, self._rules.statuses, beam.forecast(self._counts.rates))

    def _run_begun(self, beam: Beam, before: BeamRun, number: int, counted: bool) -> None:
        """A new run has taken the place of ``before``."""
        self._change().add(beam.row.key)
        if before.ended and not counted:
            self._counts.count_run(beam, before, number, "succeeded" if before.succeeded else "failed", before.reason)
        # The state is still that of the run before: a view with it would show the new run as far as that one was.
        self._evaluate(beam, beam.waiting_since)
        self._notices.append(
            Notice("new_run", number=beam.succession.number, view=self._view(beam, beam.waiting_since))
        )

    def _count(self, beam: Beam, at: float) -> None:
        run = beam.run
        if beam.counted or beam.state not in ENDED_STATES or run.started_at is None:
            return
        wait = _SETTLE_SECONDS if run.ended else _SETTLE_BY_ROW_SECONDS
        if beam.backlog or at - beam.state_since < wait:
            return
        beam.counted = True
        self._change().add(beam.row.key)
        reason = (run.reason or "status") if beam.state is BeamState.FAILED else None
        self._counts.count_run(beam, run, beam.succession.number, beam.state.value, reason, beam.state_since)

    def _retire(self, key: BeamKey, beam: Beam) -> None:
        del self._beams[key]
        self._watch_version += 1
        self._retired.remember(beam, self._rules)


def _a_few_at_once(things: Sequence[Thing], at_once: int = _BEAMS_AT_ONCE) -> Iterator[Sequence[Thing]]:
    """Things in parts, for work under the lock: a source that has read news must not wait for all of ten thousand.

    The clock may be set between two parts: what is now must then be moved, too.
    """
    for start in range(0, len(things), at_once):
        yield things[start : start + at_once]
        time.sleep(0)  # whoever waits for the lock gets it


def _with_anomalies(view: SourceView, anomalies: Mapping[str, int]) -> SourceView:
    """The source with what did not fit in its logs."""
    if not anomalies:
        return view
    both = Counter(view.anomalies)
    both.update(anomalies)
    return replace(view, anomalies=dict(both))


def _looked_for(beam: Beam) -> tuple[object, ...]:
    """What :meth:`Board.watched` says of a beam's row."""
    row = beam.row
    return row.beam_path, row.hpc_job_id, row.log_path, beam.terminal_since is None
