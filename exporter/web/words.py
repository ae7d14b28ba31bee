"""What states, phases and failure reasons are called for people: physicists and operators, not programmers."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.beams.snapshot import BeamState

STATE_WORDS: Mapping[BeamState, str] = {
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

PHASE_WORDS: Mapping[str, str] = {
    "loading": "reading plan and images",
    "preparing": "preparing the simulation",
    "simulating": "simulating",
    "saving": "writing the dose",
}

REASON_WORDS: Mapping[str, str] = {
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


def reason_words(reason: str | None, status: str | None = None) -> str | None:
    """A failure's reason in words; the reason itself where it has none.

    Args:
        reason: why the run failed.
        status: what its row says, as shown: a row alone may say ``cancelled`` as well as ``failed``.
    """
    if reason == "status" and status:
        return f"its row says {status}; the log does not say why"
    return None if reason is None else REASON_WORDS.get(reason, reason)
