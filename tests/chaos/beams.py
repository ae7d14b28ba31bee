"""The beams of the site, and the runs that they have."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.demo.simulator import Script, Simulation, simulate
from exporter.demo.simulator.script import Step
from tests.chaos.truth import Truth, truth

HOSTS = ("hpc1", "hpc2")
SOURCES = ("local", *HOSTS)

_CLOCK_OFFSETS = (-3600.0, -300.0, -30.0, -10.0, -3.0, 3.0, 10.0, 300.0, 3600.0)
"""Seconds by which the clock that dates a source's files may be ahead of the exporter's."""

_DIALECTS: tuple[dict[str, Any], ...] = (
    {"dialect": "smc"},
    {"dialect": "smc", "gpu": True},
    {"dialect": "smc-spot", "line_buffered": True},
    {"dialect": "moqui"},
    {"dialect": "moqui-spot", "line_buffered": True},
    {"dialect": "moqui-stat", "gpu": True, "line_buffered": True},
    {"dialect": "smc-spot"},
    {"dialect": "moqui", "line_buffered": True},
)
_FAILURES_OF_ANY = ("output_error", "exception")
_FAILURES_PER_BATCH_OF_GPU = ("cuda", "out_of_memory")
_FAILURES_PER_BATCH_OF_SMC = ("killed", "terminated", "segmentation_fault", "assertion", "out_of_memory")
_FAILURE_SHARE = 0.35
_AT_ONCE_SHARE = 0.15
_PREFIX_SHARE = 0.25
_PREFIXES = (b"0: ", b"2026-01-02T03:04:05.123456789Z stdout F ", b"[2026-01-02 03:04:05] ", b"\x1b[32m")
_SLURM_SHARE = 0.7
_SLURM_ENDS = (
    ("cancelled", b"slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 ***\n"),
    ("cancelled", b"[2026-01-02T03:04:05.1] error: *** JOB 7 ON n1 CANCELLED AT 2026 DUE to SIGNAL Terminated ***\n"),
    ("time_limit", b"slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO TIME LIMIT ***\n"),
    ("preempted", b"slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-02T03:04:05 DUE TO PREEMPTION ***\n"),
    ("node_failure", b"srun: error: Node failure on n1\n"),
    ("killed", b"srun: error: n1: task 0: Killed\n"),
)
"""Slurm's last words instead of the shell's, and the reason they tell."""


@dataclass(eq=False)
class Run:
    """One execution of the engine.

    Args:
        simulation: what it does.
        number: 1, 2, ... of its beam.
        began_at, ended_at: on the engines' clock, which stands still while the machine does.
        wrote_at: when it last wrote.
        confirmed: the exporter was seen to show its end for so long that it must have counted it.
    """

    simulation: Simulation
    number: int
    began_at: float | None = None
    ended_at: float | None = None
    wrote_at: float = 0.0
    confirmed: bool = False

    @property
    def at_once(self) -> bool:
        """Its whole log is written at once, as by an engine that fails at its first step; drawn apart from the rest."""
        return random.Random(f"at once {self.simulation.seed}").random() < _AT_ONCE_SHARE

    @property
    def slurm_end(self) -> tuple[str, bytes] | None:
        """Reason and last words where Slurm ends it; drawn apart from the rest, as the prefix of its lines is."""
        chance = random.Random(f"slurm {self.simulation.seed}")
        if self.simulation.failure != "terminated" or chance.random() > _SLURM_SHARE:
            return None
        return chance.choice(_SLURM_ENDS)

    @property
    def prefix(self) -> bytes:
        """What another program writes before each line of its log; most logs have none."""
        chance = random.Random(f"prefix {self.simulation.seed}")
        return chance.choice(_PREFIXES) if chance.random() < _PREFIX_SHARE else b""

    @property
    def script(self) -> Script:
        """What its log receives, and when."""
        script = simulate(self.simulation)
        steps = list(script.steps)
        if self.slurm_end is not None:
            last = steps[-1]
            assert last.data.endswith(b"Terminated\n")
            steps[-1] = replace(last, data=last.data.removesuffix(b"Terminated\n") + self.slurm_end[1])
        return replace(script, steps=tuple(_prefixed(steps, self.prefix)))

    @property
    def truth(self) -> Truth:
        """What its finished log says."""
        said = truth(self.simulation)
        return said if self.slurm_end is None else replace(said, reason=self.slurm_end[0])

    def __str__(self) -> str:
        times = "began {} ended {}".format(*(at and round(at, 1) for at in (self.began_at, self.ended_at)))
        counted = "seen counted" if self.confirmed else "not seen counted"
        return f"run {self.number} {times} {counted} {self.truth} {self.simulation}"

    @property
    def going(self) -> bool:
        """Its log has begun and has not ended."""
        return self.began_at is not None and self.ended_at is None


@dataclass(eq=False)
class Beam:
    """A beam.

    Args:
        number: 0, 1, ...
        source: where its log is.
        log: the file.
        runs: all so far; the last is the current one.
        troubled: a fault holds its log now.
        clock_offset_seconds: how much the clock that dates its log is ahead of the exporter's.
    """

    number: int
    source: str
    log: Path
    runs: list[Run] = field(default_factory=list)
    troubled: bool = False
    clock_offset_seconds: float = 0.0

    @property
    def case_id(self) -> str:
        return f"7001{self.number // 4:04}"

    @property
    def beam_id(self) -> str:
        return f"{self.case_id}_beam_{self.number % 4 + 1}"

    @property
    def run(self) -> Run:
        """The current run."""
        return self.runs[-1]

    def next_run(self, chance: random.Random) -> Run:
        """The run that comes after those so far."""
        simulation = _simulation(chance, self.number)
        while self.runs and simulation.failure == self.runs[-1].simulation.failure == "exception":
            # Two logs that end alike before their first batch, swapped between two looks, cannot be told apart.
            simulation = _simulation(chance, self.number)
        run = Run(simulation, len(self.runs) + 1)
        self.runs.append(run)
        return run


def _prefixed(steps: list[Step], prefix: bytes) -> Iterator[Step]:
    """The same writes with ``prefix`` before each line, wherever a write begins or ends in a line."""
    line_begins = True
    for step in steps:
        data = b""
        for line in step.data.splitlines(keepends=True):
            data += prefix + line if line_begins else line
            line_begins = line.endswith(b"\n")
        yield replace(step, data=data)


def _simulation(chance: random.Random, number: int) -> Simulation:
    described = dict(_DIALECTS[number % len(_DIALECTS)])
    dialect, gpu = described["dialect"], described.get("gpu", False)
    batches: tuple[int, ...] = (chance.randint(5, 10),)
    if dialect == "smc" and chance.random() < 0.2:
        batches = (batches[0], chance.randint(2, 4))
    if dialect == "moqui-stat":
        described["rounds"] = chance.randint(1, 3)
        batches = (chance.randint(2, 3),)
    described |= _failure(chance, dialect, gpu, sum(batches) * described.get("rounds", 1))
    if described.get("failure") == "output_error":
        # Each beam of a process saves its own dose: the first one's failure would be told while the second one runs.
        batches = batches[:1]
    return Simulation(
        **described,
        batches=batches,
        histories=chance.randint(20, 200) * 1_000_000,
        batch_seconds=chance.uniform(0.5, 1.2),
        loading_seconds=chance.uniform(0.5, 2.0),
        saving_seconds=chance.uniform(0.2, 0.8),
        # The head tells one run from another, as a time seed does.
        seed=-chance.randrange(2, 1 << 31),
    )


def _failure(chance: random.Random, dialect: str, gpu: bool, batches: int) -> dict[str, Any]:
    if chance.random() > _FAILURE_SHARE:
        return {}
    kinds = list(_FAILURES_OF_ANY)
    if gpu:
        kinds += _FAILURES_PER_BATCH_OF_GPU
    if dialect == "smc" and not gpu:
        kinds += (*_FAILURES_PER_BATCH_OF_SMC, "no_particles")
    kind = chance.choice(kinds)
    if kind in (*_FAILURES_OF_ANY, "no_particles"):
        return {"failure": kind}
    shell = "bash" if kind == "killed" and chance.random() < 0.5 else "dash"
    return {"failure": kind, "at_batch": chance.randint(1, batches), "shell": shell}


def clock_offsets(seed: int) -> dict[str, float]:
    """Clocks that are wrong all along: that of one host, and that of the file server of the local folder.

    Args:
        seed: of the choice; drawn apart, so that runs and faults of a seed stay what they are.

    Returns:
        Seconds by which each source's clock is ahead of the exporter's.
    """
    chance = random.Random(f"clocks of {seed}")
    offsets = dict.fromkeys(SOURCES, 0.0)
    offsets[chance.choice(HOSTS)] = chance.choice(_CLOCK_OFFSETS)
    offsets["local"] = chance.choice(_CLOCK_OFFSETS)
    return offsets


def all_beams(count: int, folders: dict[str, Path], clock_offsets: dict[str, float]) -> list[Beam]:
    """So many beams, half of them here, the others on the hosts."""
    beams = []
    for number in range(count):
        # Every dialect is everywhere: eight of them go round in a count of ten.
        source = "local" if number % 10 < 5 else HOSTS[number % 2]
        beam = Beam(number, source, Path(), clock_offset_seconds=clock_offsets[source])
        beam.log = folders[source] / f"sim_{beam.beam_id}.log"
        beams.append(beam)
    return beams
