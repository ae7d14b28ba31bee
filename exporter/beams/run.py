"""One run of a beam: a pure reducer from the events of its log to its state.

``BeamRun.apply(event, at)`` is the only way to change a run. It uses no clock and no file. Apart from times, the same
events give the same state, however the bytes were split into reads: the :class:`~exporter.logs.events.LogRead` at the
end of each read completes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exporter.beams.dose import NO_ENGINE_TIMES, DoseFacts, EngineTimes
from exporter.beams.pace import Pace
from exporter.beams.saved_fields import Failures, NotSaved
from exporter.logs.batch_counter import BatchCounter
from exporter.logs.events import (
    BUFFERED_DIALECTS,
    FAILURE_REASONS,
    PHASES,
    Anomaly,
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    DialectRecognised,
    DoseDescribed,
    DoseWritten,
    EngineTimed,
    Event,
    HistoriesCounted,
    HistoriesGenerated,
    LogRead,
    LogReplaced,
    PhaseEntered,
    RunFailed,
    RunHead,
    RunSucceeded,
)

UNMATCHED_BYTES = 64 * 1024
UNMATCHED_SECONDS = 60.0
"""A log that has grown by this much, or for this long, without one known line is not understood."""

_LINE_BUFFERED_READS = 2

_TIMESTAMPS = (
    *("started_at", "ended_at", "running_since", "batch_since"),
    *("last_progress_at", "last_growth_at", "_first_growth_at"),
)


@dataclass(slots=True, eq=False)
class BeamRun:
    """The state of one run. Read its attributes; only :meth:`apply` changes it. Instants are on the steady timeline.

    Attributes:
        dialect: one of :data:`~exporter.logs.events.DIALECTS`.
        batches: counts announced, started and finished batches.
        histories: particles announced for the current beam of the run; ``None`` while unknown.
        started_at, ended_at: when the first line and the line of the end were written.
        start_seen: the first line was read when it was written. Otherwise its time is unknown, and ``started_at`` is
            when the log was last written before its first poll.
        failures: lines that say why the run failed, by reason.
        last_progress_at: when the last line about a batch or a phase was written.
        last_growth_at: when the log last grew.
        running_since: when the simulation began; a log may have no lines about batches.
        batch_since: when the running batch began; ``None`` if unknown.
        pace: durations of the batches finished so far.
        timed: durations in seconds of those batches of the last read that were watched from beginning to end.
        anomalies: number of unexpected lines, by kind.
        size_bytes: how much of the log has been read.
        dose: the dose files that were written.
        engine_times: durations that the engine printed.
    """

    dialect: str = "unknown"
    _phase: str | None = None
    batches: BatchCounter = field(default_factory=BatchCounter)
    histories: int | None = None
    started_at: float | None = None
    start_seen: bool = True
    ended_at: float | None = None
    failures: Failures = field(default_factory=dict)
    last_progress_at: float | None = None
    last_growth_at: float | None = None
    running_since: float | None = None
    batch_since: float | None = None
    pace: Pace = field(default_factory=Pace)
    timed: NotSaved[list[float]] = field(default_factory=list)
    anomalies: Counter[str] = field(default_factory=Counter)
    size_bytes: int = 0
    dose: DoseFacts = field(default_factory=DoseFacts)
    engine_times: EngineTimes = NO_ENGINE_TIMES
    _family: str | None = None
    _past_histories: int = 0
    _succeeded: bool = False
    _understood: bool = False
    _first_growth_at: float | None = None
    _finished_in_read: int = 0
    _line_buffered_reads: int = 0
    _read_over: bool = False
    _last_batch_done: bool = False

    @property
    def failed(self) -> bool:
        """Whether the log shows a failure; a normal last line does not change that."""
        return bool(self.failures)

    @property
    def succeeded(self) -> bool:
        """Whether the log shows a successful end and no failure."""
        return self._succeeded and not self.failures

    @property
    def has_head(self) -> bool:
        """Whether the engine's first lines have been read."""
        return self._family is not None

    @property
    def ended(self) -> bool:
        """Whether the log shows the end of the run."""
        return self._succeeded or bool(self.failures)

    @property
    def reason(self) -> str | None:
        """Why the run failed: the most important of its failure reasons; ``None`` without a failure."""
        return min(self.failures, key=FAILURE_REASONS.index) if self.failures else None

    @property
    def phase(self) -> str | None:
        """What the engine does; ``None`` while unknown.

        After the last batch the engine downloads and saves the dose without writing to the log. A run of `moqui-stat`
        may announce more batches instead.
        """
        return "saving" if self._last_batch_done and self.dialect != "moqui-stat" else self._phase

    @property
    def particles(self) -> int | None:
        """Particles announced for the whole run so far; ``None`` while unknown."""
        return None if self.histories is None else self._past_histories + self.histories

    @property
    def particles_per_batch(self) -> int | None:
        """Particles in a full batch: the announced limit, or all particles if there are fewer."""
        limit = self.batches.particles_per_batch
        if limit is None or self.histories is None:
            return limit
        return min(limit, self.histories)

    @property
    def batch_work(self) -> float:
        """Size of the running batch: its particles, or 1 if unknown."""
        return self.last_batch_work if self.batches.last_is_running else self.full_work

    @property
    def last_batch_work(self) -> float:
        """Size of the last announced batch, which may have fewer particles than the others."""
        full, announced = self.particles_per_batch, self.batches.announced
        if not full or self.histories is None or announced is None:
            return self.full_work
        rest = self.histories - full * (announced - 1)
        return float(rest) if 0 < rest < full else self.full_work

    @property
    def full_work(self) -> float:
        """Size of a full batch: its particles, or 1 if unknown."""
        return float(self.particles_per_batch or 1)

    @property
    def buffered(self) -> bool:
        """Whether the log arrives in blocks, so that a silent log is normal.

        Before the dialect is known, the engine's family decides: `moqui` flushes nothing after its head; `smc` is
        buffered if the simulation has begun and the line that a per-beam run flushes next is missing.
        """
        if self._line_buffered_reads >= _LINE_BUFFERED_READS:
            return False
        if self.dialect in BUFFERED_DIALECTS:
            return True
        if self.dialect != "unknown":
            return False
        return self._family == "moqui" or (self._family == "smc" and self._phase == "simulating")

    @property
    def unmatched(self) -> bool:
        """Whether the log grows without one known line: the engine may have changed its messages."""
        if self._understood or self.last_growth_at is None or self._first_growth_at is None:
            return False
        return self.size_bytes > UNMATCHED_BYTES or self.last_growth_at - self._first_growth_at > UNMATCHED_SECONDS

    @property
    def began_at(self) -> float | None:
        """When the run started; ``None`` if unknown."""
        return self.started_at if self.start_seen else None

    def correct_timestamps(self, before: float, after: float) -> None:
        """Replace an instant wherever it is used, because the date of the log was wrong.

        Args:
            before: the wrong instant.
            after: the right one.
        """
        for name in _TIMESTAMPS:
            if getattr(self, name) == before:
                setattr(self, name, after)

    def apply(self, event: Event, at: float) -> None:
        """Apply one event of the log.

        Args:
            event: the event.
            at: when its bytes were written, as exactly as that is known.
        """
        if self.started_at is None:
            self.started_at = at
        if self._read_over:
            self.timed, self._read_over = [], False
        match event:  # lines about batches come first: a log has thousands of them
            case BatchStarted():
                self._count_anomalies(self.batches.start(event.number, event.total))
                self._simulate(at)
                if self.batch_since is None:
                    self.batch_since = at
                self._record_progress(at)
            case HistoriesGenerated():
                self._record_progress(at)
            case BatchFinished():
                anomalies = self.batches.finish()
                self._count_anomalies(anomalies)
                self._finished_in_read += not anomalies
                self._last_batch_done = self.batches.all_finished
                self._record_progress(at)
            case RunHead():
                self._family = event.family
            case DialectRecognised():
                self.dialect = event.dialect
            case PhaseEntered():
                self._enter(event, at)
                self._record_progress(at)
            case DoseDescribed():
                self.dose.describe(event.dimensions, event.max_dose_gy)
                self._record_progress(at)
            case DoseWritten():
                self.dose.write(event.path)
                self._record_progress(at)
            case EngineTimed():
                self.engine_times = self.engine_times.plus(event.part, event.seconds)
                self._record_progress(at)
            case HistoriesCounted():
                self._past_histories += self.histories or 0
                self.histories = event.histories
                self._record_progress(at)
            case BatchesAnnounced():
                self._record_batch_durations(at, live=True)
                self._count_anomalies(self.batches.announce(event.total, event.particles_per_batch))
                self._simulate(at)
                self.batch_since = at
                self._record_progress(at)
            case RunSucceeded():
                self._succeeded = True
                self.ended_at = at
                self._record_progress(at)
            case RunFailed():
                if event.reason == "empty_dose" and "no_particles" in self.failures:
                    return  # no particles give an empty dose
                if event.reason not in self.failures or event.text.startswith("what()"):
                    self.failures[event.reason] = event.text
                self.ended_at = at
            case Anomaly():
                self.anomalies[event.kind] += 1
                return
            case LogRead():
                self._finish_read(event, at)
                return
            case LogReplaced():
                return
        self._understood = True

    def _enter(self, event: PhaseEntered, at: float) -> None:
        phase = self.phase
        if event.unless_later and phase is not None and PHASES.index(phase) >= PHASES.index(event.phase):
            return
        if event.phase == "simulating":
            self._simulate(at)
            return
        self._phase, self._last_batch_done = event.phase, False
        if event.phase != "saving":
            self.dose.begin_beam()
        elif self.running_since is None:
            self.running_since = at

    def _simulate(self, at: float) -> None:
        self._phase, self._last_batch_done = "simulating", False
        self.dose.begin_beam()
        if self.running_since is None:
            self.running_since = at

    def _count_anomalies(self, anomalies: list[str]) -> None:
        if anomalies:
            self.anomalies.update(anomalies)

    def _record_progress(self, at: float) -> None:
        self.last_progress_at = at

    def _finish_read(self, read: LogRead, at: float) -> None:
        grew = read.size_bytes != self.size_bytes
        if grew and read.live and not read.line_complete:
            # A line-buffered log never ends within a line: the earlier reads ended with a line by chance.
            self._line_buffered_reads = 0
        if self._finished_in_read and read.live and read.line_complete and not self.ended:
            # About one block of the C library in thirty ends with a line by chance; twice in a row is line buffering.
            # Between two beams the set-up flushes the rest of the block, which proves nothing.
            self._line_buffered_reads += self._phase == "simulating"
        self._record_batch_durations(at, live=read.live)
        if not read.live:
            self.batch_since = None
        self.size_bytes = read.size_bytes
        if grew:
            if self._first_growth_at is None:
                self._first_growth_at = at
                self.start_seen = read.live
            self.last_growth_at = at
            if not self._understood:
                self.last_progress_at = at
        self._read_over = True

    def _record_batch_durations(self, at: float, *, live: bool) -> None:
        """Divide the time of one read among the batches that finished in it."""
        finished, self._finished_in_read = self._finished_in_read, 0
        if not finished:
            return
        self.pace.chunk_batches = max(self.pace.chunk_batches, finished) if self.buffered else 1
        since = self.batch_since
        exact = finished == 1 and since is not None and since < at
        if since is None or since >= at:
            # The batch began in the same read, so after the read before.
            since = self.last_growth_at
        self.batch_since = at
        if not live or since is None or since >= at:
            return
        seconds = (at - since) / finished
        warm_up = self.batches.finished == finished
        only_last = finished == 1 and self.batches.all_finished
        work = self.last_batch_work if only_last else self.full_work
        for _ in range(finished):
            self.pace.add(seconds, work, warm_up=warm_up)
        if exact and not self.buffered:
            self.timed.append(seconds)
