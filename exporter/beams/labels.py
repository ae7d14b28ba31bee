"""What states, phases and failure reasons are called for people: physicists and operators, not programmers."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.beams.snapshot import BeamState, OutputState
from exporter.logs.events import INTERRUPTIONS

STATE_LABELS: Mapping[BeamState, str] = {
    BeamState.WAITING: "Waiting",
    BeamState.STARTING: "Starting",
    BeamState.RUNNING: "Running",
    BeamState.STALLED: "Stalled",
    BeamState.SUCCEEDED: "Done",
    BeamState.FAILED: "Failed",
    BeamState.EXPIRED: "Silent",
    BeamState.UNREACHABLE: "Unreachable",
}

STATE_MEANINGS: Mapping[BeamState, str] = {
    BeamState.WAITING: "has not begun to write its log",
    BeamState.STARTING: "no batch has begun yet",
    BeamState.RUNNING: "batches are being simulated",
    BeamState.STALLED: "no progress for longer than its batches take: does it still run?",
    BeamState.SUCCEEDED: "the simulation is over and its dose was written: its log says so, or else its row",
    BeamState.FAILED: "there is no valid dose",
    BeamState.EXPIRED: "its log has not grown for so long that it is taken for dead",
    BeamState.UNREACHABLE: "the place where its log is does not answer; these are the last known values",
}

PHASE_LABELS: Mapping[str, str] = {
    "loading": "reading plan and images",
    "preparing": "preparing the simulation",
    "simulating": "simulating",
    "saving": "writing the dose",
}

REASON_TEXTS: Mapping[str, str] = {
    "out_of_memory": "memory was not enough: another job on the graphics card?",
    "cuda": "the graphics card (GPU) reported an error",
    "exception": "the simulation program met an error it could not handle",
    "assertion": "the simulation program found itself in an impossible state and stopped",
    "simulation_error": "particles had no valid direction: check the beam's data",
    "segmentation_fault": "the simulation program crashed",
    "killed": "the simulation was killed: out of memory, or by somebody?",
    "terminated": "the simulation was told to stop: by somebody, or a shutdown?",
    "aborted": "the simulation program gave up",
    "output_error": "dose was not written: disk full?",
    "no_particles": "nothing was simulated: the beam has no particles",
    "time_limit": "the job reached its time limit before the simulation was over",
    "no_free_gpu": "no graphics card (GPU) was free",
    "preempted": "interrupted: the scheduler gave its place to another job",
    "node_failure": "interrupted: the computer it ran on failed",
    "cancelled": "interrupted: the job was cancelled, by somebody or by the scheduler",
    "output_missing": "the simulation ended normally, but the dose file is not there",
    "empty_dose": "the dose is zero everywhere",
    "fatal_error": "the simulation program reported a fatal error",
    "error": "the simulation program reported an error",
    "status": "its row says that it is over; the log does not say why",
}
"""Every one of :data:`exporter.logs.events.FAILURE_REASONS`."""


def reason_text(reason: str | None, status: str | None = None) -> str | None:
    """A failure's reason in words; the reason itself where it has none.

    Args:
        reason: why the run failed.
        status: what its row says, as shown: a row alone may say ``cancelled`` as well as ``failed``.
    """
    if reason == "status" and status:
        return f"its row says {status}; the log does not say why"
    return None if reason is None else REASON_TEXTS.get(reason, reason)


OUTPUT_TEXTS: Mapping[OutputState, str] = {
    OutputState.SKIPPED: "dose file not looked for: the run was over when it was first seen",
    OutputState.PENDING: "looking for the dose file",
    OutputState.BLOCKED: "dose file cannot be looked for",
    OutputState.FOUND: "dose file found",
    OutputState.MISSING: "no dose file of this run is there",
}
"""Of the states that say something to people."""

OUTPUT_PROBLEM_TEXTS: Mapping[str, str] = {
    "permission": "the exporter may not list its folder",
    "link": "a link leads out of the folder of output_path",
    "too_many": "there are too many files or folders",
    "path": "the beam's ids do not fit output_path",
    "not_a_file": "something is not a folder where one should be",
    "io": "the file system reports an error",
}


def output_text(state: OutputState, problem: str | None) -> str | None:
    """Describe the state of the dose file in words; ``None`` where there is nothing to say.

    Args:
        state: what is known.
        problem: why it cannot be looked for, as a kind of :class:`~exporter.sources.source.LogProblem`.
    """
    words = OUTPUT_TEXTS.get(state)
    if words is None or problem is None:
        return words
    return f"{words}: {OUTPUT_PROBLEM_TEXTS.get(problem, problem)}"


_STOPPED = frozenset({"killed", "terminated", "time_limit", "status"}) | INTERRUPTIONS
"""Reasons of runs that did not crash by themselves, or of which nobody knows that they did."""


def dose_text(reason: str | None, *, written_before_failure: bool) -> str | None:
    """Say that a failed run had written its dose; ``None`` where it had not.

    Args:
        reason: why the run failed.
        written_before_failure: the dose file of the beam was written by then.
    """
    if reason is None or not written_before_failure:
        return None
    return f"the dose file was written before the {'run was stopped' if reason in _STOPPED else 'crash'}"
