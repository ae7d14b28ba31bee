"""Each line that an engine, the shell or the scheduler prints at a failure, and harmless lines that resemble one."""

import pytest

from exporter.logs.events import FAILURE_REASONS, BatchFinished, RunFailed
from exporter.logs.parser import LINE_LIMIT, TpsLogParser


def reasons(text: bytes) -> list[str]:
    return [event.reason for event in TpsLogParser().feed(text + b"\n") if isinstance(event, RunFailed)]


FAILURES = [
    ("exception", b"terminate called after throwing an instance of 'std::runtime_error'"),
    ("exception", b"  what():  Cannot open input parameter file."),
    ("exception", b"terminate called without an active exception"),
    ("out_of_memory", b"terminate called after throwing an instance of 'std::bad_alloc'"),
    ("out_of_memory", b"  what():  std::bad_alloc"),
    ("cuda", b"  what():  parallel_for failed: cudaErrorIllegalAddress: an illegal memory access was encountered"),
    ("assertion", b'tps_env: a.hpp:59: void f(): Assertion `!(T.empty()) && "x"\' failed.'),
    ("aborted", b"double free or corruption (!prev)"),
    ("aborted", b"free(): double free detected in tcache 2"),
    ("aborted", b"malloc(): corrupted top size"),
    ("aborted", b"*** stack smashing detected ***: terminated"),
    ("out_of_memory", b"GPUassert: out of memory in /opt/mqi_upload_data.hpp at line 304"),
    ("cuda", b"GPUassert: an illegal memory access was encountered /opt/x.hpp 12"),
    ("cuda", b"CUDA error after (setup world): no CUDA-capable device is detected"),
    ("cuda", b"CUDA error after print node: unspecified launch failure"),
    ("cuda", b"CUDA error: (setup world) CUDA driver version is insufficient for CUDA runtime version"),
    ("out_of_memory", b"CUDA error after (upload vertices): out of memory"),
    ("simulation_error", b"There is nan in track direction"),
    ("simulation_error", b"There is all-zeros in track direction"),
    ("output_error", b"Cannot open file!"),
    ("output_error", b"Error occurred at writing time!"),
    ("output_error", b"Cannot write :/data/out/dose.raw"),
    ("output_error", b"error: only 12 could be read"),
    ("output_error", b"Error: Could not save DICOM file: /data/out.dcm"),
    ("output_error", b"Error: Could not insert pixel data: bad"),
    ("output_error", b"Error: Mandatory tag DCM_StudyInstanceUID not found in plan"),
    ("output_error", b"Error: Failed to write DICOM file: /data/out.dcm"),
    ("output_error", b"Exception in save_from_scorer: bad"),
    ("no_particles", b"Total histories (Particles) : 0"),
    ("no_particles", b"histories 0"),
    ("no_particles", b"Uploading particles with batch.. : Particle count --> 1000 with 0 batches"),
    ("no_particles", b"Uploading particles with no batch.. : Particle count --> 0"),
    ("no_particles", b"Upload 1000 histories per batch, 0 batches expected"),
    ("error", b"ERROR: No matching log folder found for RT Plan Beam #1 (Field Name: B1)"),
    ("error", b"ERROR: Dicom CT data is not loaded"),
    ("fatal_error", b"FATAL ERROR in module"),
    ("error", b"./tps_env: error while loading shared libraries: libcudart.so.11.0: cannot open"),
    ("error", b"sh: 1: ./tps_env: not found"),
    ("error", b"bash: line 1: ./tps_env: No such file or directory"),
    ("fatal_error", b"Bus error"),
    ("fatal_error", b"Floating point exception (core dumped)"),
    ("killed", b"/var/spool/slurmd/job7/slurm_script: line 12: 29552 Killed                  ./tps_env in.txt > a.log"),
    ("segmentation_fault", b"bash: line 1: 295 Segmentation fault      (core dumped) ./tps_env in.txt"),
    ("segmentation_fault", b"Segmentation fault"),
    ("segmentation_fault", b"Segmentation fault (core dumped)"),
    ("killed", b"Killed"),
    ("terminated", b"Terminated"),
    ("terminated", b"Hangup"),
    ("terminated", b"Run transpoQuit"),
    ("time_limit", b"CPU time limit exceeded (core dumped)"),
    ("output_error", b"File size limit exceeded"),
    ("fatal_error", b"Trace/breakpoint trap"),
    ("exception", b"  what():  filesystem error: cannot open: No such file or directory [/opt/cuda/moqui/case1]"),
    ("exception", b"  what():  No DICOM files found in directory: cuda-11/case"),
    ("cuda", b"  what():  merge_sort: failed on 1st step: cudaErrorInvalidDevice: invalid device ordinal"),
    ("aborted", b"Aborted (core dumped)"),
    ("time_limit", b"slurmstepd: error: *** JOB 7 ON gpu1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***"),
    ("cancelled", b"slurmstepd: error: *** JOB 7 ON gpu1 CANCELLED AT 2026-01-01T00:00:00 ***"),
    ("out_of_memory", b"slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch."),
    ("out_of_memory", b"slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch."),
    ("out_of_memory", b"slurmstepd: error: Exceeded step memory limit at some point."),
    ("time_limit", b"slurmstepd: error: *** JOB 7 ON broom1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***"),
    ("time_limit", b"=>> PBS: job killed: walltime 3610 exceeded limit 3600"),
    ("out_of_memory", b"=>> PBS: job killed: mem 2048kb exceeded limit 1024kb"),
    ("terminated", b"=>> PBS: job killed: node 3 (gpu3) requested job terminate"),
    # Behind a line that the C library has cut at the end of its block.
    ("killed", b"Run transpoKilled"),
    ("segmentation_fault", b"Block size: 3, Thread Segmentation fault"),
    ("killed", b"Generating particles Killed"),
    ("exception", b"Run transpoterminate called after throwing an instance of 'std::runtime_error'"),
    ("cuda", b"cum_vertiexGPUassert: invalid argument x.hpp 12"),
    ("killed", b"Transporting particles...Killed"),
    ("aborted", b"Run transpoAborted (core dumped)"),
    ("fatal_error", b"Run transpoFloating point exception (core dumped)"),
    ("fatal_error", b"Block size: 3, Thread Bus error"),
    ("killed", b"Run transpo/bin/bash: line 1: 29552 Killed                  ./tps_env in.txt"),
    ("time_limit", b"Run transposlurmstepd: error: *** JOB 12 ON g1 CANCELLED AT 2026-01-01 DUE TO TIME LIMIT ***"),
    ("time_limit", b"Run transpo=>> PBS: job killed: walltime 3605 exceeded limit 3600"),
    ("aborted", b"Run transpodouble free or corruption (!prev)\nAborted (core dumped)"),
    (
        "aborted",
        b"cum_vertiefree(): invalid pointer\nbash: line 1: 29552 Aborted                 (core dumped) ./tps_env",
    ),
    # The same, where what was cut says something already.
    ("killed", b"cum_vertiex 1234Killed"),
    ("out_of_memory", b"cum_vertiex 12GPUassert: out of memory /opt/x.hpp 304"),
    ("killed", b"Run transportation 0.025018 sKilled"),
    ("terminated", b"Particle transportation complete!Terminated"),
    ("segmentation_fault", b"Generating particles for (3 of 9 batches) in CPSegmentation fault"),
    ("aborted", b"Time taken by MC engine: 12Aborted"),
    (
        "exception",
        b"Upload 100 histories per batch, 18 batches expectedterminate called after throwing an instance of 'x'",
    ),
    ("assertion", b"Upload 100 histories per batch, 18 batches expectedtps_env: a.hpp:1: f: Assertion `x' failed."),
]


@pytest.mark.parametrize(("reason", "line"), FAILURES, ids=[repr(line[:40]) for _, line in FAILURES])
def test_a_failure_line_gives_its_reason(reason: str, line: bytes) -> None:
    assert reasons(line) == [reason]
    assert reason in FAILURE_REASONS


@pytest.mark.parametrize(
    "line",
    [
        b"Relative ERROR: 0.01",
        b"relative error: 3 %",
        b"Warning: Very low dose detected. Using scaling factor: 1.000000e-06 Gy/uint",
        b"!!!!!!!!!!!!!!!!!!!!!!!!! WARNING !!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        b"Tracks that were Killed",
        b"Killed 3 tracks",
        b"particles Killed 0",
        b"Cumulated energy of 12 Killed tracks",
        b"/data/plans/Aborted",
        b"Reading patient directory.. : Patient directory name --> /data/QA_Terminated",
        b"Loading RT Ion plan from /data/QA_Killed",
        b"a site's script: line 3: Killed tracks are not counted",
        b"slurmstepd: info: task 0 begins on broom1",
        b"number of secondaries Terminated",
        b"Loading RT Ion plan from /data/QA_Quit",
        b"corrupted pixels: 0",
        b"simulate(): 3 of 9",
        b"No Segmentation fault here",
        b"-nan",
        b"scorer -1902928880 sim type 0",
        b"Output of ERROR: none",
        b"There are 2 beams",
        b"bash: warning: setlocale: LC_ALL: cannot change locale (ko_KR.UTF-8): No such file or directory",
    ],
)
def test_a_harmless_line_is_not_a_failure(line: bytes) -> None:
    assert reasons(line) == []


def test_a_failure_keeps_the_text_of_its_line() -> None:
    [event] = TpsLogParser().feed(b"Run transpoterminate called after throwing an instance of 'x'\n")
    assert event == RunFailed("exception", "terminate called after throwing an instance of 'x'")


def test_a_cut_batch_line_joined_to_a_failure_still_counts_its_batch() -> None:
    events = TpsLogParser().feed(b"Run transportation 0.025018 sKilled\n")
    assert events == [BatchFinished(), RunFailed("killed", "Killed")]


@pytest.mark.timeout(5)
@pytest.mark.parametrize("word", [b"tps_env ", b"Assertion `", b"Killed ", b"Killed", b"terminate called ", b" ", b"x"])
@pytest.mark.parametrize("beginning", [b"", b"sh: ", b"Run ", b"Error: Mandatory tag ", b"=>> PBS: job killed: mem "])
def test_a_long_line_that_almost_matches_is_parsed_quickly(beginning: bytes, word: bytes) -> None:
    TpsLogParser().feed((beginning + word * LINE_LIMIT)[:LINE_LIMIT] + b"\n")
