"""What a physicist can do about a beam that failed or stalled, in two or three steps."""

from __future__ import annotations

from collections.abc import Mapping

_START_AGAIN = "Start the beam again in MQI Communicator."
_CALL_IT = "If it fails again in the same way, call IT."
_NO_DOSE = "Do not use a dose file of this run."
_INTENDED = "If this was done on purpose, there is nothing to do."

WHAT_TO_DO: Mapping[str, tuple[str, ...]] = {
    "out_of_memory": (
        "Wait until other simulations on this computer have finished.",
        _START_AGAIN,
        _CALL_IT,
    ),
    "cuda": (
        _START_AGAIN,
        "If it fails again, or other beams fail on this computer, call IT: the graphics card may be broken.",
    ),
    "no_free_gpu": (
        "Wait a few minutes: newer versions of MQI Communicator start the beam again by themselves.",
        "If nothing happens, start the beam again when other simulations have finished.",
    ),
    "exception": (_START_AGAIN, _CALL_IT),
    "assertion": (_START_AGAIN, _CALL_IT),
    "simulation_error": (
        "Check the beam in the treatment plan, and the log files of the field.",
        "Correct them, then start the beam again.",
        _CALL_IT,
    ),
    "segmentation_fault": (_START_AGAIN, _CALL_IT),
    "time_limit": (
        "Call IT: the simulation needs a longer time limit, or a faster computer.",
        "Then start the beam again.",
    ),
    "preempted": (
        "Wait: the scheduler usually starts the job again. This page then shows the next run.",
        "If nothing happens, start the beam again in MQI Communicator.",
    ),
    "node_failure": (
        "Wait a few minutes: the scheduler may start the job on another computer.",
        "If nothing happens, start the beam again in MQI Communicator.",
        "Call IT: a computer has failed.",
    ),
    "cancelled": (_INTENDED, "Otherwise start the beam again in MQI Communicator."),
    "output_error": (
        _NO_DOSE,
        "Call IT: the disk may be full, or the folder may not be writable.",
        "When they have corrected it, start the beam again.",
    ),
    "killed": (
        _INTENDED,
        "Otherwise start the beam again in MQI Communicator.",
        "If it is killed again, call IT: the memory may be too small.",
    ),
    "terminated": (_INTENDED, "Otherwise start the beam again in MQI Communicator.", _CALL_IT),
    "aborted": (_START_AGAIN, _CALL_IT),
    "output_missing": (
        _NO_DOSE,
        "If the file was only late, the beam becomes succeeded by itself within an hour.",
        "Otherwise call IT, then start the beam again.",
    ),
    "empty_dose": (
        "Do not use this dose: it is zero everywhere.",
        "Check that the beam passes through the dose grid, and that the log files of the field are the right ones.",
        "Correct them, then start the beam again.",
    ),
    "no_particles": (
        _NO_DOSE,
        "Check the log files of the field and the number of the beam.",
        "Correct them, then start the beam again.",
    ),
    "fatal_error": (_START_AGAIN, _CALL_IT),
    "error": (_START_AGAIN, _CALL_IT),
    "status": (
        _INTENDED,
        "Otherwise look at the messages of MQI Communicator, then start the beam again.",
        _CALL_IT,
    ),
    "stalled": (
        "If other beams are slow, too, the computer is busy: wait.",
        "Otherwise call IT: they can see whether the simulation still runs.",
        "If it does not, start the beam again in MQI Communicator.",
    ),
    "expired": (
        "Call IT: the simulation has probably died, and they can make sure.",
        "Then start the beam again in MQI Communicator.",
    ),
    "waiting": (
        "Call IT: MQI Communicator says that the simulation runs, but there is no log of it.",
        "If they find no simulation, start the beam again in MQI Communicator.",
    ),
    "source_down": (
        "Call IT: the computer that holds the logs cannot be reached.",
        "Simulations may run on: nobody can see it from here. This page catches up by itself.",
    ),
}
"""The steps for each of :data:`exporter.logs.events.FAILURE_REASONS`, and for other situations."""

SITUATIONS: Mapping[str, str] = {
    "stalled": "There has been no progress for longer than batches take",
    "expired": "The log has not grown for so long that the simulation has probably died",
    "waiting": "The simulation should be running, but there is no log of it",
    "source_down": "The computer that holds the logs cannot be reached",
}
"""Titles of the keys of :data:`WHAT_TO_DO` that are no failure reasons."""
