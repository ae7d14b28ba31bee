"""A ``tps_env`` that computes nothing: it produces the output with its timing."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NoReturn

from exporter.demo.simulator import text
from exporter.demo.simulator.process import Process
from exporter.demo.simulator.simulation import Failure, Simulation

_SIGNALS = {
    "segmentation_fault": ("Segmentation fault", 139),
    "killed": ("Killed", 137),
    "terminated": ("Terminated", 143),
}


class _Run(ABC):
    """Common parts of both engines: tables, batches and their durations, and failures."""

    cuda_error: str
    gpu_assert: str

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.process = Process(line_buffered=simulation.line_buffered, shell=simulation.shell)
        self._random = random.Random(simulation.seed)
        self._durations = self._batch_durations()
        self._batch = 0
        self._fields: dict[str, object] = {
            "_": " ",
            "rule": "-" * 75,
            "wide_rule": "-" * 80,
            "case_directory": simulation.case_directory,
            "output_directory": simulation.output_directory,
            "plan_beams": simulation.plan_beams,
            "seed": simulation.seed,
            "spots": simulation.spots,
            "histories": simulation.histories,
        }
        if simulation.failure == "no_particles":
            self._fields["histories"] = 0

    def write(self) -> NoReturn:
        """Print the whole run."""
        self.start()
        for index, batches in enumerate(self.simulation.batches):
            self._fields |= self._pointers() | {"beam": self.simulation.beam_number + index}
            self.beam(index, 0 if self.simulation.failure == "no_particles" else batches)
        self.end()
        self.process.exit(0)

    @abstractmethod
    def start(self) -> None:
        """Print the lines at the start."""

    def end(self) -> None:
        """Print the lines at the normal end."""
        self.process.print(f"Time taken by MC engine: {self.process.elapsed_seconds * 1000:.6g} milli-seconds")

    @abstractmethod
    def beam(self, index: int, batches: int) -> None:
        """Print the lines of the beam with this index."""

    def table(self, *tables: str, **fields: object) -> None:
        for line in "".join(tables).splitlines():
            kind, content = line[0], line[2:]
            if kind == "~":
                self.process.wait(float(content) * self.simulation.loading_seconds)
            else:
                self.process.print(content.format(**self._fields, **fields), flush=kind == "E")

    def next_batch(self) -> tuple[float, float]:
        """Begin the next batch. Return the seconds of its generation and of its transport."""
        self._batch += 1
        if self._strikes("out_of_memory") and not self.simulation.gpu:
            self.throw("std::bad_alloc", "std::bad_alloc")
        seconds = next(self._durations)
        generation = seconds * self.simulation.generation_share
        return generation, seconds - generation

    def allocate(self) -> None:
        """Allocate the GPU's memory for a batch."""
        if self._strikes("out_of_memory"):
            self.process.error(self.gpu_assert)
            self.process.exit(2)

    def transport(self, seconds: float) -> None:
        """Transport the particles of a batch, half of them if it fails."""
        if self.simulation.failure is None or not self._strikes(self.simulation.failure):
            self.process.wait(seconds)
            return
        self.process.wait(seconds / 2)
        if self.simulation.failure == "hang":
            self.process.hang()
        if self.simulation.failure == "cuda":
            self.process.print("current total 0.000000 MB free 0.000000 MB")
            self.process.print(self.cuda_error)
            self.process.exit(255)
        if self.simulation.failure == "assertion":
            self.process.error(text.ASSERTION)
            self.process.die("Aborted", 134)
        self.process.die(*_SIGNALS[self.simulation.failure])

    def throw(self, kind: str, what: str) -> NoReturn:
        self.process.error(text.EXCEPTION.format(type=kind, what=what))
        self.process.die("Aborted", 134)

    def save(self) -> None:
        self.process.wait(self.simulation.saving_seconds)
        if self.simulation.failure == "output_error":
            self.process.print("Cannot open file!", flush=True)

    def blocks_and_threads(self, histories: int) -> tuple[int, int]:
        """Return how the engine divides a batch over the GPU (its run_simulation, with all threads)."""
        if histories < 512:
            return 1, histories
        blocks = min(math.ceil(histories / 512), 65535)
        in_thread = math.ceil(histories / (512 * blocks))
        return blocks + (histories % (512 * blocks * in_thread) > 0), 512

    def batch_sizes(self, batches: int) -> Iterator[int]:
        """Return the histories of each batch of a beam; the last may be shorter."""
        size = self.simulation.batch_histories(batches) if batches else 0
        for batch in range(batches):
            yield min(size, self.simulation.histories - batch * size)

    def _strikes(self, failure: Failure) -> bool:
        return self.simulation.failure == failure and self.simulation.at_batch == self._batch

    def _batch_durations(self) -> Iterator[float]:
        if isinstance(self.simulation.batch_seconds, tuple):
            yield from self.simulation.batch_seconds
        else:
            while True:
                yield self.simulation.batch_seconds * self._random.uniform(0.95, 1.05)

    def _pointers(self) -> dict[str, object]:
        node = 0x55F000000000 + self._random.randrange(1 << 32) * 16
        offsets = {"node": 0, "children": 0x330, "child_0": 0x390, "child_1": 0x420, "world": -0x1D960}
        return {name: hex(node + offset) for name, offset in offsets.items()}


class SmcRun(_Run):
    """The engine moqui_v2, per beam and per spot."""

    cuda_error = "CUDA error after (transport particle table): an illegal memory access was encountered"
    gpu_assert = f"GPUassert: out of memory in {text.ENVIRONMENT_SOURCE} at line 1340"

    def start(self) -> None:
        self.table(text.SMC_PROCESS, text.SMC_TIME_SEED if self.simulation.seed < -1 else "", text.SMC_CASE)

    def beam(self, index: int, batches: int) -> None:
        gpu = self.simulation.gpu
        self.table(text.SMC_BEAM)
        if self.simulation.failure == "exception":
            self.throw("std::runtime_error", "Invalid beam number.")
        self.table(text.SMC_GEOMETRY, text.SMC_ROTATION_GPU if gpu else text.SMC_ROTATION_CPU, text.SMC_LOG_FILES)
        if batches:
            self.table(text.SMC_FIELD_FILES)
        else:
            # The engine does not mind a beam without log files: it simulates nothing.
            self._fields["spots"] = 0
        self.table(text.SMC_BEAM_SOURCE, text.SMC_NODES_GPU if gpu else text.SMC_NODES_CPU, text.SMC_START)
        if self.simulation.dialect == "smc":
            self._by_beam(batches)
        else:
            self._by_spot(batches)
        self.table(text.SMC_FINALIZE_GPU if gpu else text.SMC_FINALIZE_CPU)
        self.save()

    def _by_beam(self, batches: int) -> None:
        output, size = self.process.print, self.simulation.batch_histories(batches)
        if self.simulation.gpu:
            output("Starting simulation per field.. : Geometry allocated memory --> 0.57742 GB", flush=True)
        if self.simulation.histories_per_batch == 0:
            output(f"Uploading particles with no batch.. : Particle count --> {size}", flush=True)
        else:
            output(f"Uploading particles with batch.. : Particle count --> {size} with {batches} batches", flush=True)
        for number, histories in enumerate(self.batch_sizes(batches), start=1):
            generation, transport = self.next_batch()
            output(f"Generating particles for ({number} of {batches} batches) in CPU ..")
            self.process.wait(generation)
            output("Particle generation complete!", flush=True)
            output("Transporting particles...")
            self._run_simulation(size, histories, transport)
            output("Particle transportation complete!", flush=True)

    def _by_spot(self, batches: int) -> None:
        output, size = self.process.print, self.simulation.batch_histories(batches)
        if self.simulation.gpu:
            output("Geometry occupies 0.577420 GB")
        output("Run by spot")
        output(f"num spots {self.simulation.spots}")
        output(_spot_announcement(self.simulation, size, batches))
        for histories in self.batch_sizes(batches):
            generation, transport = self.next_batch()
            output("Generating particles..")
            self.process.wait(generation)
            output("Transporting particles..")
            self._run_simulation(size, histories, transport)
            output(f"run simulation {transport * 1000:f} ms")
        output(_spot_end(self.simulation, size))
        output(f"Number of particles tracked {self.simulation.histories}")

    def _run_simulation(self, size: int, histories: int, seconds: float) -> None:
        output = self.process.print
        specification = "Printing simulation specification.. :"
        if not self.simulation.gpu:
            output("Thread initialization complete!")
            self.transport(seconds)
            return
        blocks, threads = self.blocks_and_threads(histories)
        output(f"{specification} Block size --> {blocks}, Thread size --> {threads}")
        if self.simulation.dialect == "smc-spot":
            output(f"{specification} Histories per batch --> {size}")
        self.allocate()
        output("Starting transportation call.. ")
        output(f"{specification} Histories per batch --> {size}")
        self.transport(seconds)
        output("Transportation call ended!")


class MoquiRun(_Run):
    """The original moqui, per beam, per spot and with its statistics stop. Its "seconds" are tenths of real seconds."""

    cuda_error = "CUDA error: (transport particle) an illegal memory access was encountered"
    gpu_assert = f"GPUassert: out of memory {text.ENVIRONMENT_SOURCE} 1098"

    def start(self) -> None:
        self.table(text.MOQUI_PROCESS)
        if self.simulation.failure == "exception":
            self.throw("std::runtime_error", "There is no RTPLAN in the path. Exiting.")
        self.table(text.MOQUI_PLAN)
        if self.simulation.dialect != "moqui-spot":
            first = self.simulation.beam_number if len(self.simulation.batches) == 1 else 0
            self.table(text.MOQUI_SELECTION, first_selected=first)

    def beam(self, index: int, batches: int) -> None:
        gpu, stat = self.simulation.gpu, self.simulation.dialect == "moqui-stat"
        # initialize_and_run adds index * 10000 to what the beam before used.
        beam_seed = self.simulation.seed + 10000 * (index * (index + 1) // 2)
        self.table(text.MOQUI_BEAM, beam_seed=beam_seed)
        self.table(text.MOQUI_STAT_SCORERS if stat else text.MOQUI_ONE_SCORER, text.MOQUI_SOURCE)
        self.table(text.MOQUI_ROTATION_GPU if gpu else text.MOQUI_ROTATION_CPU, text.MOQUI_PARTICLES)
        if gpu:
            self.table(text.MOQUI_NODES_GPU, text.MOQUI_CAPACITY * (3 if stat else 1), text.MOQUI_MATERIAL_GPU)
        else:
            self.table(text.MOQUI_NODES_CPU)
        self.table(
            text.MOQUI_START,
            geometry_tenths=self.simulation.loading_seconds * 0.03,
            garbage=self._random.randrange(-(1 << 31), 1 << 31),
            simulation_type=int(self.simulation.dialect == "moqui-spot"),
        )
        if gpu:
            self.table(text.MOQUI_GPU_MEMORY)
        if stat:
            self._with_statistics(batches)
        elif self.simulation.dialect == "moqui":
            self._by_beam(batches)
        else:
            self._by_spot(batches)
        self.table(text.MOQUI_FINALIZE_GPU if gpu else text.MOQUI_FINALIZE_CPU)
        self.save()
        self.process.print(f"Reshape and save done {self.simulation.saving_seconds / 10:f} s")

    def _by_beam(self, batches: int) -> None:
        self.process.print("Run by beam")
        self._announce(batches)
        self._batches(batches, "cum_vertiex")
        histories = self._fields["histories"]
        self.process.print(f"cum vertex {histories} total histories {histories}")
        self.process.print(f"Number of particles tracked {histories}")

    def _with_statistics(self, batches: int) -> None:
        output = self.process.print
        output("Run by beam")
        for number in range(1, self.simulation.rounds + 1):
            if number == 1:
                output(f"Running {self.simulation.histories} histories for the first run")
            else:
                output(f"Running additional {self.simulation.batch_histories(batches)} histories")
            self._announce(batches)
            self._batches(batches, "Cumulated vertices")
            tracked = self.simulation.histories * number
            output("Calculating standard deviation")
            output("Standard deviation calculation done")
            output(f"Number of particles tracked {tracked}")
            output(f"Run {number}: current uncertainty {200 / math.sqrt(tracked):f} %")

    def _by_spot(self, batches: int) -> None:
        output, size = self.process.print, self.simulation.batch_histories(batches)
        output("Run by spot")
        output(f"num spots {self.simulation.spots}")
        output(_spot_announcement(self.simulation, size, batches))
        self._batches(batches, None)
        output(_spot_end(self.simulation, size))
        output(f"Number of particles tracked {self.simulation.histories}")

    def _announce(self, batches: int) -> None:
        size = self.simulation.batch_histories(batches)
        if self.simulation.histories_per_batch == 0:
            self.process.print(f"Uploading {size} histories")
        else:
            self.process.print(f"Upload {size} histories per batch, {batches} batches expected")

    def _batches(self, batches: int, cumulated_label: str | None) -> None:
        """``cumulated_label``: of the line that counts the histories so far; ``None`` per spot, where there is none."""
        output, size = self.process.print, self.simulation.batch_histories(batches)
        cumulated = 0
        for histories in self.batch_sizes(batches):
            generation, transport = self.next_batch()
            output("Generating particles...")
            self.process.wait(generation)
            output(f"{'beam' if cumulated_label is None else 'Beam'} generation {generation / 10:f} s")
            cumulated += histories
            if cumulated_label is not None:
                output(f"{cumulated_label} {cumulated} {histories}")
            output("Transporting particles...")
            output("Initialization for run done 0.000000 s")
            if self.simulation.gpu:
                blocks, threads = self.blocks_and_threads(histories)
                output(f"Block size: {blocks}, Thread size: {threads}")
                output(f"h0 0 h1 {size} 28")
                if cumulated_label is None:
                    output(f"Histories per batch {size}")
                self.allocate()
                output("Simulating particles...")
            self.transport(transport)
            output(f"{'run simulation' if cumulated_label is None else 'Run transportation'} {transport / 10:f} s")


def _spot_announcement(simulation: Simulation, size: int, batches: int) -> str:
    if simulation.histories_per_batch == 0:
        return f"Upload {size} histories"
    return f"Upload {size} histories per batch, {batches} batches expected"


def _spot_end(simulation: Simulation, size: int) -> str:
    # A last batch that is exactly full leaves the engine's loop before the index is past the last spot.
    index = simulation.spots - (simulation.histories % size == 0)
    histories = simulation.histories
    return f"spot ind {index} num_spots {simulation.spots} cum vertices {histories} total histories {histories}"
