"""What states, phases and failure reasons are called for physicists and operators."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.beams.snapshot import BeamState, OutputState
from exporter.logs.events import INTERRUPTIONS

STATE_LABELS: Mapping[BeamState, str] = {state: state.value.capitalize() for state in BeamState}

STATE_MEANINGS: Mapping[BeamState, str] = {
    BeamState.WAITING: "the simulation has not started to write its log",
    BeamState.STARTING: "no batch has started yet",
    BeamState.RUNNING: "batches are being simulated",
    BeamState.STALLED: "no progress for longer than its batches take: check whether it still runs",
    BeamState.SUCCEEDED: "finished; dose written",
    BeamState.FAILED: "there is no valid dose",
    BeamState.EXPIRED: "its log has not grown for so long that the simulation has probably died",
    BeamState.UNREACHABLE: "the source of its log cannot be reached; these are the last known values",
}

PHASE_LABELS: Mapping[str, str] = {
    "loading": "reading plan and images",
    "preparing": "preparing the simulation",
    "simulating": "simulating",
    "saving": "writing the dose",
}

REASON_TEXTS: Mapping[str, str] = {
    "out_of_memory": "the memory was too small; another job may use the graphics card",
    "cuda": "the graphics card (GPU) reported an error",
    "exception": "the simulation program stopped at an error that it cannot handle",
    "assertion": "the simulation program stopped because one of its own checks failed",
    "simulation_error": "particles had no valid direction: check the beam's data",
    "segmentation_fault": "the simulation program crashed",
    "killed": "the simulation was killed, by a user or because memory ran out",
    "terminated": "the simulation was stopped, by a user or by a shutdown",
    "aborted": "the simulation program stopped itself",
    "output_error": "the dose was not written; the disk may be full",
    "no_particles": "nothing was simulated: the beam has no particles",
    "time_limit": "the job reached its time limit before the simulation was finished",
    "no_free_gpu": "no graphics card (GPU) was free",
    "preempted": "interrupted: the scheduler gave its place to another job",
    "node_failure": "interrupted: the computer that ran it failed",
    "cancelled": "interrupted: the job was cancelled, by a user or by the scheduler",
    "output_missing": "the simulation ended normally, but the dose file is missing",
    "empty_dose": "the dose is zero everywhere",
    "fatal_error": "the simulation program reported a fatal error",
    "error": "the simulation program reported an error",
    "status": "MQI Communicator says that it has failed; the log does not say why",
}
"""A text for each of :data:`exporter.logs.events.FAILURE_REASONS`."""


STATUS_TEXTS: Mapping[str, str] = {
    "pending": "waiting to be started",
    "processing": "being processed",
    "csv_interpreting": "reading the input",
    "uploading": "sending the input",
    "tps_generation": "writing the input of the simulation",
    "hpc_queued": "waiting in the scheduler's queue",
    "hpc_running": "simulation running",
    "simulation_running": "simulation running",
    "downloading": "fetching the dose",
    "postprocessing": "processing the dose",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
"""A text for each status of :mod:`exporter.beams.statuses`."""


def status_text(status: str) -> str:
    """Say in words what the communicator says of a beam; a site's own status stays as it is."""
    return STATUS_TEXTS.get(status, status)


def reason_text(reason: str | None, status: str | None = None) -> str | None:
    """Say in words why a run failed.

    Args:
        reason: one of :data:`exporter.logs.events.FAILURE_REASONS`; ``None`` if it did not fail.
        status: of its row, as shown: a row may say ``cancelled`` as well as ``failed``.
    """
    if reason == "status" and status:
        return f"MQI Communicator says: {status_text(status)}; the log does not say why"
    return None if reason is None else REASON_TEXTS.get(reason, reason)


OUTPUT_TEXTS: Mapping[OutputState, str] = {
    OutputState.SKIPPED: "dose file not checked: the run had ended before it was first seen",
    OutputState.PENDING: "looking for the dose file",
    OutputState.BLOCKED: "the dose file cannot be checked",
    OutputState.FOUND: "dose file found",
    OutputState.MISSING: "there is no dose file of this run",
}

OUTPUT_PROBLEM_TEXTS: Mapping[str, str] = {
    "permission": "the exporter has no permission to list its folder",
    "link": "a link leads out of the folder of output_path",
    "too_many": "there are too many files or folders",
    "path": "the beam's ids do not match output_path",
    "not_a_file": "a part of its path is not a folder",
    "io": "the file system reported an error",
}


def output_text(state: OutputState, problem: str | None) -> str | None:
    """Say in words what the output check found; ``None`` where there is nothing to say.

    Args:
        state: result of the check.
        problem: why it is blocked, as a kind of :class:`~exporter.sources.source.LogProblem`.
    """
    words = OUTPUT_TEXTS.get(state)
    if words is None or problem is None:
        return words
    return f"{words}: {OUTPUT_PROBLEM_TEXTS.get(problem, problem)}"


_NOT_A_CRASH = frozenset({"killed", "terminated", "time_limit", "status"}) | INTERRUPTIONS
"""Reasons of runs that something else stopped, or may have stopped."""


def dose_text(reason: str | None, *, written_before_failure: bool) -> str | None:
    """Say that a failed run had written its dose; ``None`` where it had not.

    Args:
        reason: why the run failed.
        written_before_failure: whether the dose file was written before the failure.
    """
    if reason is None or not written_before_failure:
        return None
    return f"the dose file was written before the {'run was stopped' if reason in _NOT_A_CRASH else 'crash'}"
