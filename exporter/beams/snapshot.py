"""Immutable values that readers get from the store, true at one instant.

Times are UTC epoch seconds (``float``), ratios 0..1, sizes bytes. ``None`` means "unknown", which differs from 0:
metrics omit such a series, and the page shows a dash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from exporter.beams.dose import NO_ENGINE_TIMES, EngineTimes
from exporter.sources.source import SourceUnavailable


class BeamState(str, Enum):
    """State of a beam as users see it (``mqi_beam_state``)."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STALLED = "stalled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    UNREACHABLE = "unreachable"

    __hash__ = str.__hash__  # a state equals its text; the hash of Enum is ten times slower


class OutputState(str, Enum):
    """What is known of a run's dose file."""

    NOT_CONFIGURED = "not_configured"  # its source has no output_path
    NOT_DUE = "not_due"  # the run does not claim success
    SKIPPED = "skipped"  # it ended long before it was met, or was shown as done before there was a check
    PENDING = "pending"  # looked for; not found yet
    BLOCKED = "blocked"  # looked for, but the source could not tell
    FOUND = "found"
    MISSING = "missing"  # not there after the grace

    __hash__ = str.__hash__

    @property
    def undecided(self) -> bool:
        """Whether a claim of success is not decided yet."""
        return self in (OutputState.NOT_DUE, OutputState.PENDING, OutputState.BLOCKED)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A dose file that was found. ``modified_at`` is by the source's clock."""

    path: str
    size_bytes: int
    modified_at: float


ENDED_STATES = frozenset({BeamState.SUCCEEDED, BeamState.FAILED})
UNKNOWN_SOURCE = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class BeamKey:
    """Identifies a beam: the id of its case, and its own id, which is unique within the case."""

    case_id: str
    beam_id: str


@dataclass(frozen=True, slots=True)
class BeamRow:
    """A beam as discovery found it: its row in the ``beams`` table, or only the name of its log file.

    ``status`` and the fields after it are ``None`` for beams found by file name. ``updated_at`` is the row's own time
    stamp; ``read_at`` is when discovery read it.
    """

    key: BeamKey
    read_at: float
    beam_path: str | None = None
    hpc_job_id: str | None = None
    status: str | None = None
    progress: float | None = None
    updated_at: float | None = None
    log_path: str | None = None

    def read_again(self, row: BeamRow) -> BeamRow:
        """Return ``row``, a later read of the same row. To save memory it shares equal text objects with this one."""
        return BeamRow(
            self.key,
            row.read_at,
            self.beam_path if row.beam_path == self.beam_path else row.beam_path,
            self.hpc_job_id if row.hpc_job_id == self.hpc_job_id else row.hpc_job_id,
            row.status,
            row.progress,
            row.updated_at,
            self.log_path if row.log_path == self.log_path else row.log_path,
        )


class BeamView(NamedTuple):
    """One beam at the instant of a snapshot. ``recent`` is the log's last bytes (:mod:`exporter.sources.tail_lines`).

    ``status_is_simulating``: the row's status means a running engine. ``log_of_earlier_run``: the log belongs to the
    previous run; ``attributed_by_date``: by its date alone.

    It is a tuple, since a scrape makes thousands: making a frozen dataclass takes five times as long.
    """

    estimated_ratio: float
    remaining_seconds: float | None
    row: BeamRow
    key: BeamKey
    source: str
    state: BeamState
    state_since: float
    run_number: int
    dialect: str
    phase: str | None
    batches_total: int | None
    batch_current: int
    batches_completed: int
    announcements: int
    progress_ratio: float
    started_at: float | None
    ended_at: float | None
    last_progress_at: float | None
    stall_threshold_seconds: float
    batch_duration_seconds: float | None
    particles_per_batch: int | None
    particles: int | None
    log_path: str | None
    log_size_bytes: int | None
    log_modified_at: float | None
    log_seen_growing: bool
    log_buffered: bool
    log_unmatched: bool
    reason: str | None
    failure_text: str | None
    log_succeeded: bool
    status_mismatch: bool
    start_seen: bool = True
    dose_path: str | None = None
    dose_dimensions: str | None = None
    dose_max_gy: float | None = None
    doses_written: int = 0
    dose_written_before_failure: bool = False
    engine_times: EngineTimes = NO_ENGINE_TIMES
    status_is_simulating: bool = False
    log_of_earlier_run: bool = False
    attributed_by_date: bool = False
    recent: bytes = b""
    output: OutputState = OutputState.NOT_CONFIGURED
    output_file: OutputFile | None = None
    output_problem: str | None = None

    @property
    def began_at(self) -> float | None:
        """When the run started; ``None`` if unknown (see :class:`~exporter.beams.run.BeamRun`)."""
        return self.started_at if self.start_seen else None

    @property
    def simulating_since(self) -> float:
        """When its row was last written (when its state began, without a time stamp), if ``status_is_simulating``."""
        return self.state_since if self.row.updated_at is None else self.row.updated_at

    def with_estimates(self, estimated_ratio: float, remaining_seconds: float | None, row: BeamRow) -> BeamView:
        """Return the view with other estimates and a later read of the row; faster than ``_replace``."""
        return tuple.__new__(BeamView, (estimated_ratio, remaining_seconds, row, *self[_BY_THE_CLOCK:]))


_BY_THE_CLOCK = 3
assert BeamView._fields[:_BY_THE_CLOCK] == ("estimated_ratio", "remaining_seconds", "row"), "they are passed together"


@dataclass(frozen=True, slots=True)
class WatchedBeam:
    """A beam whose log a source should poll for.

    Args:
        row: the beam.
        path: the log that is followed, if it is this source's.
    """

    row: BeamRow
    path: str | None


@dataclass(frozen=True, slots=True)
class OutputSearch:
    """A run whose dose file a source should search for.

    Args:
        row: the beam.
        run_number: which of its runs.
        written_after: a file that was written earlier, by the source's clock, belongs to another run; ``None`` if the
            start of this run is unknown.
    """

    row: BeamRow
    run_number: int
    written_after: float | None


@dataclass(frozen=True, slots=True)
class BeamEvent:
    """Something that happened to a beam, and may be worth a log line.

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
class Summary:
    """Count and sum of observed values (a Prometheus summary without quantiles)."""

    count: int = 0
    total: float = 0.0

    def plus(self, value: float) -> Summary:
        return Summary(self.count + 1, self.total + value)


@dataclass(frozen=True, slots=True)
class SourceView:
    """Health and work of one source.

    ``up`` is ``None`` before its first poll; ``problem`` says why the source is down, and is ``None`` while it is up.

    ``folders_missing`` are folders of ``log_path`` that do not exist; ``None`` before they were looked for.

    ``clock_offset_seconds`` is how much later its files are dated than our clock says, negative where its clock is
    behind; ``None`` while no log has been seen to grow. ``log_places`` is the number of paths where each log may be.
    """

    name: str
    kind: str
    up: bool | None = None
    last_poll_at: float | None = None
    poll_seconds: Summary = Summary()
    reconnects: int = 0
    round_trips: int = 0
    read_bytes: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    anomalies: Mapping[str, int] = field(default_factory=dict)
    problem: SourceUnavailable | None = None
    folders_missing: tuple[str, ...] | None = None
    clock_offset_seconds: float | None = None
    log_places: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """Health and work of the mirror."""

    up: bool
    writes: Mapping[str, int]
    write_seconds: Summary
    pending_updates: int
    last_write_at: float | None


@dataclass(frozen=True, slots=True)
class HistogramView:
    """Batch durations of one source: counts per bucket (not cumulative, last is +Inf) and their sum in seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended while we watched, kept for the page and in the history (:mod:`exporter.persistence.history`).

    Args:
        key: the beam.
        source: where its log is.
        run_number: which of the beam's runs it was.
        outcome: ``succeeded`` or ``failed``.
        reason: why it failed.
        started_at, ended_at: epoch seconds; ``started_at`` is ``None`` if unknown.
        status: of the row, if only the row shows how the run ended.
        dialect: of its log.
        batches: number of finished batches.
        particles: particles announced for the run.
        seconds_per_batch: mean duration of its batches.
        engine_times: durations that the engine printed.
        dose_path: the last dose file, as its log names it.
        output_file: the dose file, if the output check found it.
    """

    key: BeamKey
    source: str
    run_number: int
    outcome: str
    reason: str | None
    started_at: float | None
    ended_at: float
    status: str | None = None
    dialect: str = "unknown"
    batches: int | None = None
    particles: int | None = None
    seconds_per_batch: float | None = None
    engine_times: EngineTimes = NO_ENGINE_TIMES
    dose_path: str | None = None
    output_file: OutputFile | None = None


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """Everything that readers may know, true at ``at``.

    Times are wall-clock times in UTC epoch seconds. Only ``read_at`` of a row is an instant of the steady timeline
    (:mod:`exporter.process.clock`); add ``wall_offset_seconds`` to get its wall-clock time.
    ``runs`` counts ended runs by ``(source, outcome, reason)``, reason ``""`` for those that succeeded.
    ``rows_from_restart`` are beams whose rows were read by an earlier process.
    """

    at: float
    beams: tuple[BeamView, ...]
    beams_dropped: int
    sources: tuple[SourceView, ...]
    database: DatabaseView | None
    runs: Mapping[tuple[str, str, str], int]
    batch_durations: Mapping[str, HistogramView]
    discovery_refused: Mapping[str, int]
    errors: Mapping[str, int]
    ended: tuple[EndedRun, ...]
    rows_from_restart: frozenset[BeamKey] = frozenset()
    wall_offset_seconds: float = 0.0
