"""The description of one run of the engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Dialect = Literal["smc", "smc-spot", "moqui", "moqui-spot", "moqui-stat"]
Shell = Literal["dash", "bash"]
Failure = Literal[
    "cuda",
    "out_of_memory",
    "exception",
    "assertion",
    "segmentation_fault",
    "killed",
    "terminated",
    "output_error",
    "no_particles",
    "empty_dose",
    "crash_after_dose",
    "hang",
]

_OUTSIDE_BATCHES = frozenset({"exception", "output_error", "no_particles", "empty_dose", "crash_after_dose"})
_DEFAULT_BATCH_HISTORIES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One run of the engine.

    Args:
        dialect: engine and mode.
        batches: number of batches of each beam in the process.
        histories: particles of each beam.
        histories_per_batch: size of a full batch; ``None`` splits evenly, 0 is the engine's "no batch" mode (one
            batch).
        rounds: rounds of the statistics stop (``moqui-stat`` only).
        batch_seconds: duration of a batch, varied by 5 %, or the exact duration of every batch.
        generation_share: share of a batch's duration in which its particles are generated.
        loading_seconds: from the start to a beam's first batch.
        saving_seconds: from a beam's last batch until its dose is written.
        gpu: the GPU build, which prints other lines.
        failure, at_batch: kind of failure, and its batch (from 1 on). ``exception`` happens while loading,
            ``output_error`` while saving, ``no_particles`` leaves nothing to simulate; ``empty_dose`` and
            ``crash_after_dose`` happen after the dose was written (production only).
        shell: the shell that started the engine; bash does not write its message into the log.
        line_buffered: started with ``stdbuf -oL``.
        production: the production engine, a variant of ``smc``.
        batch_lines, banner: whether it prints lines about batches, and the public engine's first lines.
        beam_number, plan_beams, spots: first beam, beams in the plan, spots of a beam.
        case_directory, output_directory: paths in the output.
        seed: seed of all random variation; the engine prints it.

    Raises:
        ValueError: the engine cannot run with these values.
    """

    dialect: Dialect = "smc"
    batches: tuple[int, ...] = (18,)
    histories: int = 180_000_000
    histories_per_batch: int | None = None
    rounds: int = 1
    batch_seconds: float | tuple[float, ...] = 5.0
    generation_share: float = 0.2
    loading_seconds: float = 3.0
    saving_seconds: float = 2.0
    gpu: bool = False
    failure: Failure | None = None
    at_batch: int | None = None
    shell: Shell = "dash"
    line_buffered: bool = False
    production: bool = False
    batch_lines: bool = True
    banner: bool = True
    beam_number: int = 1
    plan_beams: int = 2
    spots: int = 200
    case_directory: str = "/data/moqui/caseA"
    output_directory: str = "/data/moqui/out"
    seed: int = -1932780356

    def __post_init__(self) -> None:
        mistakes = list(self._unknown_words()) or [*self._impossible_runs(), *self._impossible_batches()]
        if mistakes:
            raise ValueError("; ".join(mistakes))

    def batch_histories(self, batches: int) -> int:
        """Return the histories of a full batch of a beam with this number of batches."""
        if self.failure == "no_particles":
            return self.histories_per_batch or _DEFAULT_BATCH_HISTORIES
        return self.histories_per_batch or math.ceil(self.histories / batches)

    def _unknown_words(self) -> Iterator[str]:
        if self.dialect not in get_args(Dialect):
            yield f"unknown dialect {self.dialect!r}"
        if self.failure is not None and self.failure not in get_args(Failure):
            yield f"unknown failure {self.failure!r}"
        if self.shell not in get_args(Shell):
            yield f"unknown shell {self.shell!r}"

    def _impossible_runs(self) -> Iterator[str]:
        if self.dialect == "moqui-stat" and not self.gpu:
            yield "moqui-stat needs a GPU: the CPU build cannot compute the uncertainty"
        if self.dialect != "moqui-stat" and self.rounds != 1:
            yield "only moqui-stat has rounds"
        if self.failure == "cuda" and not self.gpu:
            yield "cuda needs a GPU"
        if self.failure == "assertion" and self.gpu:
            yield "assertion needs the CPU build"
        if self.failure == "no_particles" and self.dialect not in ("smc", "moqui"):
            yield "no_particles is known per beam only"
        if self.production and self.dialect != "smc":
            yield "the production engine's dialect is smc"
        if self.failure in ("empty_dose", "crash_after_dose") and not self.production:
            yield f"{self.failure} needs the production engine"
        seconds = self.batch_seconds if isinstance(self.batch_seconds, tuple) else (self.batch_seconds,)
        if min(self.loading_seconds, self.saving_seconds, *seconds) < 0 or not 0 <= self.generation_share <= 1:
            yield "times must not be negative, and generation_share is a part of 1"

    def _impossible_batches(self) -> Iterator[str]:
        batches_in_run = sum(self.batches) * self.rounds
        if min((self.histories, self.rounds, len(self.batches), *self.batches)) < 1:
            yield "there must be a beam, a batch, a round and a particle"
            return
        if isinstance(self.batch_seconds, tuple) and len(self.batch_seconds) != batches_in_run:
            yield f"batch_seconds names {len(self.batch_seconds)} of {batches_in_run} batches"
        strikes_in_batch = self.failure is not None and self.failure not in _OUTSIDE_BATCHES
        if strikes_in_batch and self.at_batch is None:
            yield f"{self.failure} needs at_batch"
        if not strikes_in_batch and self.at_batch is not None:
            yield "at_batch needs a failure that strikes in a batch"
        if self.at_batch is not None and not 1 <= self.at_batch <= batches_in_run:
            yield f"there is no batch {self.at_batch} of {batches_in_run}"
        for batches in self.batches if self.failure != "no_particles" else ():
            size = self.batch_histories(batches)
            if math.ceil(self.histories / size) != batches:
                yield f"{self.histories} histories make no {batches} batches of {size}"
