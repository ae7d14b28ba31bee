"""Rules for messages of shells, schedulers, launchers and the kernel about how a process ended.

Such a message may be joined to an unfinished line of the engine: ``Run transpoKilled``. It names hosts, programs and
numbers, which may be anything. So each rule relies only on the fixed words of the program that writes the message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from exporter.logs.events import Event, RunFailed
from exporter.logs.failure_lines import CUT_LINE
from exporter.logs.line_rules import Events, LineRule, Match, evidence, failed, to_text

_SIGNALS: tuple[tuple[int, str, str, tuple[bytes, ...]], ...] = (
    (1, "HUP", "terminated", (b"Hangup",)),
    (2, "INT", "terminated", (b"Interrupt",)),
    (3, "QUIT", "terminated", (b"Quit",)),
    (4, "ILL", "fatal_error", (b"Illegal instruction", b"Illegal hardware instruction")),
    (5, "TRAP", "fatal_error", (b"Trace/breakpoint trap", b"Trace trap")),
    (6, "ABRT", "aborted", (b"Aborted", b"Abort")),
    (7, "BUS", "fatal_error", (b"Bus error",)),
    (8, "FPE", "fatal_error", (b"Floating point exception",)),
    (9, "KILL", "killed", (b"Killed",)),
    (10, "USR1", "terminated", (b"User defined signal 1", b"User-defined signal 1")),
    (11, "SEGV", "segmentation_fault", (b"Segmentation fault", b"Memory fault")),
    (12, "USR2", "terminated", (b"User defined signal 2", b"User-defined signal 2")),
    (13, "PIPE", "terminated", (b"Broken pipe",)),
    (14, "ALRM", "terminated", (b"Alarm clock", b"Alarm")),
    (15, "TERM", "terminated", (b"Terminated",)),
    (24, "XCPU", "time_limit", (b"CPU time limit exceeded", b"Cpu limit exceeded")),
    (25, "XFSZ", "output_error", (b"File size limit exceeded",)),
    (31, "SYS", "fatal_error", (b"Bad system call", b"Invalid system call")),
)
"""Signal number on Linux, name, failure reason, and the shells' messages for it."""

_REASON_OF_NUMBER = {number: reason for number, _, reason, _ in _SIGNALS}
_REASON_OF_NAME = {name.encode(): reason for _, name, reason, _ in _SIGNALS}
SHELL_WORDS: dict[bytes, str] = {word: reason for _, _, reason, words in _SIGNALS for word in words}
"""Failure reason for each message that shells write when a signal has ended a command."""

_REASON_OF_WORD = {word.lower(): reason for word, reason in SHELL_WORDS.items()} | {b"out of memory": "out_of_memory"}

# Messages that are recognised alone or joined to a cut line. The excluded ones are common words: they count only in the
# forms below that name the shell or the process.
_ALONE = [word for word in SHELL_WORDS if word not in (b"Interrupt", b"Abort", b"Alarm", b"Broken pipe", b"Trace trap")]
_ANY_ALONE = rb"|".join(map(re.escape, _ALONE))
_ANY_WORD = rb"|".join(re.escape(word) for word in sorted(SHELL_WORDS, key=len, reverse=True))
_DUMPED = rb"(?:: \d{1,2})?(?: ?\(core ?dumped\)| - core dumped)?"

# The message is the whole line, or it is joined to a cut line. Then it follows a character other than a blank (but not
# after a slash, which would be a path), or a blank if the line began like an engine line. Bash writes its own name and
# the process id first. No other program does, so that form may follow anything.
_SHELL_WORD = re.compile(
    rb"(?:^[^\s/]*|(?<=\s)[^\s/]+|" + CUT_LINE + rb")(?P<message>" + _ANY_ALONE + rb")" + _DUMPED + rb"\s*$"
)
_BASH = re.compile(rb": (?:line )?\d{1,9}: +\d{1,9} +(?P<message>" + _ANY_WORD + rb")\b")
_JOB = re.compile(
    rb"^\[\d{1,4}\] *[-+]? +(?:\d{1,9} +)?(?P<message>(?i:" + _ANY_WORD + rb"))" + _DUMPED + rb"(?: {2,}|\s*$| \S*/)"
)
_ZSH = re.compile(rb"zsh:(?:\d{1,9}:)? (?:\d{1,9} )?(?P<message>(?i:" + _ANY_WORD + rb"))\b")

_BY_SIGNAL = re.compile(
    rb"\b(?:[Tt]erminated|exited|[Kk]illed|died|[Aa]borted|ended|stopped|interrupted|caught|termination)"
    rb" (?:by |on |with |due to )?(?:signal|SIGNAL)(?: termination)?:? "
    rb"(?P<what>(?:SIG)?[A-Z]{2,5}\d?\b|\d{1,3}\b|(?i:" + _ANY_WORD + rb"))"
    rb"|\bKILLED BY SIGNAL: (?P<number>\d{1,3})\b"
    rb"|\bEXIT STRING: .{1,60}\(signal (?P<mpich>\d{1,3})\)"
    rb"|\bcode=(?:killed|dumped), status=(?P<systemd>\d{1,3})/"
)

_EXIT_CODE = re.compile(
    rb"\b(?:[Ee]xited|terminated|failed|completed) with (?:a )?(?:non-?zero )?(?:exit )?(?:code|status):? ?"
    rb"(?P<code>\d{1,3})\b"
    rb"|\bcode=exited, status=(?P<systemd>\d{1,3})/"
    rb"|^= +EXIT CODE: (?P<mpich>\d{1,3})\b"
)
_EXIT_BY_SIGNAL = 128

_SRUN_TASK = re.compile(rb"srun: error: [^\s:]{1,300}: tasks? [\d,-]{1,300}: (?P<what>.{1,100})")


def _by_word(match: Match) -> Iterable[Event]:
    word = match["message"].lower()
    yield RunFailed(_REASON_OF_WORD[word], to_text(evidence(match)))


def _reason_of_signal(what: bytes) -> str:
    if what.isdigit():
        return _REASON_OF_NUMBER.get(int(what), "terminated")
    name = what.removeprefix(b"SIG")
    return _REASON_OF_NAME.get(name) or _REASON_OF_WORD.get(what.lower(), "terminated")


def _reason_of_exit(code: int) -> str:
    """Return the reason for an exit code. Shells return 128 plus the signal number."""
    return _REASON_OF_NUMBER.get(code - _EXIT_BY_SIGNAL, "error")


def _by_signal(match: Match) -> Iterable[Event]:
    [what] = [each for each in match.groups() if each]
    yield RunFailed(_reason_of_signal(what), to_text(evidence(match)))


def _by_exit_code(match: Match) -> Iterable[Event]:
    [code] = [int(each) for each in match.groups() if each]
    if code:
        yield RunFailed(_reason_of_exit(code), to_text(evidence(match)))


def _srun_task(match: Match) -> Iterable[Event]:
    what = match["what"]
    if exited := _EXIT_CODE.search(what):
        code = int(exited["code"])
        if code:
            yield RunFailed(_reason_of_exit(code), to_text(evidence(match)))
        return
    word = re.sub(rb" ?\(core ?dumped\).*| - core dumped.*|\s+$", b"", what).lower()
    if word in _REASON_OF_WORD:
        yield RunFailed(_REASON_OF_WORD[word], to_text(evidence(match)))


def _first_of(*rows: tuple[str, bytes]) -> Events:
    """Use the reason of the first row whose expression is found in the lower-case text; none if no row fits."""
    table = [(reason, re.compile(expression)) for reason, expression in rows]

    def events(match: Match) -> Iterable[Event]:
        text = match["what"].lower()
        for reason, expression in table:
            if expression.search(text):
                yield RunFailed(reason, to_text(evidence(match)))
                return

    return events


_SLURM_END = LineRule(
    # "*** JOB 7 ON gpu1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***". Only the words after the host's name
    # count: a host may be called "preempt1".
    re.compile(
        rb"(?P<message>(?:slurmstepd\S{0,300} |slurmd\S{0,300} |srun: )?(?:error: )?"
        rb"\*\*\* (?:JOB|STEP|Job|Step|StepId)\b.{0,400}?\b"
        rb"(?P<what>(?:CANCELLED|FAILED|TERMINATED|KILLED|UNCORRECTABLE|PREEMPTED|REQUEUED)\b.{0,300}))"
    ),
    _first_of(
        ("time_limit", rb"time ?limit"),
        ("preempted", rb"preempt"),
        ("node_failure", rb"node failure|node \S+ fail|uncorrectable memory"),
        ("out_of_memory", rb"memory limit|out[- ]of[- ]memory"),
        ("terminated", rb"task failure|not ending with signals"),
        ("error", rb"^failed"),
        ("cancelled", rb""),
    ),
)

_SLURM_MEMORY = LineRule(
    re.compile(
        rb"(?P<message>(?:slurmstepd\S{0,300} |slurmd\S{0,300} )?(?:error: )?(?:Detected \d{1,9} oom[-_]kill event"
        rb"|(?:Job|Step|StepId=)\S{0,100}.{0,40}? exceeded (?:\w+ ){0,2}memory limit|Exceeded (?:\w+ ){0,2}memory limit"
        rb"|Some of (?:your|the step) (?:processes|tasks) (?:may )?have been (?:OOM Killed|killed by the cgroup)))"
    ),
    failed("out_of_memory"),
)

_KERNEL_MEMORY = LineRule(
    re.compile(rb"(?:[Mm]emory cgroup o|\bO)ut of memory: Kill(?:ed)? process|\boom-kill:|\bOOMKilled\b|\boom_reaper:"),
    failed("out_of_memory"),
)

_SRUN = LineRule(
    re.compile(rb"(?P<message>(?:srun|sbatch|salloc): (?:(?:error|fatal): )?(?P<what>[A-Za-z].{0,300}))"),
    _first_of(
        ("node_failure", rb"^node failure|^node \S+ fail"),
        ("preempted", rb"preempt"),
        ("cancelled", rb"has been revoked"),
        (
            "error",
            rb"^(?:unable to |batch job submission failed|execve|job/step already complet)|launch failed",
        ),
        (
            "terminated",
            rb"^(?:job step aborted|force terminated|forcing job termination|terminating |sending ctrl-c)",
        ),
    ),
)

_LSF = LineRule(
    re.compile(rb"(?P<message>(?<![A-Z_])TERM_(?P<what>[A-Z_]{3,40}): )"),
    _first_of(
        ("time_limit", rb"^(?:runlimit|cpulimit|deadline|window)"),
        ("out_of_memory", rb"^(?:memlimit|swap)"),
        ("preempted", rb"^(?:preempt|load)"),
        ("cancelled", rb"^(?:force_)?(?:owner|admin)|^requeue|^bucket_kill"),
        ("node_failure", rb"^(?:zombie|remove_hung_job|orphan)"),
        ("killed", rb"^external_signal"),
        ("error", rb"^cwd_notexist"),
        ("terminated", rb""),
    ),
)

_PBS = LineRule(
    re.compile(rb"(?P<message>=>> ?PBS: (?P<what>job .{0,300}))"),
    _first_of(
        ("time_limit", rb"walltime|cput\b"),
        ("out_of_memory", rb"\bv?mem .{0,99}exceeded|memory limit|out[- ]of[- ]memory"),
        ("cancelled", rb"delete"),
        ("preempted", rb"preempt"),
        ("terminated", rb""),
    ),
)

_TIMEOUT = LineRule(re.compile(rb"timeout: sending signal [A-Z0-9]{1,10} to command"), failed("time_limit"))

_MPI_ABORT = LineRule(re.compile(rb"\bMPI_ABORT was invoked on rank"), failed("aborted"))
_MPI = LineRule(
    re.compile(
        rb"\bBAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
        rb"|\bprocess(?:es)? (?:returned|exited with) (?:a )?non-zero"
    ),
    failed("error"),
)

PROCESS_ENDS = (
    _SLURM_END,
    _SLURM_MEMORY,
    _KERNEL_MEMORY,
    LineRule(_SRUN_TASK, _srun_task),
    _SRUN,
    _LSF,
    _PBS,
    _TIMEOUT,
    LineRule(_BY_SIGNAL, _by_signal),
    LineRule(_EXIT_CODE, _by_exit_code),
    _MPI_ABORT,
    _MPI,
    LineRule(_BASH, _by_word),
    LineRule(_ZSH, _by_word),
    LineRule(_JOB, _by_word),
    LineRule(_SHELL_WORD, _by_word),
)
"""Rules searched anywhere in a line. The first one that yields an event counts."""
