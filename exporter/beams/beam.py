"""One beam: its row, its log, its runs, and the state they add up to.

The log's verdict outranks the row's: the communicator writes ``completed`` on exit code 0 and fails siblings in bulk.
The row decides only where the log says nothing (killed without a word). A log that was finished before the row was last
touched belongs to the run before: until it is rewritten the beam waits.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from exporter.beams.estimate import Forecast, StallRules, stall_threshold_seconds
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import ENDED_STATES, UNKNOWN_SOURCE, BeamRow, BeamState, BeamView
from exporter.beams.succession import Succession, SuccessionState
from exporter.logs.bookmark import Bookmark, BookmarkState
from exporter.logs.events import Event, LogRead, LogReplaced
from exporter.logs.source import LogStat
from exporter.moments import moved
from exporter.plain_state import give, take

STALE_SECONDS = 2.0
"""A row's time stamp has whole seconds, and its writer may be a moment behind the log's."""

_TERMINAL_GRACE_SECONDS = 5.0
"""A log that grew so long after its row became terminal is alive: the row was written in bulk."""

_MISMATCH_SECONDS = 60.0
_CLOSE_SECONDS = 0.001
_NEWER_LOG_SECONDS = 10.0
"""A second log of a beam takes over when it is newer by so much; less may be the same file seen over the network."""


Work = tuple[str, float]
"""A source, and the particles of a full batch there (or 1): runs alike in both keep the same pace."""

_WITHOUT_END = ENDED_STATES | {BeamState.STALLED, BeamState.EXPIRED}
"""A beam that stands still is not done at any time that could be told."""


@dataclass(frozen=True, slots=True)
class StatusRules:
    """What the words in the column ``status`` mean (``discovery`` in the configuration)."""

    terminal: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
    completed: frozenset[str] = frozenset({"completed"})
    post_run: frozenset[str] = frozenset({"downloading", "postprocessing"})
    simulating: frozenset[str] = frozenset({"hpc_running", "simulation_running"})
    reset: frozenset[str] = frozenset({"pending"})


@dataclass(frozen=True, slots=True)
class SourceState:
    """Whether a source answers, as far as its beams are concerned."""

    down_since: float | None = None
    last_poll_at: float | None = None


@dataclass(slots=True)
class _Judgement:
    """How long a beam's state holds, and by what it was judged, besides the beam itself.

    Args:
        since, until: epoch seconds; at ``until`` a limit of silence, a grace or the like may be over.
        stall, statuses, down_since, looked: rules and source, as they were.
    """

    since: float
    until: float
    stall: StallRules
    statuses: StatusRules
    down_since: float | None
    looked: bool


@dataclass(slots=True)
class _Shown:
    """A view, in which nothing but the clock's part of the estimates can change while its judgement holds.

    Args:
        view: the beam as it was shown last.
        forecast: of its estimates.
        moves: whether the clock moves them; ``endless``: whether no end is told.
        prior, prior_rate: which pace of earlier runs the forecast was made by, where it was, and what that was.
    """

    view: BeamView
    forecast: Forecast
    moves: bool
    endless: bool
    prior: Work | None
    prior_rate: float | None


@dataclass(slots=True)
class SavedBeam:
    """A :class:`Beam` as plain data."""

    row: BeamRow
    first_seen_at: float
    succession: SuccessionState
    source: str | None
    path: str | None
    stat: LogStat | None
    bookmark: BookmarkState | None
    state: BeamState
    state_since: float
    waiting_since: float
    terminal_since: float | None
    backlog: bool
    counted: bool
    anomalies: dict[str, int]
    looked: bool
    stale: bool
    grew: bool
    shown_ratio: float
    shown_announcements: int
    clock_set_since_row: bool = False
    unknown_to_row_since: float | None = None


@dataclass(slots=True)
class Beam:
    """What the board keeps of one beam; only the board touches it, under its lock.

    Most beams stand still between two snapshots. What was shown of one is shown again while nothing has changed and no
    limit has passed (:meth:`still`); whoever changes a beam other than by its methods must call :meth:`changed`.

    Args:
        row: what discovery read last.
        first_seen_at: epoch seconds.
        succession: its runs.
        bookmark: how far its log has been read.
    """

    NOT_SAVED: ClassVar[frozenset[str]] = frozenset({"gone_since", "recent", "_judgement", "_shown"})
    """Discovery says again which rows are gone; the log's last lines are read again; a view is worked out anew."""

    row: BeamRow
    first_seen_at: float
    succession: Succession = field(default_factory=Succession)
    source: str | None = None
    path: str | None = None
    stat: LogStat | None = None
    bookmark: Bookmark | None = None
    state: BeamState = BeamState.WAITING
    state_since: float = 0.0
    waiting_since: float = 0.0
    terminal_since: float | None = None
    gone_since: float | None = None
    backlog: bool = False
    counted: bool = False
    anomalies: Counter[str] = field(default_factory=Counter)
    recent: bytes = b""
    _looked: bool = False
    _stale: bool = False
    _grew: bool = False
    _shown_ratio: float = 0.0
    _shown_announcements: int = 0
    _clock_set_since_row: bool = False
    _unknown_to_row_since: float | None = None
    _judgement: _Judgement | None = None
    _shown: _Shown | None = None

    def __post_init__(self) -> None:
        self.state_since = self.waiting_since = self.first_seen_at

    def to_state(self) -> SavedBeam:
        """The beam between two reads of its log, as plain data."""
        return take(
            self,
            SavedBeam,
            succession=self.succession.to_state(),
            bookmark=self.bookmark.to_state() if self.bookmark is not None else None,
            anomalies=dict(self.anomalies),
        )

    @classmethod
    def from_state(cls, state: SavedBeam) -> Beam:
        """The beam whose state this was.

        Raises:
            ValueError: it cannot be one.
        """
        beam = cls(state.row, state.first_seen_at)
        give(
            beam,
            state,
            succession=Succession.from_state(state.succession),
            bookmark=Bookmark.from_state(state.bookmark) if state.bookmark is not None else None,
            anomalies=Counter(state.anomalies),
        )
        return beam

    @property
    def run(self) -> BeamRun:
        """The current run."""
        return self.succession.run

    @property
    def stage(self) -> tuple[object, ...]:
        """What the column ``progress`` follows; it moves with the log, not with the clock."""
        run, batches = self.run, self.run.batches
        counts = batches.announcements, batches.started, batches.total
        return self.succession.number, *counts, run.ended, run.succeeded, self._grew

    def take_row(self, row: BeamRow, at: float, statuses: StatusRules) -> bool:
        """Take what discovery has read.

        Args:
            row: it.
            at: when discovery began to read, epoch seconds.
            statuses: what they mean.

        Returns:
            Whether the row says that a new run begins.
        """
        before, self.gone_since = self.row, None
        met_at = self._unknown_to_row_since
        if met_at is not None and met_at <= at:
            self._unknown_to_row_since = None
            self.changed()
        if row is before:
            return False
        self.row = row = row if row.key is before.key else before.read_again(row)
        if _same_but_read_again(row, before):
            return False
        self.changed()
        if row.updated_at != before.updated_at:
            self._clock_set_since_row = False
        if row.status not in statuses.terminal:
            self.terminal_since = None
        elif self.terminal_since is None:
            self.terminal_since = at
        # Its log has told of the run that such a row belongs to.
        told = met_at is not None and (at < met_at or row.status not in statuses.reset)
        if told or not self._was_reset(before, statuses):
            return False
        began = self.run.started_at is not None
        if began:
            self._stale = not self.succession.replaced
            self.succession.begin(with_what_waits=True)
            self._forget_run(at)
        self.counted = False
        return began

    def _was_reset(self, before: BeamRow, statuses: StatusRules) -> bool:
        row = self.row
        if row.status is None or before.status is None:
            return False
        revived = before.status in statuses.terminal and row.status not in statuses.terminal
        returned = before.status in (statuses.simulating | statuses.post_run) and row.status in statuses.reset
        emptied = row.status in statuses.reset and bool(before.progress) and row.progress == 0
        # One that is dated in the future was written before the clock was set back: before it was read, in any case.
        written_at = None if row.updated_at is None else min(row.updated_at, row.read_at)
        return (revived or returned or emptied) and not self._written_since(written_at)

    def _written_since(self, moment: float | None) -> bool:
        """The log was written at that moment or later: it is not older than what the row says."""
        grown = self.run.last_growth_at
        return moment is not None and grown is not None and moment <= grown + STALE_SECONDS

    def claim(self, source: str, path: str, stat: LogStat, at: float) -> bool:
        """A log was found for this beam.

        Returns:
            Whether it is the one to follow: the first found, or one clearly newer than the one followed.
        """
        if self.source == source and self.path == path:
            if self.stat != stat:
                self.changed()
                self.stat = stat
            return True
        if self.stat is not None and stat.modified_at <= self.stat.modified_at + _NEWER_LOG_SECONDS:
            return False
        self.changed()
        self.source, self.path, self.stat, self.recent, self.bookmark = source, path, stat, b"", None
        self._looked = self._stale = False
        if self.run.started_at is not None:
            self.succession.begin()
            self._forget_run(at)
            self._unknown_to_row_since = at
        return True

    def _forget_run(self, at: float) -> None:
        self.waiting_since = at
        self.counted = False
        self.anomalies = Counter()
        self._shown_ratio, self._shown_announcements = 0.0, 0

    def apply(self, events: list[Event], at: float, *, read_at: float, more: bool, statuses: StatusRules) -> bool:
        """Take what one read has brought.

        Args:
            events: what the log says.
            at: when it was written, epoch seconds.
            read_at: when it was read.
            more: there is more to read at once.
            statuses: what they mean.

        Returns:
            Whether a new run has begun.
        """
        self.changed()
        self.backlog = more
        if self._stale:
            if not any(isinstance(event, LogReplaced) for event in events):
                return False
            self._stale = False
        began = False
        for event in events:
            if self.succession.apply(event, at):
                began = True
                self._forget_run(at)
                self._unknown_to_row_since = read_at
        if any(isinstance(event, LogRead) and event.live for event in events) and not self.run.ended:
            self._grew = True
        if not self._looked and not more:
            self._looked = True
            if self.run.ended and self._belongs_to_run_before(statuses):
                self.succession.run = BeamRun()
                self._forget_run(at)
                self._stale = True
        return began

    def _belongs_to_run_before(self, statuses: StatusRules) -> bool:
        row = self.row
        if row.status is None or row.updated_at is None or self.stat is None:
            return False
        if self._clock_set_since_row or row.updated_at > row.read_at + STALE_SECONDS:
            # By which clock the log is dated nobody knows. (What was read before it was written tells of a clock that
            # was set back while no exporter ran.)
            return False
        active = row.status not in statuses.terminal and row.status not in statuses.post_run
        return active and row.updated_at > self.stat.modified_at + STALE_SECONDS

    def move(self, seconds: float) -> None:
        """The clock was set: every moment is another now, but for those that others have written down."""
        self.changed()
        self.succession.move(seconds)
        self._clock_set_since_row = True
        self.first_seen_at += seconds
        self.state_since += seconds
        self.waiting_since += seconds
        self.terminal_since = moved(self.terminal_since, seconds)
        self.gone_since = moved(self.gone_since, seconds)
        self._unknown_to_row_since = moved(self._unknown_to_row_since, seconds)

    def excuse(self, seconds: float) -> None:
        """So much time was no silence of its log."""
        self.changed()
        self.succession.excuse(seconds)

    def row_verdict(self, statuses: StatusRules) -> BeamState | None:
        """How the run ended, going by the row alone."""
        if self.row.status not in statuses.terminal:
            return None
        return BeamState.SUCCEEDED if self.row.status in statuses.completed else BeamState.FAILED

    def log_verdict(self) -> BeamState | None:
        """How the run ended, going by the log alone."""
        if self.run.failed:
            return BeamState.FAILED
        return BeamState.SUCCEEDED if self.run.succeeded else None

    def _outlives_row(self) -> bool:
        """The log went on growing after its row was said to be over."""
        grown = self.run.last_growth_at
        return (
            grown is not None
            and self.terminal_since is not None
            and grown > self.terminal_since + _TERMINAL_GRACE_SECONDS
        )

    def evaluate(
        self, at: float, stall: StallRules, statuses: StatusRules, source: SourceState
    ) -> tuple[BeamState, float]:
        """State at a moment, and since when the beam is in it."""
        run = self.run
        verdict = self.log_verdict()
        if verdict is not None:
            return verdict, run.ended_at or at
        verdict = self.row_verdict(statuses)
        silent_since = run.last_growth_at or run.started_at or at
        progress_since = run.last_progress_at or silent_since
        threshold = stall_threshold_seconds(run, stall)
        if verdict is not None and self._row_may_speak(at, source):
            silent = at - progress_since > threshold
            if not self._outlives_row() or silent:
                return verdict, self._row_terminal_since(at)
        if self.source is not None and source.down_since is not None:
            return BeamState.UNREACHABLE, source.down_since
        if run.started_at is None:
            return BeamState.WAITING, self.waiting_since
        active = self.row.status is not None and self.row.status not in statuses.terminal
        if at - silent_since > stall.timeout_seconds and not (run.buffered and active):
            return BeamState.EXPIRED, silent_since + stall.timeout_seconds
        if at - progress_since > threshold:
            return BeamState.STALLED, progress_since + threshold
        if run.running_since is None:
            return BeamState.STARTING, run.started_at
        if self.state in (BeamState.STALLED, BeamState.EXPIRED, BeamState.UNREACHABLE):
            return BeamState.RUNNING, progress_since
        return BeamState.RUNNING, self.state_since if self.state is BeamState.RUNNING else run.running_since

    def _row_terminal_since(self, at: float) -> float:
        """When the row became terminal: by its own time stamp, unless that is later than we have seen it."""
        seen = at if self.terminal_since is None else self.terminal_since
        return seen if self.row.updated_at is None else min(self.row.updated_at, seen)

    def _row_may_speak(self, at: float, source: SourceState) -> bool:
        """The log has been read to its end after the row became terminal, and had time for its last words."""
        if self.terminal_since is None or at < self.terminal_since + STALE_SECONDS:
            return False
        if self._unknown_to_row_since is not None:
            return False  # it was read before the run was met: it speaks of the one before
        if self.source is None or self._stale:
            return True
        return self._looked_since_terminal(source) and source.down_since is None and not self.backlog

    def _disagreeing_since(self, statuses: StatusRules) -> float | None:
        """Since when log and row disagree about the end."""
        if self.row.status is None or self._unknown_to_row_since is not None:
            return None
        by_log, by_row = self.log_verdict(), self.row_verdict(statuses)
        if by_log == by_row:
            return None
        if by_log is None:
            return self.terminal_since if self._outlives_row() and self.state not in ENDED_STATES else None
        if by_row is None:
            fine = by_log is BeamState.SUCCEEDED and self.row.status in statuses.post_run
            return None if fine else self.run.ended_at
        return max(self.run.ended_at or 0.0, self.terminal_since or 0.0)

    def mismatch(self, at: float, statuses: StatusRules) -> bool:
        """Log and row have disagreed about the end for more than a minute."""
        since = self._disagreeing_since(statuses)
        return since is not None and at - since > _MISMATCH_SECONDS

    def changed(self) -> None:
        """Something that a view shows, or a state depends on, may be different now."""
        self._judgement = self._shown = None

    def judged(self, at: float, stall: StallRules, statuses: StatusRules, source: SourceState) -> None:
        """Its state was evaluated at that moment, by these rules."""
        self._shown = None
        self._judgement = _Judgement(
            since=at,
            until=self._steady_until(at, stall, statuses),
            stall=stall,
            statuses=statuses,
            down_since=source.down_since,
            looked=self._looked_since_terminal(source),
        )

    def stands_still(self, at: float, stall: StallRules, statuses: StatusRules, source: SourceState) -> bool:
        """State and mismatch are what they were when it was judged last."""
        judgement = self._judgement
        return (
            judgement is not None
            and judgement.since <= at < judgement.until
            and judgement.stall is stall
            and judgement.statuses is statuses
            and judgement.down_since == source.down_since
            and (self.terminal_since is None or judgement.looked == self._looked_since_terminal(source))
        )

    def keep(self, view: BeamView, forecast: Forecast, rates: Mapping[Work, float]) -> None:
        """Keep a view of the moment at which the beam was judged."""
        state = self.state
        prior = self._prior()
        self._shown = _Shown(
            view=view,
            forecast=forecast,
            moves=forecast.moves and state is not BeamState.UNREACHABLE and state not in ENDED_STATES,
            endless=state in _WITHOUT_END,
            prior=prior,
            prior_rate=None if prior is None else rates.get(prior),
        )

    def still(
        self, at: float, stall: StallRules, statuses: StatusRules, source: SourceState, rates: Mapping[Work, float]
    ) -> BeamView | None:
        """What a view would be now, where the beam has stood still since the last one.

        Returns:
            The last view itself where the clock has changed nothing in it either; ``None`` where state and view must be
            worked out anew.
        """
        shown = self._shown
        if (
            shown is None
            or not self.stands_still(at, stall, statuses, source)
            or (shown.prior is not None and shown.prior_rate != rates.get(shown.prior))
        ):
            return None
        view, row = shown.view, self.row
        ratio, remaining = view.estimated_ratio, view.remaining_seconds
        if shown.moves:
            later_ratio, remaining = shown.forecast.at(at)
            if later_ratio > ratio:
                ratio = self._shown_ratio = later_ratio
            if shown.endless:
                remaining = None
        if ratio == view.estimated_ratio and remaining == view.remaining_seconds and row is view.row:
            return view
        shown.view = view = view.at_another_time(ratio, remaining, row)
        return view

    def forecast(self, rates: Mapping[Work, float]) -> Forecast:
        """Of the current run; ``rates`` are seconds per particle (or batch) of recent runs."""
        prior = self._prior()
        return Forecast.of(self.run, None if prior is None else rates.get(prior))

    def _prior(self) -> Work | None:
        """Which earlier runs tell the current one's pace, until it has one of its own."""
        run = self.run
        return None if run.pace.seconds_per_work else (self.source or "", run.full_work)

    def _looked_since_terminal(self, source: SourceState) -> bool:
        """The log was looked at after the row became terminal."""
        terminal, looked = self.terminal_since, source.last_poll_at
        return terminal is not None and looked is not None and looked > terminal

    def _steady_until(self, at: float, stall: StallRules, statuses: StatusRules) -> float:
        """When state or mismatch may be others although nothing has happened: the next of all limits they know."""
        run = self.run
        silent_since = run.last_growth_at or run.started_at or at
        progress_since = run.last_progress_at or silent_since
        disagreeing_since = self._disagreeing_since(statuses)
        limits = [progress_since + stall_threshold_seconds(run, stall), silent_since + stall.timeout_seconds]
        if self.terminal_since is not None:
            limits.append(self.terminal_since + STALE_SECONDS)
        if disagreeing_since is not None:
            limits.append(disagreeing_since + _MISMATCH_SECONDS)
        # Sums are rounded: close to a limit nothing is taken for steady.
        return min((limit for limit in limits if limit > at - _CLOSE_SECONDS), default=math.inf) - _CLOSE_SECONDS

    def _estimates(self, forecast: Forecast, at: float, ended_at: float | None) -> tuple[float, float | None]:
        """Estimated progress, which never goes back between announcements, and remaining time."""
        state, announcements = self.state, self.run.batches.announcements
        moment = self.state_since if state is BeamState.UNREACHABLE else at
        ratio, remaining = forecast.at(moment if ended_at is None else min(moment, ended_at))
        if announcements != self._shown_announcements:
            self._shown_announcements, self._shown_ratio = announcements, 0.0
        self._shown_ratio = ratio = max(ratio, self._shown_ratio)
        # Where the row alone says that it succeeded, it may be that of the run before: that is not kept.
        return 1.0 if state is BeamState.SUCCEEDED else ratio, None if state in _WITHOUT_END else remaining

    def view(self, at: float, stall: StallRules, statuses: StatusRules, forecast: Forecast) -> BeamView:
        """The beam as readers see it; its state must have been evaluated for the same moment."""
        run, state = self.run, self.state
        batches, pace = run.batches, run.pace
        ended_at = run.ended_at if run.ended else self.state_since if state in ENDED_STATES else None
        ratio, remaining = self._estimates(forecast, at, ended_at)
        log_known = self.stat is not None and not self._stale
        return BeamView(
            key=self.row.key,
            source=self.source or UNKNOWN_SOURCE,
            state=state,
            state_since=self.state_since,
            run_number=self.succession.number,
            dialect=run.dialect,
            phase=run.phase,
            batches_total=batches.total,
            batch_current=batches.started,
            batches_completed=batches.finished,
            announcements=batches.announcements,
            progress_ratio=batches.ratio,
            estimated_ratio=ratio,
            remaining_seconds=remaining,
            started_at=run.started_at,
            ended_at=ended_at,
            last_progress_at=run.last_progress_at,
            stall_threshold_seconds=stall_threshold_seconds(run, stall),
            batch_duration_seconds=pace.mean_seconds,
            particles_per_batch=run.particles_per_batch,
            particles=run.particles,
            log_path=self.path,
            log_size_bytes=self.stat.size_bytes if self.stat is not None and log_known else None,
            log_modified_at=self.stat.modified_at if self.stat is not None and log_known else None,
            log_grew=self._grew,
            log_buffered=run.buffered,
            log_unmatched=run.unmatched,
            reason=(run.reason or "status") if state is BeamState.FAILED else None,
            failure_text=run.failures[run.reason] if run.reason else None,
            log_succeeded=run.succeeded,
            row=self.row,
            status_mismatch=self.mismatch(at, statuses),
            recent=self.recent if log_known else b"",
            edition=object(),
        )


def _same_but_read_again(row: BeamRow, before: BeamRow) -> bool:
    """Two reads of a row have found the same."""
    return (
        row.status == before.status
        and row.progress == before.progress
        and row.updated_at == before.updated_at
        and row.beam_path == before.beam_path
        and row.hpc_job_id == before.hpc_job_id
        and row.log_path == before.log_path
    )
