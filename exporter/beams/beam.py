"""One beam: its row, its log, its runs, and the state they add up to.

The log's verdict outranks the row's: the communicator writes ``completed`` on exit code 0 and fails siblings in bulk.
The row decides only where the log says nothing (killed without a word). A log that was finished before the row was last
touched belongs to the run before: until it is rewritten the beam waits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from exporter.beams.estimate import StallRules, estimated_ratio, remaining_seconds, stall_threshold_seconds
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import ENDED_STATES, UNKNOWN_SOURCE, BeamRow, BeamState, BeamView
from exporter.beams.succession import Succession, SuccessionState
from exporter.logs.bookmark import Bookmark, BookmarkState
from exporter.logs.events import Event, LogRead, LogReplaced
from exporter.logs.source import LogStat
from exporter.plain_state import give, take

STALE_SECONDS = 2.0
"""A row's time stamp has whole seconds, and its writer may be a moment behind the log's."""

_TERMINAL_GRACE_SECONDS = 5.0
"""A log that grew so long after its row became terminal is alive: the row was written in bulk."""

_MISMATCH_SECONDS = 60.0
_NEWER_LOG_SECONDS = 10.0
"""A second log of a beam takes over when it is newer by so much; less may be the same file seen over the network."""


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


@dataclass
class Beam:
    """What the board keeps of one beam; only the board touches it, under its lock.

    Args:
        row: what discovery read last.
        first_seen_at: epoch seconds.
        succession: its runs.
        bookmark: how far its log has been read.
    """

    NOT_SAVED: ClassVar[frozenset[str]] = frozenset({"gone_since", "recent"})
    """Discovery says again which rows are gone; the log's last lines are read again."""

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

    def take_row(self, row: BeamRow, at: float, statuses: StatusRules) -> bool:
        """Take what discovery has just read.

        Returns:
            Whether the row says that a new run begins.
        """
        before, self.row, self.gone_since = self.row, row, None
        if row.status not in statuses.terminal:
            self.terminal_since = None
        elif self.terminal_since is None:
            self.terminal_since = at
        if not self._was_reset(before, statuses):
            return False
        began = self.run.started_at is not None
        if began:
            self._begin_run(at)
            self._stale = True
        self.counted = False
        return began

    def _was_reset(self, before: BeamRow, statuses: StatusRules) -> bool:
        row = self.row
        if row.status is None or before.status is None:
            return False
        revived = before.status in statuses.terminal and row.status not in statuses.terminal
        returned = before.status in (statuses.simulating | statuses.post_run) and row.status in statuses.reset
        emptied = row.status in statuses.reset and bool(before.progress) and row.progress == 0
        return (revived or returned or emptied) and not self._written_since(row.updated_at)

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
            self.stat = stat
            return True
        if self.stat is not None and stat.modified_at <= self.stat.modified_at + _NEWER_LOG_SECONDS:
            return False
        self.source, self.path, self.stat, self.recent, self.bookmark = source, path, stat, b"", None
        self._looked = self._stale = False
        if self.run.started_at is not None:
            self._begin_run(at)
        return True

    def _begin_run(self, at: float) -> None:
        self.succession.begin()
        self._forget_run(at)

    def _forget_run(self, at: float) -> None:
        self.waiting_since = at
        self.counted = False
        self.anomalies = Counter()
        self._shown_ratio, self._shown_announcements = 0.0, 0

    def apply(self, events: list[Event], at: float, *, more: bool, statuses: StatusRules) -> bool:
        """Take what one read has brought.

        Returns:
            Whether a new run has begun.
        """
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
        active = row.status not in statuses.terminal and row.status not in statuses.post_run
        return active and row.updated_at > self.stat.modified_at + STALE_SECONDS

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
                return verdict, self.row.updated_at or self.terminal_since or at
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

    def _row_may_speak(self, at: float, source: SourceState) -> bool:
        """The log has been read to its end after the row became terminal, and had time for its last words."""
        if self.terminal_since is None or at < self.terminal_since + STALE_SECONDS:
            return False
        if self.source is None or self._stale:
            return True
        looked = source.last_poll_at is not None and source.last_poll_at > self.terminal_since
        return looked and source.down_since is None and not self.backlog

    def mismatch(self, at: float, statuses: StatusRules) -> bool:
        """Log and row have disagreed about the end for more than a minute."""
        if self.row.status is None:
            return False
        by_log, by_row = self.log_verdict(), self.row_verdict(statuses)
        if by_log == by_row:
            return False
        if by_log is None:
            since = self.terminal_since if self._outlives_row() and self.state not in ENDED_STATES else None
        elif by_row is None:
            fine = by_log is BeamState.SUCCEEDED and self.row.status in statuses.post_run
            since = None if fine else self.run.ended_at
        else:
            since = max(self.run.ended_at or 0.0, self.terminal_since or 0.0)
        return since is not None and at - since > _MISMATCH_SECONDS

    def view(self, at: float, stall: StallRules, statuses: StatusRules, prior_rate: float | None) -> BeamView:
        """The beam as readers see it; its state must have been evaluated for the same moment."""
        run, state = self.run, self.state
        batches, pace = run.batches, run.pace
        ended_at = run.ended_at if run.ended else self.state_since if state in ENDED_STATES else None
        moment = self.state_since if state is BeamState.UNREACHABLE else at
        if state is BeamState.SUCCEEDED:
            ratio = 1.0
        else:
            ratio = estimated_ratio(run, min(moment, ended_at or moment), prior_rate)
        if batches.announcements != self._shown_announcements:
            self._shown_announcements, self._shown_ratio = batches.announcements, 0.0
        self._shown_ratio = ratio = max(ratio, self._shown_ratio)
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
            remaining_seconds=None if state in ENDED_STATES else remaining_seconds(run, moment, prior_rate),
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
        )
