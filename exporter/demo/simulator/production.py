"""The production engine: a private variant of the public engine, known from lines that users quoted.

The lines before and after its batches, the dose lines and the timing summary are quoted (communicator's history, March
2026). The rest comes from the public variant. Nobody knows whether it prints lines about batches, so both can be
simulated.
"""

from __future__ import annotations

from collections.abc import Iterator

from exporter.demo.simulator.engine import SmcRun

PROCESS = """\
E {wide_rule}
E MOQUI SMC Treatment machine model and log-file based MC
E Modified by Chanil Jeon of Sungkyunkwan University in 2024
E Version : v1.0.8 (2024-08-27)
E {wide_rule}
"""
HEAD = """\
E GPU ID: 0
E Inserted seed: {seed} (random seed)
E Gantry number : 1
E Patient directory: {case_directory}
E Output directory : {output_directory}
~ 0.2
E RT Plan header information from{_}
E   {case_directory}/rtplan/RP.synth.dcm
E RT Plan header information successfully loaded.
E Machine name: G1 (Same as selected gantry number)
"""
BEAM = """\
E {rule}
E Starting process of creating world geometry and beam models..
E {rule}
E RT Plan type: RT ION
E Beam ID: {beam}
E Number of range shifter : 0
E Number of blocks : 0
E Creating child in world geometry:{_}
E   Phantom size: (x, y, z)->(400, 400, 2)
E Creating world geometry complete!
"""
FILTERING = """\
E === Filtering beams in RT Plan (excluding SETUP) ===
E Beam[0] Name: '1G000:TX' → INCLUDED (Treatment beam)
E Beam[1] Name: 'SETUP' → EXCLUDED (Setup beam)
E === Total treatment beams: {plan_beams} ===
"""
LOG_FILES = """\
E snout position : 465 mm
E {rule}
E Starting process of loading log files..
E RT Plan Beam #{beam} - Field Name: '{beam}G000:TX'
E {rule}
p Reading log file directory.. : Directory name --> {case_directory}/log
~ 0.5
E Available log folders:
E   - {beam}G000_TX
E Extracted beam pattern from RT Plan: '{beam}G000' (from '{beam}G000:TX')
E ✓ Successfully loaded log files for RT Plan Beam #{beam} (Field Name: {beam}G000:TX)
E Total beamlets (Spots) : {spots}
E Total histories (Particles) : {histories}
~ 0.3
E {rule}
E Starting process of Monte Carlo simulation..
E {rule}
"""
DOWNLOAD = """\
p Starting to download node data from GPU.
p Downloading node data.. : Number of scorers --> 0
"""
DOSE = """\
E Successfully wrote DICOM RT Dose file: {output_directory}/{beam}G000:TX_2_Dose.dcm
E   Dimensions: 400x400x1
E   Dose grid scaling: {scaling} Gy/pixel
E   Max dose: {max_dose} Gy
"""
TIMING = """\
E === Beam {beam} Timing Summary ===
E   Initialization: {initialization:.0f} ms
E   Simulation: {transport:.0f} ms
E   Output: {output:.0f} ms
E   Beam total: {total:.0f} ms ({total_seconds:.2f} s)
"""


class ProductionRun(SmcRun):
    """The production engine, per beam."""

    def start(self) -> None:
        self.table(PROCESS if self.simulation.banner else "", HEAD)

    def beam(self, index: int, batches: int) -> None:
        marks = self._elapsed_ms()
        began = next(marks)
        self.table(BEAM)
        if self.simulation.failure == "exception":
            self.throw("std::runtime_error", "Invalid beam number.")
        if not batches:
            self._fields["spots"] = 0
        self.table(FILTERING, LOG_FILES)
        simulating = next(marks)
        if self.simulation.batch_lines:
            self._by_beam(batches)
        else:
            for _ in self.batch_sizes(batches):
                generation, transport = self.next_batch()
                self.process.wait(generation)
                self.allocate()
                self.transport(transport)
        self.table(DOWNLOAD)
        saving = next(marks)
        self.save()
        ended = next(marks)
        self.table(
            TIMING,
            initialization=simulating - began,
            transport=saving - simulating,
            output=ended - saving,
            total=ended - began,
            total_seconds=(ended - began) / 1000,
        )

    def save(self) -> None:
        self.process.wait(self.simulation.saving_seconds)
        self.table(FILTERING)
        if self.simulation.failure == "output_error":
            path = f"{self.simulation.output_directory}/{self._fields['beam']}G000:TX_2_Dose.dcm"
            self.process.error(f"Error: Failed to write DICOM file: {path}")
            return
        empty = self.simulation.failure in ("empty_dose", "no_particles")
        self.table(DOSE, scaling="0" if empty else "2.38044e-10", max_dose="0" if empty else "1.56002e-05")
        if self.simulation.failure == "crash_after_dose":
            self.process.error("double free or corruption (!prev)")
            self.process.die("Aborted", 134)

    def end(self) -> None:
        self.process.print("=== Execution Timing Summary ===", flush=True)
        self.process.print(f"Total execution time: {self.process.elapsed_seconds * 1000:.0f} ms")

    def _elapsed_ms(self) -> Iterator[float]:
        while True:
            yield self.process.elapsed_seconds * 1000
