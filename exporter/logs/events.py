"""What a ``tps_env`` log can say.

The parser turns lines into the events below; whoever reads the file adds the two that are about it
(:class:`LogReplaced`, :class:`LogRead`). Counters are as printed: nothing here is added up, checked against its
neighbours or dated.
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
"""Why a run failed. Where a log shows several reasons, the first of this list is the cause and the others its echo."""

INTERRUPTIONS = frozenset({"preempted", "node_failure", "cancelled"})
"""Reasons that are no fault of the run: the scheduler or a person took its place away."""

PHASES: tuple[str, ...] = ("loading", "preparing", "simulating", "saving")
"""What an engine does in a run, in order; with several beams in one process it starts again at ``loading``."""

DIALECTS: tuple[str, ...] = ("smc", "smc-spot", "moqui", "moqui-spot", "moqui-stat", "unknown")
BUFFERED_DIALECTS = frozenset({"smc-spot", "moqui", "moqui-spot", "moqui-stat"})
"""Dialects whose batch lines the C library holds back until 4096 bytes have come together or the process exits."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """The engine's first lines: a process has just begun.

    Args:
        family: ``smc`` or ``moqui``.
        certain: ``False`` for a line that proves little by itself: it begins a new run only after the end of another.
    """

    family: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class DialectRecognised:
    """The log is of this dialect (one of :data:`DIALECTS`)."""

    dialect: str


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The engine says what it does now (one of :data:`PHASES`).

    ``unless_later``: the line is printed in later phases, too, and says nothing there.
    """

    phase: str
    unless_later: bool = False


@dataclass(frozen=True, slots=True)
class HistoriesCounted:
    """Histories of the beam about to be simulated."""

    histories: int


@dataclass(frozen=True, slots=True)
class BatchesAnnounced:
    """So many batches will follow; once per beam, or per round of a run that stops by its statistics.

    ``particles_per_batch`` is the configured limit: the only or the last batch may hold fewer.
    """

    total: int
    particles_per_batch: int | None = None


@dataclass(frozen=True, slots=True)
class BatchStarted:
    """A batch has begun. ``number`` (1-based) and ``total`` are ``None`` in dialects that do not count."""

    number: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """A batch's particles have been transported."""


@dataclass(frozen=True, slots=True)
class HistoriesGenerated:
    """``generated`` histories of the beam exist now, the running batch's included."""

    generated: int


@dataclass(frozen=True, slots=True)
class DoseDescribed:
    """A fact about the dose that is about to be written, or was written just now.

    Args:
        dimensions: the grid's size as ``400x400x1``.
        max_dose_gy: its largest dose, in Gy.
    """

    dimensions: str | None = None
    max_dose_gy: float | None = None


@dataclass(frozen=True, slots=True)
class DoseWritten:
    """The engine says that it has written a dose file; ``path`` is as printed, and may hold a patient's ids."""

    path: str


ENGINE_TIMES: tuple[str, ...] = ("initialization", "simulation", "output", "total")
"""What the engine measures itself: three parts of each beam, and the whole process."""


@dataclass(frozen=True, slots=True)
class EngineTimed:
    """The engine says how long something took.

    Args:
        part: one of :data:`ENGINE_TIMES`.
        seconds: how long.
    """

    part: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSucceeded:
    """The engine's normal last line (which it also prints after some failures)."""

    text: str


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A line that says the run has failed; ``reason`` is one of :data:`FAILURE_REASONS`."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that does not fit. ``kind`` is a short snake_case word."""

    kind: str


@dataclass(frozen=True, slots=True)
class LogReplaced:
    """The file no longer holds the bytes read before; what follows is read from its beginning."""


@dataclass(frozen=True, slots=True)
class LogRead:
    """The events before this one came in one read.

    Args:
        size_bytes: how much of the log has been read by now.
        line_complete: the bytes read end with a newline.
        live: the log grew while we watched; ``False`` for what already stood there at the first look.
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
    """Progress as the plan defines it: started batches of all batches, in percent."""

    current_batch: int
    total_batches: int
    progress_percent: float
