"""Events: the facts that a ``tps_env`` log can report.

The parser turns lines into events. The tailer adds :class:`LogReplaced` and :class:`LogRead`, which are about the file.
Numbers are as printed: not added up, not checked against other lines, not dated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

FAILURE_REASONS: tuple[str, ...] = (
    "out_of_memory",
    "cuda",
    "no_free_gpu",
    "exception",
    "assertion",
    "simulation_error",
    "segmentation_fault",
    "time_limit",
    "preempted",
    "node_failure",
    "cancelled",
    "output_error",
    "killed",
    "terminated",
    "aborted",
    "output_missing",
    "empty_dose",
    "no_particles",
    "fatal_error",
    "error",
    "status",
)
"""Failure reasons by precedence. If a log shows several, the first of this list counts; the others follow from it."""

INTERRUPTIONS = frozenset({"preempted", "node_failure", "cancelled"})
"""Failure reasons that are no fault of the run: the scheduler or a person stopped it."""

PHASES: tuple[str, ...] = ("loading", "preparing", "simulating", "saving")
"""Phases of a run in order. An engine that simulates several beams starts again at ``loading`` for each."""

DIALECTS: tuple[str, ...] = ("smc", "smc-spot", "moqui", "moqui-spot", "moqui-stat", "unknown")
BUFFERED_DIALECTS = frozenset({"smc-spot", "moqui", "moqui-spot", "moqui-stat"})
"""Dialects with block-buffered batch lines: the C library writes them in blocks of 4096 bytes and at the exit."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """A head line: the engine prints it when its process starts.

    Args:
        family: ``smc`` or ``moqui``.
        certain: ``False`` if the line alone does not prove a new process. It then starts a new run only after the
            previous run has ended.
    """

    family: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class DialectRecognised:
    """The dialect of the log, one of :data:`DIALECTS`, was recognised."""

    dialect: str


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The engine has entered a phase.

    Args:
        phase: one of :data:`PHASES`.
        unless_later: the line is also printed in later phases; ignore it there.
    """

    phase: str
    unless_later: bool = False


@dataclass(frozen=True, slots=True)
class HistoriesCounted:
    """The number of histories of the beam that will be simulated."""

    histories: int


@dataclass(frozen=True, slots=True)
class BatchesAnnounced:
    """The engine announces batches: once per beam, or once per repetition in ``moqui-stat``.

    Args:
        total: number of batches.
        particles_per_batch: the configured limit; the last batch may hold fewer.
    """

    total: int
    particles_per_batch: int | None = None


@dataclass(frozen=True, slots=True)
class BatchStarted:
    """A batch has started. ``number`` (from 1) and ``total`` are ``None`` if the dialect does not print them."""

    number: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """A batch has finished: its particles have been transported."""


@dataclass(frozen=True, slots=True)
class HistoriesGenerated:
    """The number of histories generated so far for this beam, including the running batch."""

    generated: int


@dataclass(frozen=True, slots=True)
class DoseDescribed:
    """A property of the dose, printed shortly before or after the dose is written.

    Args:
        dimensions: size of the dose grid, such as ``400x400x1``.
        max_dose_gy: maximum dose in Gy.
    """

    dimensions: str | None = None
    max_dose_gy: float | None = None


@dataclass(frozen=True, slots=True)
class DoseWritten:
    """The engine has written a dose file. ``path`` is as printed and may contain a patient's ids."""

    path: str


ENGINE_TIMES: tuple[str, ...] = ("initialization", "simulation", "output", "total")
"""Durations that the engine prints: three parts of each beam, and the whole process."""


@dataclass(frozen=True, slots=True)
class EngineTimed:
    """A duration that the engine has printed.

    Args:
        part: one of :data:`ENGINE_TIMES`.
        seconds: duration in seconds.
    """

    part: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSucceeded:
    """The engine's normal last line. Engines print it after some failures, too."""

    text: str


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A line reports a failure. ``reason`` is one of :data:`FAILURE_REASONS`, ``text`` the line."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The log contradicts itself. ``kind`` is a short snake_case word."""

    kind: str


@dataclass(frozen=True, slots=True)
class LogReplaced:
    """The file no longer holds the bytes that were read before. The following events are from its beginning."""


@dataclass(frozen=True, slots=True)
class LogRead:
    """Marks the end of one read: all events since the previous one came in the same read.

    Args:
        size_bytes: number of bytes read so far.
        line_complete: the bytes read end with a newline.
        live: the log grew while it was watched; ``False`` for content that was there at the first poll.
    """

    size_bytes: int
    line_complete: bool
    live: bool


Event: TypeAlias = (
    RunHead
    | DialectRecognised
    | PhaseEntered
    | HistoriesCounted
    | BatchesAnnounced
    | BatchStarted
    | BatchFinished
    | HistoriesGenerated
    | DoseDescribed
    | DoseWritten
    | EngineTimed
    | RunSucceeded
    | RunFailed
    | Anomaly
    | LogReplaced
    | LogRead
)


@dataclass(frozen=True, slots=True)
class SimulationProgress:
    """Progress as the development plan defines it: started batches divided by all batches, in percent."""

    current_batch: int
    total_batches: int
    progress_percent: float
