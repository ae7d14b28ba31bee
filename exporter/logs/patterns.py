"""What lines the engines print, and what each of them means.

Every built-in line is recognised by its beginning: a good run may print ``Relative ERROR: 0.01``. Only what another
writer puts into the log (the C++ runtime, glibc, the shell, the scheduler) may stand behind an unfinished line of the
engine, because the C library flushes whole blocks and not whole lines: ``Run transpoKilled``.

The texts are those of the public moqui engines; a number is read up to 20 digits, as many as a 64-bit one has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
from exporter.logs.values import DURATION, GRID, NUMBER, SCIENTIFIC, number, seconds

PREFIX_LENGTH = 4
"""So many bytes at the beginning of a line select the rules worth trying; the shortest beginning is this long."""

_TEXT_LIMIT = 500
_PATH_LIMIT = 1024
_N = rb"(\d{1,20})(?!\d)"

Match = re.Match[bytes]


def shown(text: bytes) -> str:
    """A line of a log as text for people: UTF-8 with replacement, bounded."""
    return text[:_TEXT_LIMIT].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of line.

    Args:
        pattern: matched at the beginning of a line.
        events: what the line says.
        family: the engine that prints it (``smc`` or ``moqui``), where no other does.
        mode: the way of simulating that prints it (``beam``, ``spot`` or ``stat``), where no other does.
        beginning: what every such line begins with, literally.
        usual_mode: the way of simulating where no earlier line has told it. Each way announces its batches before its
            first batch, if it announces them at all.
    """

    pattern: re.Pattern[bytes]
    events: Callable[[Match], Iterable[Event]]
    family: str | None = None
    mode: str | None = None
    beginning: bytes = b""
    usual_mode: str | None = None


def _histories(match: Match) -> Iterable[Event]:
    histories = int(match[1])
    yield HistoriesCounted(histories)
    if not histories:
        yield RunFailed("no_particles", shown(match.string))


def _announcement(match: Match) -> Iterable[Event]:
    """``N`` particles per batch and, unless everything is one batch, ``Y`` batches."""
    particles = int(match[1])
    batches = match.re.groups > 1
    total = int(match[2]) if batches else 1
    yield BatchesAnnounced(total, particles)
    if not total or (not batches and not particles):
        yield RunFailed("no_particles", shown(match.string))


def _succeeded(match: Match) -> Iterable[Event]:
    yield RunSucceeded(shown(match.string))


def _described(match: Match) -> Iterable[Event]:
    """The size of the dose grid."""
    yield DoseDescribed(dimensions="x".join(str(int(size)) for size in match.groups()))


def _max_dose(match: Match) -> Iterable[Event]:
    """The largest dose; a dose of 0 everywhere is no dose."""
    dose = number(match[1])
    if dose is not None and match[2] in (b"", b"Gy"):
        yield DoseDescribed(max_dose_gy=dose)
    if dose == 0.0:
        yield RunFailed("empty_dose", shown(match.string))


def _dose_written(match: Match) -> Iterable[Event]:
    yield PhaseEntered("saving")
    yield DoseWritten(match[1][:_PATH_LIMIT].decode("utf-8", "replace").strip())


def _timed(part: str) -> Callable[[Match], Iterable[Event]]:
    """How long a part of the run took; behind the end line, how long all of it took."""

    def events(match: Match) -> Iterable[Event]:
        took = seconds(match[1], match[2]) if match[1] is not None else None
        if took is not None:
            yield EngineTimed(part, took)
        if part == "total":
            yield RunSucceeded(shown(match.string))

    return events


def _always(*events: Event) -> Callable[[Match], Iterable[Event]]:
    """Lines which say the same each time share their events: they never change."""
    return lambda _: events


def _phase(phase: str, *, unless_later: bool = False) -> Callable[[Match], Iterable[Event]]:
    return _always(PhaseEntered(phase, unless_later))


def _head(family: str, *, certain: bool = True) -> Callable[[Match], Iterable[Event]]:
    return _always(RunHead(family, certain), PhaseEntered("loading", unless_later=not certain))


def _failed(reason: str) -> Callable[[Match], Iterable[Event]]:
    return lambda match: (RunFailed(reason, shown(match.string)),)


def _gpu_failed(match: Match) -> Iterable[Event]:
    yield RunFailed("out_of_memory" if b"out of memory" in match.string else "cuda", shown(match.string))


_CUDA = re.compile(rb"(?<![\w/.\-])cuda(?![\w.\-]*/)")
"""The library, and no folder that is named after it."""


def _exception(match: Match) -> Iterable[Event]:
    text = match.string[match.start() :].lower()
    if b"bad_alloc" in text or b"out of memory" in text:
        reason = "out_of_memory"
    else:
        reason = "cuda" if _CUDA.search(text) else "exception"
    yield RunFailed(reason, shown(match.string[match.start() :]))


_SCHEDULER_REASONS = tuple(
    (reason, re.compile(words))
    for reason, words in (
        # Behind a blank: the line names hosts, too, and one may be called "broom1".
        ("out_of_memory", rb" oom[-_]kill|out[- ]of[- ]memory|memory limit|: v?mem .{0,99}exceeded"),
        ("time_limit", rb"time limit|walltime"),
        ("terminated", rb"cancelled|job killed"),
    )
)


def _scheduler(match: Match) -> Iterable[Event]:
    text = match.string.lower()
    for reason, words in _SCHEDULER_REASONS:
        if words.search(text):
            yield RunFailed(reason, shown(match[0]))
            return


def _line(
    beginning: bytes,
    events: Callable[[Match], Iterable[Event]],
    rest: bytes = b"",
    *,
    family: str | None = None,
    mode: str | None = None,
    usual_mode: str | None = None,
) -> tuple[bytes, Line]:
    """A row of the tables below: the literal beginning of a line and a regular expression for what follows it."""
    pattern = re.compile(re.escape(beginning) + rest)
    return beginning[:PREFIX_LENGTH], Line(pattern, events, family, mode, beginning, usual_mode)


_ENGINE_LINES = (
    # Heads: printed once per process, by its constructor.
    _line(b"MOQUI SMC Treatment machine model", _head("smc"), family="smc"),
    _line(b"master seed ", _head("moqui"), rb"-?\d", family="moqui"),
    # The same where there is no banner: read from the input file once per process.
    _line(b"Gantry number : ", _head("smc", certain=False), family="smc"),
    _line(b"Machine name: ", _head("smc", certain=False), rb".{0,200}\(Same as selected gantry number\)", family="smc"),
    # Phases.
    _line(b"GPU ID: ", _phase("loading", unless_later=True), rb"-?\d", family="smc"),
    _line(b"Inserted seed: ", _phase("loading", unless_later=True), rb"-?\d", family="smc"),
    _line(b"RT Plan header information ", _phase("loading", unless_later=True), family="smc"),
    _line(b"Starting process of loading ", _phase("loading")),
    _line(b"Reading DICOM directory", _phase("loading")),
    _line(b"Loading RT Ion plan", _phase("loading")),
    _line(b"Starting process of creating ", _phase("preparing")),
    _line(b"bnb ", _phase("preparing"), rb"\d+ seed "),
    _line(b"RT Plan type: ", _phase("preparing"), family="smc"),
    # Printed twice per beam: while it is prepared, and while its dose is saved.
    _line(b"=== Filtering beams in RT Plan", _phase("preparing", unless_later=True), family="smc"),
    _line(b"=== Total treatment beams: ", _phase("preparing", unless_later=True), family="smc"),
    _line(b"Starting process of Monte Carlo simulation", _phase("simulating")),
    _line(b"Starting simulation per field", _phase("simulating"), family="smc"),
    _line(b"Starting to download node data", _phase("saving"), family="smc", usual_mode="beam"),
    _line(b"Simlulation finalizing", _phase("saving")),
    _line(b"Simulation finalizing", _phase("saving")),
    _line(b"finalizing", _phase("saving"), rb"\s*$"),
    # How much there is to do. "Particle count" is the limit per batch, however many particles there are.
    _line(b"Total histories (Particles) : ", _histories, _N),
    _line(b"histories ", _histories, _N + rb"\s*$"),
    _line(
        b"Uploading particles with batch.. : Particle count --> ",
        _announcement,
        _N + rb" with " + _N + rb" batches",
        family="smc",
        mode="beam",
    ),
    _line(b"Uploading particles with no batch.. : Particle count --> ", _announcement, _N, family="smc", mode="beam"),
    _line(b"Upload ", _announcement, _N + rb" histories per batch, " + _N + rb" batches expected"),
    _line(b"Upload ", _announcement, _N + rb" histories\s*$"),
    _line(b"Uploading ", _announcement, _N + rb" histories\s*$", family="moqui"),
    _line(b"Run by beam", _phase("simulating"), rb"\s*$", family="moqui", mode="beam"),
    _line(b"Run by spot", _phase("simulating"), rb"\s*$", mode="spot"),
    _line(b"Running ", _always(), rb"(?:additional )?\d+ histories", family="moqui", mode="stat"),
    # Batches.
    _line(
        b"Generating particles for (",
        lambda match: (BatchStarted(int(match[1]), int(match[2])),),
        _N + rb" of " + _N + rb" batches\)",
        family="smc",
        mode="beam",
    ),
    _line(b"Generating particles...", _always(BatchStarted()), rb"\s*$", family="moqui"),
    _line(b"Generating particles..", _always(BatchStarted()), rb"\s*$", family="smc", mode="spot"),
    _line(b"cum_vertiex ", lambda match: (HistoriesGenerated(int(match[1])),), _N, family="moqui", mode="beam"),
    _line(
        b"Cumulated vertices ",
        lambda match: (HistoriesGenerated(int(match[1])),),
        _N,
        family="moqui",
        mode="stat",
    ),
    _line(b"Particle transportation complete!", _always(BatchFinished())),
    _line(b"Run transportation ", _always(BatchFinished()), rb"[\d.]+ s", family="moqui"),
    _line(b"run simulation ", _always(BatchFinished()), rb"[\d.]+ ms", family="smc", mode="spot"),
    _line(b"run simulation ", _always(BatchFinished()), rb"[\d.]+ s", family="moqui", mode="spot"),
    # The dose. Some variants describe it before they write it, some afterwards.
    *(
        _line(written, _dose_written, rb"(?:RT Dose )?file: (.*\S)", family="smc", usual_mode="beam")
        for written in (b"Successfully wrote DICOM ", b"Successfully saved DICOM ")
    ),
    *(_line(size, _described, GRID) for size in (b"  Dimensions: ", b"Dimensions: ", b"DCM Save Info - Dimension: ")),
    *(
        _line(largest, _max_dose, NUMBER + rb" ?([A-Za-z]*)")
        for largest in (b"  Max dose: ", b"Max dose: ", b"DCM Save Info - Max dose: ")
    ),
    # "  Maximum dose: 0.000 Gy" says nothing: it is rounded, and printed for doses that are not 0.
    _line(b"Maximum dose: ", _max_dose, SCIENTIFIC + rb" ?([A-Za-z]*)"),
    # What the private engine measures of each beam.
    _line(b"=== Beam ", _phase("saving"), rb"\d+ Timing Summary ===", family="smc", usual_mode="beam"),
    _line(b"  Initialization: ", _timed("initialization"), DURATION),
    _line(b"  Simulation: ", _timed("simulation"), DURATION),
    _line(b"  Output: ", _timed("output"), DURATION),
    # Normal ends: the public engines', the private one's, and the one the plan expects.
    _line(b"Time taken by MC engine:", _succeeded),
    _line(b"Total execution time:", _timed("total"), rb"(?: +" + DURATION + rb")?", family="smc", usual_mode="beam"),
    _line(b"Simulation completed successfully", _succeeded),
)

_FAILURE_LINES = (
    _line(b"CUDA error", _gpu_failed, rb"(?: after|:|\b)"),
    _line(b"Thrust sort failed:", _gpu_failed),
    _line(b"  what():", _exception),
    _line(b"There is nan in track direction", _failed("simulation_error")),
    _line(b"There is all-zeros in track direction", _failed("simulation_error")),
    _line(b"Cannot open file!", _failed("output_error")),
    _line(b"Error occurred at writing time!", _failed("output_error")),
    _line(b"Cannot write :", _failed("output_error")),
    _line(b"error: only ", _failed("output_error"), rb"\d+ could be read"),
    _line(b"Error: Could not ", _failed("output_error"), rb"(?:save DICOM file|insert pixel data)"),
    _line(b"Error: Mandatory tag ", _failed("output_error"), rb".* not found"),
    _line(b"Error: Failed to write DICOM file", _failed("output_error")),
    _line(b"Failed to write DICOM file", _failed("output_error")),
    _line(b"Exception in save_from_scorer:", _failed("output_error")),
    _line(b"./tps_env: error while loading shared libraries:", _failed("fatal_error")),
    *(
        _line(
            shell,
            _failed("fatal_error"),
            rb".{0,200}?tps_env.{0,200}?(?:not found|[Pp]ermission denied|No such file|cannot execute)",
        )
        for shell in (b"sh: ", b"bash: ", b"/bin/sh: ", b"/bin/bash: ")
    ),
    _line(b"FATAL ERROR", _failed("fatal_error")),
    _line(b"ERROR:", _failed("error")),
)

SHELL_WORDS: dict[bytes, str] = {
    b"Segmentation fault": "segmentation_fault",
    b"Killed": "killed",
    b"Terminated": "terminated",
    b"Aborted": "aborted",
    b"Bus error": "fatal_error",
    b"Illegal instruction": "fatal_error",
    b"Floating point exception": "fatal_error",
    b"Trace/breakpoint trap": "fatal_error",
    b"CPU time limit exceeded": "time_limit",
    b"File size limit exceeded": "output_error",
    b"Hangup": "terminated",
    b"Quit": "terminated",
}
"""What the shell writes when a signal has ended its command, and the reason each stands for."""

_ANY_SHELL_WORD = rb"|".join(map(re.escape, SHELL_WORDS))

# The word is the whole line, or glued to one that was cut: behind another character without a blank between (never so
# in prose, but so in a folder's name: no slash before it), or behind a blank where the line began as the engine's batch
# lines do. Bash names itself and the process first, as nobody else does: that may be glued to anything.
_SHELL_WORD = re.compile(
    rb"(?:^[^\s/]*|(?<=\s)[^\s/]+|^(?:Run|Beam|Generating|Transporting|Initialization|Block|h0|Simulating|cum_vertiex"
    rb"|Cumulated|run|Thread)\b.* )"
    rb"(" + _ANY_SHELL_WORD + rb")(?: \(core dumped\))?\s*$"
    rb"|: line \d{1,9}: +\d{1,9} (" + _ANY_SHELL_WORD + rb")\b"
)


def _shell_word(match: Match) -> Iterable[Event]:
    yield RunFailed(SHELL_WORDS[match[1] or match[2]], shown(match.string[match.start(match.lastindex or 0) :]))


_RUNTIME_LINES = (
    # glibc: a word of the shell follows, which tells where one of these is glued to a line that was cut.
    _line(b"double free or corruption", _failed("aborted")),
    _line(b"free(): ", _failed("aborted"), rb"(?:invalid|double|corrupt)"),
    _line(b"malloc", _failed("aborted"), rb"(?:\(\)|_consolidate\(\)): |malloc\.c:\d+:"),
    _line(b"munmap_chunk(): ", _failed("aborted"), rb"invalid"),
    _line(b"corrupted ", _failed("aborted"), rb"(?:size vs\. prev_size|double-linked list)"),
    _line(b"*** stack smashing detected", _failed("aborted")),
)

FOREIGN_LINES: tuple[Line, ...] = (
    Line(re.compile(rb"terminate called (?:after|without|recursively).*"), _exception),
    Line(re.compile(rb"GPUassert: "), _gpu_failed),
    Line(re.compile(rb"Assertion `.*' failed"), _failed("assertion")),
    Line(re.compile(rb"slurmstepd: .*|=>> PBS: job killed:.*"), _scheduler),
    Line(_SHELL_WORD, _shell_word),
)
"""Lines of other writers, which may be glued to the engine's; searched where one of :data:`FOREIGN_MARKS` is."""

FOREIGN_MARKS = (
    b"lled",
    b"ssert",
    b"Aborted",
    b"Terminated",
    b"Segmentation fault",
    b"Bus error",
    b"Illegal instruction",
    b"Floating point exception",
    b"Trace/breakpoint trap",
    b"limit exceeded",
    b"Hangup",
    b"Quit",
    b"slurmstepd",
)
"""One of these is in every line of another writer. Each is looked for in every byte of every log, so they are few:
``lled`` stands for ``called`` and ``Killed``, also in a scheduler's ``job killed``, ``ssert`` for both kinds of
assertions. The longer, the faster: a few more of four bytes take a third of hyperscan's speed."""


def _by_prefix(rows: Iterable[tuple[bytes, Line]]) -> dict[bytes, tuple[Line, ...]]:
    table: dict[bytes, tuple[Line, ...]] = {}
    for prefix, line in rows:
        table[prefix] = (*table.get(prefix, ()), line)
    return table


LINES: dict[bytes, tuple[Line, ...]] = _by_prefix(_ENGINE_LINES + _FAILURE_LINES + _RUNTIME_LINES)
"""Lines of the engines by the first bytes of each."""

BEGINNINGS = frozenset(line.beginning for lines in LINES.values() for line in lines)
"""What lines of the engines begin with: no other line is matched."""

PLAN_PATTERNS = frozenset(
    {rb"with (\d+) batches", rb"Generating particles for \((\d+) of (\d+) batches\)"}
) | frozenset(
    {rb"Generating particles for \((\d+) of \d+ batches\)", rb"FATAL ERROR", rb"ERROR:", rb"Segmentation fault"}
)
"""Patterns that the plan names. They are built in, more strictly (``ERROR:`` only where a line begins with it), so a
site that repeats them in its configuration changes nothing."""
