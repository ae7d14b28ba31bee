"""Failure lines and harmless lines like them, in every position of a log; and logs of jobs that real Slurm ended."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.beams.run import BeamRun
from exporter.logs import parser
from exporter.logs.events import FAILURE_REASONS, Event, LogRead, RunFailed
from exporter.logs.parser import TpsLogParser
from exporter.logs.patterns import FOREIGN_MARKS, LINES
from tests.support.replay import LOGS

DATA = Path(__file__).parents[1] / "data"
SMC, MOQUI = ((LOGS / f"{name}.log").read_bytes() for name in ("v2_b18", "mgh_b18"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


REPORTED = [(row["line"], row["reason"] or None) for row in rows(DATA / "cases" / "last_words.csv")]

SLURM = [
    (
        "slurmstepd-n01: error: *** STEP 12.0 ON n01 CANCELLED AT 2026-02-03T04:05:06 DUE TO TIME LIMIT ***",
        "time_limit",
    ),
    ("slurmd[n01]: error: *** JOB 12 ON n01 CANCELLED AT 2026-02-03T04:05:06 DUE TO TIME LIMIT ***", "time_limit"),
    ("[2026-02-03T04:05:06.001] error: *** JOB 12 ON preempt1 CANCELLED AT 2026-02-03T04:05:06 ***", "cancelled"),
    ("slurmstepd: error: *** JOB 7 ON time-limit CANCELLED AT 2026-01-01T00:00:00 ***", "cancelled"),
    (
        "[2026-02-03T04:05:06.001] error: *** JOB 12 ON n1 CANCELLED AT 2026-02-03T04:05:06 DUE to SIGNAL Killed ***",
        "cancelled",
    ),
    ("slurmstepd-n1: error: *** JOB 9 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***", "cancelled"),
    ("error: *** STEP 9.3 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***", "preempted"),
    ("error: *** JOB 9 STEPD TERMINATED ON n1 AT 2026-01-01 DUE TO JOB NOT ENDING WITH SIGNALS ***", "terminated"),
    ("slurmstepd: error: *** JOB 9 ON n1 FAILED (non-zero exit code or other failure mode) ***", "error"),
    ("slurmstepd-n1: error: Detected 3 oom_kill events in StepId=26.0.", "out_of_memory"),
    ("slurmstepd: error: StepId=9.0 exceeded memory limit (2048 > 1024), being killed", "out_of_memory"),
    ("slurmstepd: error: execve(): ./tps_env: No such file or directory", "error"),
    ("srun: error: Node failure on n[3-4]", "node_failure"),
    ("srun: error: gpu[1-2]: tasks 0,3-5: Killed", "killed"),
    ("srun: error: n7: task 11: Aborted (core dumped)", "aborted"),
    ("srun: error: n7: task 11: Terminated", "terminated"),
    ("srun: error: n7: task 1: Exited with exit code 137", "killed"),
    ("srun: error: n7: task 1: Exited with exit code 255", "error"),
    ("srun: error: n7: task 1: Floating point exception", "fatal_error"),
    ("srun: error: Unable to create step for job 7: Job/step already completing or completed", "error"),
    ("srun: Job step aborted: Waiting up to 32 seconds for job step to finish.", "terminated"),
]
OTHERS = [
    ("slurmstepd-g7: error: Detected 1 oom-kill event(s) in StepId=7.batch cgroup.", "out_of_memory"),
    ("salloc: Job allocation 7 has been revoked.", "cancelled"),
    ("srun: error: Application launch failed: Unspecified error", "error"),
    ("Killed by signal 15.", "terminated"),
    ("Process finished with exit code 137 (interrupted by signal 9: SIGKILL)", "killed"),
    ("Killed: 9", "killed"),
    ("[1]+  Killed                  ./tps_env in.txt > a.log", "killed"),
    ("/usr/bin/time: cannot run ./tps_env: No such file or directory", "error"),
    ("Exited with exit code 1.", "error"),
    ("TERM_MEMLIMIT: job killed after reaching LSF memory usage limit.", "out_of_memory"),
    ("TERM_OWNER: job killed by owner.", "cancelled"),
    ("TERM_ADMIN: job killed by root or LSF administrator.", "cancelled"),
    ("TERM_PREEMPT: job killed after preemption.", "preempted"),
    ("TERM_CPULIMIT: job killed after reaching LSF CPU usage limit.", "time_limit"),
    ("TERM_EXTERNAL_SIGNAL: job killed by a signal external to LSF.", "killed"),
    ("=>> PBS: job killed: walltime 3610 exceeded limit 3600", "time_limit"),
    ("/tmp/job.sh: line 3: 77 User defined signal 2   build/tps_env/tps_env in.txt", "terminated"),
    ("./run.sh: line 12: 29552 Bus error               (core dumped) ./tps_env in.txt", "fatal_error"),
    ("./run.sh: line 12: 29552 Broken pipe             ./tps_env in.txt", "terminated"),
    ("zsh: segmentation fault (core dumped)  ./tps_env in.txt", "segmentation_fault"),
    ("zsh: abort      ./tps_env in.txt", "aborted"),
    ("zsh: terminated  ./tps_env in.txt", "terminated"),
    ("zsh: bus error  ./tps_env", "fatal_error"),
    ("fish: Job 1, './tps_env in.txt' terminated by signal SIGKILL (Forced quit)", "killed"),
    ("Command terminated by signal 11", "segmentation_fault"),
    ("Command terminated by signal 15", "terminated"),
    ("Command exited with non-zero status 1", "error"),
    ("command terminated with exit code 137", "killed"),
    ("prterun noticed that process rank 3 with PID 77 on node n9 exited on signal 11.", "segmentation_fault"),
    ("mpirun noticed that process rank 0 with PID 5 on node a exited on signal 6 (Aborted).", "aborted"),
    ("YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)", "killed"),
    ("mpirun was unable to launch the specified application as it could not find an executable:", "error"),
    ("Memory cgroup out of memory: Killed process 4242 (tps_env) total-vm:1kB", "out_of_memory"),
    ("./moqui_run: symbol lookup error: ./moqui_run: undefined symbol: _ZN3mqi", "error"),
    ("/opt/x/sim: error while loading shared libraries: libgdcmCommon.so.3.0: cannot open shared object file", "error"),
    ("nohup: failed to run command './tps_env': Permission denied", "error"),
    ("timeout: failed to run command ‘/opt/tps_env’: No such file or directory", "error"),
    ("env: ‘./tps_env’: No such file or directory", "error"),
    ("/bin/sh: 1: ./tps_env: not found", "error"),
    ("bash: ./tps_env: cannot execute binary file: Exec format error", "error"),
    ("zsh: no such file or directory: ./tps_env", "error"),
    ("No free GPU remains after BeamLayerMultiGpu filtering", "no_free_gpu"),
    ("ERROR: No free GPU remains after BeamLayerMultiGpu filtering", "no_free_gpu"),
]  # fmt: skip
ENGINES = [
    ("[ERROR] Failed to write DICOM file: /out/a.dcm", "output_error"),
    ("[ERROR] unknown material", "error"),
    ("ERROR - dose not saved", "output_error"),
    ("Error while writing the dose to /out/a.mhd", "output_error"),
    ("Error saving DICOM RT Dose", "output_error"),
    ("Could not open the file for writing: /out/a.raw", "output_error"),
    ("Unable to open output file /out/a.npz", "output_error"),
    ("Failed to save /out/1G000_Dose.dcm", "output_error"),
    ("Could not create MHD file /out/a.mhd", "output_error"),
    ("cannot write DICOM file", "output_error"),
    ("Unable to save the dose", "output_error"),
    ("Error: child node is null", "output_error"),
    ("Error: source data pointer is null", "output_error"),
    ("Error: plan name is empty", "output_error"),
    ("Error: cannot get dataset from /in/p.dcm", "output_error"),
    ("ERROR: Could not write to /out: No space left on device", "output_error"),
    ("Insufficient number of slices in the dose grid", "output_error"),
    ("Exception in save_from_scorer: std::exception", "output_error"),
    ("ERROR: DCMTK library not found, DICOM output is not available", "error"),
    ("Error: unknown beam 7", "error"),
    ("Failed to read the input file in.txt", "error"),
    ("Exception in initialize: bad input", "error"),
    ("FATAL: unknown material", "fatal_error"),
    ("CUDA error 700 at kernel.cu:12: an illegal memory access was encountered", "cuda"),
]
HARMLESS = [
    "ERROR: ld.so: object 'libgtk3-nocsd.so.0' from LD_PRELOAD cannot be preloaded (failed to map): ignored.",
    "ERROR: ld.so: object '/opt/x.so' from /etc/ld.so.preload cannot be preloaded: ignored.",
    "ERROR: Unable to locate a modulefile for 'gcc/12'",
    "slurmstepd-n1: error: couldn't chdir to `/home/kim': No such file or directory: going to /tmp instead",
    "srun: job 4711 has been allocated resources",
    "srun: error: Required node not available (down, drained or reserved)",
    "CUDA error checking enabled",
    "CUDA error: no error",
    "Error: 0.8 %",
    "Relative ERROR: 0.01",
    "Warning: Failed to write preview",
    "mkdir: cannot create directory '/data/out': File exists",
    "rm: cannot remove 'tps_env.log': No such file or directory",
    "slurm_script: line 4: nvidia-smi: command not found",
    "mqi_job.sh: line 3: module: command not found",
    "bash: warning: setlocale: LC_ALL: cannot change locale (ko_KR.UTF-8): No such file or directory",
    "Exited with exit code 0",
    "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for 'cuda'",
    'Lmod has detected the following error: The following module(s) are unknown: "cuda/11.8"',
    "Error handling is on",
    "Cannot find an optional mask: none is used",
    "srun: Job 7 step creation temporarily disabled, retrying (Requested nodes are busy)",
    "Failed to initialize NVML: Driver/library version mismatch",
    "Reading DICOM directory.. : DICOM directory name --> /data/CANCELLED AT/x",
]

FAILURES = [*REPORTED, *SLURM, *OTHERS, *ENGINES, *((line, None) for line in HARMLESS)]


def reasons(data: bytes) -> list[str]:
    return [event.reason for event in TpsLogParser().feed(data) if isinstance(event, RunFailed)]


def positions(log: bytes, line: bytes) -> Iterator[tuple[str, bytes]]:
    lines = log.rstrip(b"\n").split(b"\n")
    half = lines[: len(lines) // 2]
    yield "alone", line + b"\n"
    yield "first", b"\n".join([line, *lines, b""])
    yield "before the last line", b"\n".join([*lines[:-1], line, lines[-1], b""])
    yield "last of a cut log", b"\n".join([*half, line, b""])
    yield "behind a progress bar", b"\n".join([*half, b" 45 % [####    ]\r" + line, b""])
    yield "coloured", b"\n".join([*half, b"\x1b[1;31m" + line + b"\x1b[0m", b""])
    yield "labelled by srun", b"".join(b"0: %s\n" % each for each in [*half, line])


@pytest.mark.parametrize(("line", "reason"), FAILURES, ids=[line[:70] for line, _ in FAILURES])
def test_a_failure_line_has_the_same_reason_anywhere_in_the_log(line: str, reason: str | None) -> None:
    for log in (SMC, MOQUI):
        for where, data in positions(log, line.encode()):
            assert reasons(data) == ([reason] if reason else []), where


@pytest.mark.parametrize(("line", "reason"), REPORTED, ids=[line[:70] for line, _ in REPORTED])
def test_a_failure_message_joined_to_a_cut_line_is_found(line: str, reason: str | None) -> None:
    for log in (SMC, MOQUI):
        for cut in (len(log) // 2, len(log) * 6 // 10, len(log) * 3 // 4):
            if log[:cut].endswith(b"\n"):
                cut -= 3
            assert reasons(log[:cut] + line.encode() + b"\n") == ([reason] if reason else [])


@pytest.mark.parametrize(("line", "reason"), FAILURES, ids=[line[:70] for line, _ in FAILURES])
def test_the_prefilter_keeps_every_failure_line(line: str, reason: str | None) -> None:
    text = line.encode()
    if reason is not None:
        assert text[:4] in LINES or any(mark in text for mark in FOREIGN_MARKS)


@pytest.mark.parametrize("row", rows(DATA / "slurm" / "expected.csv"), ids=lambda row: row["log"])
def test_a_log_of_a_job_ended_by_slurm_shows_the_reason(row: dict[str, str]) -> None:
    data = (DATA / "slurm" / row["log"]).read_bytes()
    run = BeamRun()
    events: list[Event] = [*TpsLogParser().feed(data), LogRead(len(data), line_complete=True, live=True)]
    for event in events:
        run.apply(event, 1.0)
    assert run.failed is (row["outcome"] == "failed")
    assert run.reason == row["reason"]
    assert run.reason in FAILURE_REASONS


NEAR_MISSES = [
    *(b"Assertion `", b"srun: error: ", b"*** JOB ", b"*** STEP 1 CANCELLED", b"zsh: ", b": line 1: 1 ", b"Error: "),
    *(b"Failed to ", b"tps_env: ", b"error while loading shared ", b"./tps_env", b"TERM_", b"a.b/", b"version `"),
    *(b"failed to execute ", b"exited with code ", b" signal ", b"[1] ", b"not found", b"execve(): ", b"a: "),
]


@pytest.mark.parametrize("unit", NEAR_MISSES, ids=repr)
def test_only_both_ends_of_a_long_line_are_searched_for_failures(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the length costs no more. The test counts bytes given to the patterns, not seconds."""
    searched: list[int] = []

    class Counted:
        def search(self, line: bytes, start: int = 0, end: int = 1 << 30) -> None:
            searched.append(min(end, len(line)) - start)

    class Rule:
        pattern = Counted()

    monkeypatch.setattr(parser, "FOREIGN_LINES", (Rule(),))
    for size in (32_768, 65_536):
        parser.foreign_events((unit * (size // len(unit) + 1))[:size])
    assert searched == [parser.FOREIGN_LIMIT] * 4


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", NEAR_MISSES, ids=repr)
def test_160_long_lines_that_almost_match_are_read_in_seconds(unit: bytes) -> None:
    """With a quadratic pattern this would take minutes."""
    line = (unit * (65_536 // len(unit)))[:65_536]
    TpsLogParser().feed((b"x\n" + line + b"\n") * 160)
