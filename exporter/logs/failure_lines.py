"""Rules for lines in which an engine or its launcher reports a failure.

Each engine words the same fault differently. So a rule recognises how such a line begins (``Error:``, ``Failed to``,
``Exception in``), and keywords in the rest of the line give the reason. Harmless messages of the dynamic loader and of
module systems begin in the same way and are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from exporter.logs.events import Event, RunFailed
from exporter.logs.line_rules import LineRule, Match, evidence, failed, line_rule, to_text

_HARMLESS = re.compile(
    rb"ERROR: ld\.so: "
    rb"|ERROR: (?:Unable to locate a modulefile|Couldn't find modulefile|No module matching|Module cannot be loaded"
    rb"|Load of requirement|Loading of|Conflicting '|Magic cookie|Invalid modulepath|Cannot use 'module)"
    rb"|Failed to (?:initialize NVML|set locale|connect to (?:the )?(?:\w+ )?bus|create bus connection|load module \")"
    # A value, not a fault: "Error: 0.8 %", "ERROR: none", "CUDA error: no error".
    rb"|(?i:cuda error|error|fatal): *(?:\([\w ]*\) )?"
    rb"(?:[-+]?\d[\d.]{0,30}(?:e[-+]?\d{1,4})? *%?|none|no errors?|cudaSuccess|0 errors?)\s*$"
)

_NO_FREE_GPU = re.compile(
    rb"\bno (?:free|available|idle) gpu|\bno gpus? (?:is |are |was |were )?(?:free|available|left)"
)
_MEMORY = re.compile(rb"out of memory|bad_alloc|(?:not enough|insufficient|cannot allocate) (?:\w+ )?memory")
_CUDA = re.compile(rb"(?<![\w/.\-])cuda(?![\w.\-]*/)")
"""The library name, but not a folder named after it."""

_OUTPUT = re.compile(
    # Verbs of writing;
    rb"\b(?:(?:over)?writ(?:e|es|ing|ten)|sav(?:e|ed|ing)|creat(?:e|ed|ing)|stor(?:e|ed|ing)|export(?:ed|ing)?)\b|\bsave_"
    # messages of a full or lost file system;
    rb"|no space left|disk (?:is )?full|disk quota|quota exceeded|read-only file system|input/output error"
    # messages of the engines while they save the dose.
    rb"|insert pixel data|mandatory tag|data length|node is null|pointer is null|plan name is empty"
    rb"|only \d+ could be read|cannot read rtplan|cannot get dataset|number of slices"
    rb"|output (?:file|folder|directory|path)"
)


def _reason(text: bytes, otherwise: str) -> str:
    """Return the failure reason by keywords in the text; ``otherwise`` if there are none."""
    lower = text.lower()
    if _NO_FREE_GPU.search(lower):
        return "no_free_gpu"
    if _MEMORY.search(lower):
        return "out_of_memory"
    if _CUDA.search(lower):
        return "cuda"
    return "output_error" if _OUTPUT.search(lower) else otherwise


def _engine_error(match: Match) -> Iterable[Event]:
    text = evidence(match)
    if not _HARMLESS.match(text):
        yield RunFailed(_reason(text, "fatal_error" if text[:5].lower() == b"fatal" else "error"), to_text(text))


def _gpu_error(match: Match) -> Iterable[Event]:
    text = evidence(match)
    if not _HARMLESS.match(text):
        yield RunFailed("out_of_memory" if _MEMORY.search(text.lower()) else "cuda", to_text(text))


def _exception(match: Match) -> Iterable[Event]:
    text = evidence(match)
    reason = _reason(text, "exception")
    # An exception that mentions writing is not always about the dose.
    yield RunFailed("exception" if reason == "output_error" else reason, to_text(text))


def _not_started(match: Match) -> Iterable[Event]:
    """Report the whole line: the text before the match names the program that failed."""
    yield RunFailed("error", to_text(match.string))


_WRITING = (
    rb"(?:[\w']+ ){0,6}?"
    rb"(?:writ(?:e|ing|ten)|sav(?:e|ing|ed)|creat(?:e|ing|ed)|stor(?:e|ing|ed)|export(?:ing|ed)?|output)\b"
)
"""Up to six words and a verb of writing, such as "open the file for writing"."""

_OF_CUDA = rb"(?: after\b| in\b| at\b|:| ?[=(]| code\b| \d)"
"""What follows "CUDA error" in a real failure; excludes "CUDA error reporting is on"."""

ENGINE_FAILURES = (
    *(
        line_rule(beginning, _engine_error)
        for beginning in (b"Error:", b"ERROR:", b"error: ", b"FATAL:", b"FATAL ERROR", b"Fatal:", b"Fatal error:")
    ),
    *(
        line_rule(beginning, _engine_error)
        for beginning in (b"[ERROR]", b"[Error]", b"[error]", b"[FATAL]", b"ERROR - ")
    ),
    *(line_rule(beginning, _engine_error) for beginning in (b"Failed to ", b"failed to ", b"Exception in ")),
    line_rule(b"Error ", failed("output_error"), _WRITING),
    *(
        line_rule(beginning, _engine_error, _WRITING)
        for beginning in (b"Could not ", b"could not ", b"Cannot ", b"cannot ", b"Unable to ", b"unable to ")
    ),
    line_rule(b"Cannot open file!", failed("output_error")),
    line_rule(b"Error occurred at writing time!", failed("output_error")),
    line_rule(b"Insufficient number of slices", failed("output_error")),
    line_rule(b"No free GPU", failed("no_free_gpu")),
    line_rule(b"CUDA error", _gpu_error, _OF_CUDA),
    line_rule(b"CUDA Error", _gpu_error, _OF_CUDA),
    line_rule(b"Thrust sort failed:", _gpu_error),
    line_rule(b"  what():", _exception),
    line_rule(b"There is nan in track direction", failed("simulation_error")),
    line_rule(b"There is all-zeros in track direction", failed("simulation_error")),
    # glibc. If such a line is joined to a cut line, the shell's message that follows reports the failure.
    line_rule(b"double free or corruption", failed("aborted")),
    line_rule(b"free(): ", failed("aborted"), rb"(?:invalid|double|corrupt)"),
    line_rule(b"malloc", failed("aborted"), rb"(?:\(\)|_consolidate\(\)): |malloc\.c:\d+:"),
    line_rule(b"munmap_chunk(): ", failed("aborted"), rb"invalid"),
    line_rule(b"corrupted ", failed("aborted"), rb"(?:size vs\. prev_size|double-linked list)"),
    line_rule(b"*** stack smashing detected", failed("aborted")),
)
"""Rules for the beginning of a line."""

CUT_LINE = (
    rb"^(?:Run|Beam|Generating|Transporting|Initialization|Block|h0|Simulating|cum_vertiex|Cumulated|run|Thread)\b.* "
)
"""An engine line that was cut after a blank. The text after it belongs to another line."""

_GLUED = re.compile(
    rb"(?:(?<=[^\s\"'(\[{/<])|" + CUT_LINE + rb")(?P<message>(?:(?:Error|ERROR): )?"
    rb"(?:[Ff]ailed to (?:write|save)\b|[Cc](?:an|ould )not (?:write|save|create)\b|Exception in save|Mandatory tag"
    rb"|data length is zero|cannot read RTPLAN|cannot get dataset|child node is null|source data pointer is null"
    rb"|plan name is empty))"
)
"""A message that the dose was not written, joined to a cut line."""

_PROGRAM = rb"(?:\./[\w+-]{1,100}(?:\.(?:exe|bin|x|out))?|[^\s:'\"`]{0,200}(?:tps|moqui|mqi)[\w.+-]{0,100})"
"""The engine's name as a shell prints it. Other missing programs in a job script are harmless."""

_QUOTE = "(?:['\"`]|‘|’)?".encode()
_WHY_NOT = (
    rb"(?:(?:command )?not found|[Nn]o such file or directory|[Pp]ermission denied|cannot execute|[Ee]xec format error)"
)

NOT_STARTED = tuple(
    LineRule(re.compile(expression), _not_started)
    for expression in (
        rb"error while loading shared libraries: |symbol lookup error: |relocation error: ",
        rb"version `[^'\s]{1,100}' not found \(required by",
        rb"failed to (?:run command|execute) ",
        rb"execution of " + _QUOTE + rb"\S{1,300}: " + _WHY_NOT,
        rb"\bexec(?:ve|vp|v)?(?:\(\):| error on file) \S{1,300} \(?" + _WHY_NOT,
        rb"(?:^|(?<=: ))(?:line \d{1,9}: |\d{1,9}: )?(?:exec: |cannot run )?"
        + (_QUOTE + _PROGRAM + _QUOTE)
        + (rb": (?:/\S{1,200}: bad ELF interpreter: )?" + _WHY_NOT),
        rb"zsh:(?:\d{1,9}:)? " + _WHY_NOT + rb": " + _PROGRAM,
        rb"mpi(?:run|exec) was unable to (?:launch|find|start)",
        rb"docker: Error response from daemon:",
    )
)
"""The dynamic loader, a shell or a launcher could not start the engine. Searched anywhere in a line."""

GLUED_FAILURES = (
    LineRule(re.compile(rb"terminate called (?:after|without|recursively)"), _exception),
    LineRule(re.compile(rb"GPUassert: "), _gpu_error),
    LineRule(re.compile(rb"Assertion `.{0,1000}' failed"), failed("assertion")),
    LineRule(re.compile(rb"(?<!\w)No free GPU"), failed("no_free_gpu")),
    LineRule(_GLUED, _engine_error),
)
"""Searched anywhere in a line: standard error may be written before a line of standard output is complete."""
