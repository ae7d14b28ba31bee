"""Every beam now known: the one place where state lives, and the one thing all readers read.

Discovery tells the board which beams there are, each source's monitor what their logs say, the mirror how the
database is. Readers get a :class:`~exporter.beams.snapshot.BoardSnapshot`. The lock is held for short copies only and
never while calling out; what is worth a log line is kept as a :class:`Notice` for whoever asks next.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from exporter.beams.beam import Beam, SourceState, StatusRules
from exporter.beams.estimate import StallRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import (
    ENDED_STATES,
    UNKNOWN_SOURCE,
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    BoardSnapshot,
    DatabaseView,
    EndedRun,
    HistogramView,
    SourceView,
)
from exporter.logs.events import Event
from exporter.logs.source import LogStat

BATCH_SECONDS_BOUNDS = (0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
_SETTLE_SECONDS = 2.0
"""An ended run is counted when so much time has passed: the cause may follow its first symptom in the next read."""
_SETTLE_BY_ROW_SECONDS = 10.0
_GONE_SECONDS = 60.0
_ENDED_RUNS_KEPT = 200
_RATES_KEPT = 1000
_NOTICES_KEPT = 10_000


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


@dataclass(frozen=True, slots=True)
class _Retired:
    """What is remembered of a beam that left the board, so that it does not come back as it was."""

    status: str | None
    updated_at: float | None
    run_number: int
    stat: LogStat | None


class Board:
    """All beams, thread-safe.

    Args:
        rules: limits and meanings from the configuration; may be exchanged with :meth:`set_rules`.
        at: now, epoch seconds: runs that ended earlier are shown but not counted.
    """

    def __init__(self, rules: BoardRules, at: float) -> None:
        self._lock = threading.Lock()
        self._rules = rules
        self._since = at
        self._beams: dict[BeamKey, Beam] = {}
        self._retired: dict[BeamKey, _Retired] = {}
        self._sources: dict[str, SourceView] = {}
        self._source_states: dict[str, SourceState] = {}
        self._database: DatabaseView | None = None
        self._runs: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, tuple[list[int], list[float]]] = {}
        self._anomalies: dict[str, Counter[str]] = {}
        self._refused: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._rates: dict[tuple[str, float], float] = {}
        self._ended: deque[EndedRun] = deque(maxlen=_ENDED_RUNS_KEPT)
        self._notices: deque[Notice] = deque(maxlen=_NOTICES_KEPT)
        self._dropped = 0
        self._watch_version = 0

    def set_rules(self, rules: BoardRules) -> None:
        """Take a reloaded configuration; beams and their runs stay."""
        with self._lock:
            self._rules = rules

    # Discovery

    def keys(self) -> frozenset[BeamKey]:
        """Every beam on the board."""
        with self._lock:
            return frozenset(self._beams)

    def take_rows(self, rows: Iterable[BeamRow], missing: Collection[BeamKey], at: float) -> None:
        """Take what discovery has found.

        Args:
            rows: beams, known or new.
            missing: known beams that are not there any more.
            at: now.
        """
        with self._lock:
            for row in rows:
                beam = self._beams.get(row.key)
                if beam is None:
                    self._admit(row, at)
                    continue
                before = beam.run, beam.succession.number, beam.counted
                looked_for = _looked_for(beam)
                if beam.take_row(row, at, self._rules.statuses):
                    self._run_begun(beam, *before)
                self._watch_version += looked_for != _looked_for(beam)
            for key in missing:
                beam = self._beams.get(key)
                if beam is not None and beam.gone_since is None:
                    beam.gone_since = at

    def _admit(self, row: BeamRow, at: float) -> None:
        retired = self._retired.get(row.key)
        if retired is not None and row.status == retired.status and row.updated_at == retired.updated_at:
            return
        beam = Beam(row, at)
        if retired is not None:
            beam.succession.number = retired.run_number
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
        self, key: BeamKey, path: str, events: list[Event], at: float, *, more: bool, recent: bytes = b""
    ) -> None:
        """Take what one read of a beam's log has brought.

        Args:
            key: the beam.
            path: the log, as claimed; what comes from another is dropped.
            events: what it says, ending with a :class:`~exporter.logs.events.LogRead`.
            at: when it was written, as well as that is known.
            more: there is more to read at once.
            recent: the log's last bytes, for people.
        """
        with self._lock:
            beam = self._beams.get(key)
            if beam is None or beam.path != path or beam.source is None:
                return
            beam.recent = recent
            before = beam.run, beam.succession.number, beam.counted
            began = beam.apply(events, at, more=more, statuses=self._rules.statuses)
            if began:
                self._run_begun(beam, *before)
            run = beam.run
            for seconds in run.timed:
                counts, total = self._durations.setdefault(beam.source, ([0] * (len(BATCH_SECONDS_BOUNDS) + 1), [0.0]))
                counts[bisect.bisect_left(BATCH_SECONDS_BOUNDS, seconds)] += 1
                total[0] += seconds
            if run.anomalies != beam.anomalies:
                self._anomalies.setdefault(beam.source, Counter()).update(run.anomalies - beam.anomalies)
                beam.anomalies = Counter(run.anomalies)
            self._recount_after_retirement(beam)

    def _recount_after_retirement(self, beam: Beam) -> None:
        """A beam that left and came back with the log it had: its run was counted then."""
        retired = self._retired.get(beam.row.key)
        if retired is not None and beam.run.ended and beam.stat is not None and beam.stat == retired.stat:
            beam.counted = True

    def publish_source(self, view: SourceView, at: float) -> None:
        """Take a source's health after a look at it."""
        with self._lock:
            self._sources[view.name] = view
            state = self._source_states.get(view.name, SourceState())
            down_since = (state.down_since or at) if view.up is False else None
            self._source_states[view.name] = SourceState(down_since, view.last_poll_at)

    def remove_source(self, name: str) -> None:
        """A source has left the configuration."""
        with self._lock:
            self._sources.pop(name, None)
            self._source_states.pop(name, None)

    # Mirror, errors

    def publish_database(self, view: DatabaseView | None) -> None:
        """Take the mirror's health; ``None`` without a database."""
        with self._lock:
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
            for key, beam in list(self._beams.items()):
                self._evaluate(beam, at)
                self._count(beam, at)
                if self._over(beam, at):
                    self._retire(key, beam)
            dropped = max(0, len(self._beams) - self._rules.max_beams)
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
        """Everything readers may know, true at ``at``."""
        with self._lock:
            beams: list[BeamView] = []
            for beam in self._beams.values():
                if len(beams) == self._rules.max_beams:
                    break
                self._evaluate(beam, at)
                beams.append(self._view(beam, at))
            return BoardSnapshot(
                at=at,
                beams=tuple(beams),
                beams_dropped=len(self._beams) - len(beams),
                sources=tuple(self._source_view(view) for view in self._sources.values()),
                database=self._database,
                runs=dict(self._runs),
                batch_durations={
                    source: HistogramView(BATCH_SECONDS_BOUNDS, tuple(counts), total[0])
                    for source, (counts, total) in self._durations.items()
                },
                discovery_refused=dict(self._refused),
                errors=dict(self._errors),
                ended=tuple(self._ended),
            )

    def _source_view(self, view: SourceView) -> SourceView:
        anomalies = self._anomalies.get(view.name)
        if not anomalies:
            return view
        both = Counter(view.anomalies)
        both.update(anomalies)
        return replace(view, anomalies=dict(both))

    def _source_state(self, beam: Beam) -> SourceState:
        return self._source_states.get(beam.source or "", SourceState())

    def _evaluate(self, beam: Beam, at: float) -> None:
        rules = self._rules
        state, since = beam.evaluate(at, rules.stall, rules.statuses, self._source_state(beam))
        if state is beam.state and since == beam.state_since:
            return
        before, beam.state, beam.state_since = beam.state, state, since
        if state is not before:
            self._watch_version += BeamState.EXPIRED in (state, before)
            self._notices.append(Notice(state.value, self._view(beam, at), before))

    def _view(self, beam: Beam, at: float) -> BeamView:
        prior = self._rates.get((beam.source or "", beam.run.full_work))
        return beam.view(at, self._rules.stall, self._rules.statuses, prior)

    def _run_begun(self, beam: Beam, before: BeamRun, number: int, counted: bool) -> None:
        """A new run has taken the place of ``before``."""
        if before.ended and not counted:
            self._count_run(beam, before, number, "succeeded" if before.succeeded else "failed", before.reason)
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
        reason = (run.reason or "status") if beam.state is BeamState.FAILED else None
        self._count_run(beam, run, beam.succession.number, beam.state.value, reason, beam.state_since)

    def _count_run(
        self, beam: Beam, run: BeamRun, number: int, outcome: str, reason: str | None, ended_at: float | None = None
    ) -> None:
        ended_at = run.ended_at if run.ended_at is not None else ended_at
        source = beam.source or UNKNOWN_SOURCE
        rate = run.pace.seconds_per_work
        if rate is not None and outcome == "succeeded":
            self._rates.pop((source, run.full_work), None)
            self._rates[source, run.full_work] = rate
            if len(self._rates) > _RATES_KEPT:
                self._rates.pop(next(iter(self._rates)))
        if ended_at is None or ended_at < self._since:
            return
        self._runs[source, outcome, reason or ""] += 1
        self._ended.append(EndedRun(beam.row.key, source, number, outcome, reason, run.started_at, ended_at))

    def _over(self, beam: Beam, at: float) -> bool:
        """The beam's series may go."""
        rules = self._rules
        ended = beam.state in ENDED_STATES or beam.state is BeamState.EXPIRED
        if beam.gone_since is not None and not ended:
            return at - beam.gone_since > _GONE_SECONDS
        if not ended or beam.backlog:
            return False
        age = at - beam.state_since
        if beam.state is BeamState.SUCCEEDED:
            return age > rules.retention_seconds
        status = beam.row.status
        active = status is not None and status not in rules.statuses.terminal and beam.gone_since is None
        return age > rules.failed_retention_seconds and not active

    def _retire(self, key: BeamKey, beam: Beam) -> None:
        del self._beams[key]
        self._watch_version += 1
        self._retired.pop(key, None)
        self._retired[key] = _Retired(beam.row.status, beam.row.updated_at, beam.succession.number, beam.stat)
        if len(self._retired) > max(self._rules.max_beams, _RATES_KEPT):
            self._retired.pop(next(iter(self._retired)))


def _looked_for(beam: Beam) -> tuple[object, ...]:
    """What :meth:`Board.watched` says of a beam's row."""
    row = beam.row
    return row.beam_path, row.hpc_job_id, row.log_path, beam.terminal_since is None
