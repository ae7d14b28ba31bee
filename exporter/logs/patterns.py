"""Table of the lines that the engines print, with their meaning.

An engine line is recognised by its beginning only, since a good run may print ``Relative ERROR: 0.01``. Messages of
other programs (C++ runtime, glibc, shell, scheduler) may follow an unfinished engine line, because the C library
flushes blocks and not lines: ``Run transpoKilled``.

The texts are those of the public moqui engines. Numbers may have up to 20 digits, as many as 64 bits need.
"""

from __future__ import annotations

from collections.abc import Iterable

from exporter.logs.events import (
    BatchesAnnounced,
    BatchFinished,
    BatchStarted,
    DoseDescribed,
    DoseWritten,
    EngineTimed,
    Event,
    HistoriesCounted,
    HistoriesGenerated,
    PhaseEntered,
    RunFailed,
    RunHead,
    RunSucceeded,
)
from exporter.logs.failure_lines import ENGINE_FAILURES, GLUED_FAILURES, NOT_STARTED
from exporter.logs.line_rules import Events, LineRule, Match, always, line_rule, to_text
from exporter.logs.process_ends import PROCESS_ENDS
from exporter.logs.values import DURATION, GRID, NUMBER, SCIENTIFIC, number, seconds

_PATH_LIMIT = 1024
_N = rb"(\d{1,20})(?!\d)"


def _histories(match: Match) -> Iterable[Event]:
    histories = int(match[1])
    yield HistoriesCounted(histories)
    if not histories:
        yield RunFailed("no_particles", to_text(match.string))


def _announcement(match: Match) -> Iterable[Event]:
    """Read the particles per batch and the number of batches; without the latter there is one batch."""
    particles = int(match[1])
    batches = match.re.groups > 1
    total = int(match[2]) if batches else 1
    yield BatchesAnnounced(total, particles)
    if not total or (not batches and not particles):
        yield RunFailed("no_particles", to_text(match.string))


def _succeeded(match: Match) -> Iterable[Event]:
    yield RunSucceeded(to_text(match.string))


def _described(match: Match) -> Iterable[Event]:
    """Read the size of the dose grid."""
    yield DoseDescribed(dimensions="x".join(str(int(size)) for size in match.groups()))


def _max_dose(match: Match) -> Iterable[Event]:
    """Read the maximum dose. A maximum of 0 is a failure."""
    dose = number(match[1])
    if dose is not None and match[2] in (b"", b"Gy"):
        yield DoseDescribed(max_dose_gy=dose)
    if dose == 0.0:
        yield RunFailed("empty_dose", to_text(match.string))


def _dose_written(match: Match) -> Iterable[Event]:
    yield PhaseEntered("saving")
    yield DoseWritten(match[1][:_PATH_LIMIT].decode("utf-8", "replace").strip())


def _timed(part: str) -> Events:
    """Read a duration; ``total`` stands on the end line, which also means success."""

    def events(match: Match) -> Iterable[Event]:
        took = seconds(match[1], match[2]) if match[1] is not None else None
        if took is not None:
            yield EngineTimed(part, took)
        if part == "total":
            yield RunSucceeded(to_text(match.string))

    return events


def _phase(phase: str, *, unless_later: bool = False) -> Events:
    return always(PhaseEntered(phase, unless_later))


def _head(family: str, *, certain: bool = True) -> Events:
    return always(RunHead(family, certain), PhaseEntered("loading", unless_later=not certain))


_ENGINE_LINES = (
    # Head lines: printed once per process.
    line_rule(b"MOQUI SMC Treatment machine model", _head("smc"), family="smc"),
    line_rule(b"master seed ", _head("moqui"), rb"-?\d", family="moqui"),
    # Head lines of variants without a banner.
    line_rule(b"Gantry number : ", _head("smc", certain=False), family="smc"),
    line_rule(
        b"Machine name: ", _head("smc", certain=False), rb".{0,200}\(Same as selected gantry number\)", family="smc"
    ),
    # Phases.
    line_rule(b"GPU ID: ", _phase("loading", unless_later=True), rb"-?\d", family="smc"),
    line_rule(b"Inserted seed: ", _phase("loading", unless_later=True), rb"-?\d", family="smc"),
    line_rule(b"RT Plan header information ", _phase("loading", unless_later=True), family="smc"),
    line_rule(b"Starting process of loading ", _phase("loading")),
    line_rule(b"Reading DICOM directory", _phase("loading")),
    line_rule(b"Loading RT Ion plan", _phase("loading")),
    line_rule(b"Starting process of creating ", _phase("preparing")),
    line_rule(b"bnb ", _phase("preparing"), rb"\d+ seed "),
    line_rule(b"RT Plan type: ", _phase("preparing"), family="smc"),
    # Printed twice per beam: while it is prepared, and while its dose is saved.
    line_rule(b"=== Filtering beams in RT Plan", _phase("preparing", unless_later=True), family="smc"),
    line_rule(b"=== Total treatment beams: ", _phase("preparing", unless_later=True), family="smc"),
    line_rule(b"Starting process of Monte Carlo simulation", _phase("simulating")),
    line_rule(b"Starting simulation per field", _phase("simulating"), family="smc"),
    line_rule(b"Starting to download node data", _phase("saving"), family="smc", usual_mode="beam"),
    line_rule(b"Simlulation finalizing", _phase("saving")),
    line_rule(b"Simulation finalizing", _phase("saving")),
    line_rule(b"finalizing", _phase("saving"), rb"\s*$"),
    # Announcements. "Particle count" is the limit per batch, even if there are fewer particles.
    line_rule(b"Total histories (Particles) : ", _histories, _N),
    line_rule(b"histories ", _histories, _N + rb"\s*$"),
    line_rule(
        b"Uploading particles with batch.. : Particle count --> ",
        _announcement,
        _N + rb" with " + _N + rb" batches",
        family="smc",
        mode="beam",
    ),
    line_rule(
        b"Uploading particles with no batch.. : Particle count --> ", _announcement, _N, family="smc", mode="beam"
    ),
    line_rule(b"Upload ", _announcement, _N + rb" histories per batch, " + _N + rb" batches expected"),
    line_rule(b"Upload ", _announcement, _N + rb" histories\s*$"),
    line_rule(b"Uploading ", _announcement, _N + rb" histories\s*$", family="moqui"),
    line_rule(b"Run by beam", _phase("simulating"), rb"\s*$", family="moqui", mode="beam"),
    line_rule(b"Run by spot", _phase("simulating"), rb"\s*$", mode="spot"),
    line_rule(b"Running ", always(), rb"(?:additional )?\d+ histories", family="moqui", mode="stat"),
    # Batches.
    line_rule(
        b"Generating particles for (",
        lambda match: (BatchStarted(int(match[1]), int(match[2])),),
        _N + rb" of " + _N + rb" batches\)",
        family="smc",
        mode="beam",
    ),
    line_rule(b"Generating particles...", always(BatchStarted()), rb"\s*$", family="moqui"),
    line_rule(b"Generating particles..", always(BatchStarted()), rb"\s*$", family="smc", mode="spot"),
    line_rule(b"cum_vertiex ", lambda match: (HistoriesGenerated(int(match[1])),), _N, family="moqui", mode="beam"),
    line_rule(
        b"Cumulated vertices ",
        lambda match: (HistoriesGenerated(int(match[1])),),
        _N,
        family="moqui",
        mode="stat",
    ),
    line_rule(b"Particle transportation complete!", always(BatchFinished())),
    line_rule(b"Run transportation ", always(BatchFinished()), rb"[\d.]+ s", family="moqui"),
    line_rule(b"run simulation ", always(BatchFinished()), rb"[\d.]+ ms", family="smc", mode="spot"),
    line_rule(b"run simulation ", always(BatchFinished()), rb"[\d.]+ s", family="moqui", mode="spot"),
    # The dose. Some variants print its properties before they write it, some afterwards.
    *(
        line_rule(written, _dose_written, rb"(?:RT Dose )?file: (.*\S)", family="smc", usual_mode="beam")
        for written in (b"Successfully wrote DICOM ", b"Successfully saved DICOM ")
    ),
    *(
        line_rule(size, _described, GRID)
        for size in (b"  Dimensions: ", b"Dimensions: ", b"DCM Save Info - Dimension: ")
    ),
    *(
        line_rule(largest, _max_dose, NUMBER + rb" ?([A-Za-z]*)")
        for largest in (b"  Max dose: ", b"Max dose: ", b"DCM Save Info - Max dose: ")
    ),
    # "  Maximum dose: 0.000 Gy" is ignored: it is rounded and also printed for small doses.
    line_rule(b"Maximum dose: ", _max_dose, SCIENTIFIC + rb" ?([A-Za-z]*)"),
    # Durations that the private engine prints for each beam.
    line_rule(b"=== Beam ", _phase("saving"), rb"\d+ Timing Summary ===", family="smc", usual_mode="beam"),
    line_rule(b"  Initialization: ", _timed("initialization"), DURATION),
    line_rule(b"  Simulation: ", _timed("simulation"), DURATION),
    line_rule(b"  Output: ", _timed("output"), DURATION),
    # End lines of the public engines, of the private engine, and of the development plan.
    line_rule(b"Time taken by MC engine:", _succeeded),
    line_rule(
        b"Total execution time:", _timed("total"), rb"(?: +" + DURATION + rb")?", family="smc", usual_mode="beam"
    ),
    line_rule(b"Simulation completed successfully", _succeeded),
)

FOREIGN_LINES: tuple[LineRule, ...] = (*GLUED_FAILURES, *NOT_STARTED, *PROCESS_ENDS)
"""Rules for lines of other programs. They are tried only on lines that hold one of :data:`FOREIGN_MARKS`."""

FOREIGN_MARKS = (
    b"lled",
    b"ssert",
    b"Abort",
    b"erminated",
    b"Segmentation fault",
    b"Bus error",
    b"Illegal instruction",
    b"Floating point exception",
    b"Trace/breakpoint trap",
    b"Bad system call",
    b"Memory fault",
    b"Broken pipe",
    b"Alarm clock",
    b"limit exceeded",
    b"Hangup",
    b"Quit",
    b" signal ",
    b"BY SIGNAL",
    b"EXIT STRING",
    b"xit code",
    b"xit status",
    b"EXIT CODE",
    b"non-zero",
    b", status=",
    b"slurmstepd",
    b"CANCELLED",
    b"*** JOB",
    b"*** STEP",
    b"oom_",
    b"oom-kill",
    b"emory limit",
    b"ut of memory",
    b"srun: ",
    b"sbatch: ",
    b"salloc: ",
    b"TERM_",
    b"PBS: job",
    b"zsh:",
    b"timeout: sending",
    b"MPI_ABORT",
    b"BAD TERMINATION",
    b"No free GPU",
    b"Error: ",
    b"ailed to ",
    b"annot ",
    b"ould not ",
    b"xception in ",
    b"error while loading",
    b"lookup error",
    b"relocation error",
    b"not found",
    b"o such file or directory",
    b"ermission denied",
    b"xec format error",
    b"execution of ",
    b"was unable to",
)
"""Every line that :data:`FOREIGN_LINES` recognises holds one of these. ``lled`` covers ``called``, ``Killed`` and
``killed``; ``ssert`` covers both kinds of assertions."""


def _by_prefix(rows: Iterable[tuple[bytes, LineRule]]) -> dict[bytes, tuple[LineRule, ...]]:
    table: dict[bytes, tuple[LineRule, ...]] = {}
    for prefix, line in rows:
        table[prefix] = (*table.get(prefix, ()), line)
    return table


LINES: dict[bytes, tuple[LineRule, ...]] = _by_prefix(_ENGINE_LINES + ENGINE_FAILURES)
"""Rules for engine lines, by the first bytes of the line."""

BEGINNINGS = frozenset(line.beginning for lines in LINES.values() for line in lines)
"""Beginnings of all engine lines. No other line matches a rule for engine lines."""

DEVELOPMENT_PLAN_PATTERNS = frozenset(
    {
        *(rb"with (\d+) batches", rb"Generating particles for \((\d+) of (\d+) batches\)"),
        *(rb"Generating particles for \((\d+) of \d+ batches\)", rb"FATAL ERROR", rb"ERROR:", rb"Segmentation fault"),
    }
)
"""Patterns of the development plan. Stricter ones are built in, so ``init`` does not write these. If a site configures
one anyway, it is searched anywhere in a line."""

DECISIVE_BEGINNINGS = tuple(line.beginning for _, line in _ENGINE_LINES if len(line.beginning) >= 12)
"""Beginnings that no other program prints. Their position shows whether a log's lines have prefixes."""
