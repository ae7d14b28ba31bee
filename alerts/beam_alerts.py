"""Alerts about beams."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.alert import BEAM, Alert, beam_value
from alerts.parameters import Parameters, duration

_THE_BEAM = "Beam {{ $labels.beam_id }} of case {{ $labels.case_id }}"
_NOT_WRITTEN = "output_error|output_missing"
_ALERTS_OF_THEIR_OWN = f"{_NOT_WRITTEN}|empty_dose|no_particles"
"""Failure reasons that have alerts of their own: the run looks finished, but its dose is missing or empty."""

_INTERRUPTED = "preempted|node_failure|cancelled"
"""Failure reasons that are not a fault of the run. A test compares this with the exporter's own list."""

_BATCH = f"batch {beam_value('mqi_beam_batch_current')} of {beam_value('mqi_beam_batches_total')}"
_STATUS = beam_value("mqi_beam_info", 'label "status"')
_STATE = beam_value("mqi_beam_state", 'label "state"', " == 1")


def beam_alerts(parameters: Parameters) -> Sequence[Alert]:
    """Return the alerts about beams, for people who wait for a dose."""
    simulating = "|".join(parameters.simulating_statuses)
    return (
        Alert(
            "MQIBeamStalled",
            "warning",
            "mqi_beam:stalled_seconds\n",
            f"{_THE_BEAM} stands still",
            f"{_THE_BEAM} on {{{{ $labels.source }}}} has made no progress for {{{{ $value | humanizeDuration }}}}, at "
            f"{_BATCH}; its threshold is {beam_value('mqi_beam_stall_threshold_seconds', 'value | humanizeDuration')}. "
            "The simulation hangs, waits for a resource, or was killed without a word.",
            "beam",
            parameters.stall_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamStalledLong",
            "critical",
            f"mqi_beam:overdue_seconds > {parameters.stalled_long_seconds}\n",
            f"{_THE_BEAM} has stood still for long and nobody has resolved it",
            f"{_THE_BEAM} on {{{{ $labels.source }}}} has made no progress for "
            f"{beam_value('mqi_beam:stalled_seconds', 'value | humanizeDuration')}, at {_BATCH}. It will not go on by "
            "itself; the plan check waits for it.",
            "beam",
            kept_seconds=parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamFailed",
            "warning",
            f'mqi_beam_failure{{reason!~"{_ALERTS_OF_THEIR_OWN}|{_INTERRUPTED}"}} == 1\n',
            f"{_THE_BEAM} failed: {{{{ $labels.reason }}}}",
            f"The simulation on {{{{ $labels.source }}}} ended at {_BATCH} (run {beam_value('mqi_beam_run')}). "
            "Reason: {{ $labels.reason }}.",
            "beam",
            parameters.failed_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIDoseNotWritten",
            "critical",
            f'mqi_beam_failure{{reason=~"{_NOT_WRITTEN}"}} == 1\n',
            f"{_THE_BEAM} looks finished, but its dose was not written",
            f"The simulation on {{{{ $labels.source }}}} ran to its end ({_BATCH}) and may have exited with 0, but "
            "could not write the dose. The row may say completed: do not use what lies in the output folder.",
            "beam",
            parameters.failed_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQINoParticles",
            "critical",
            'mqi_beam_failure{reason="no_particles"} == 1\n',
            f"{_THE_BEAM} looks finished, but nothing was simulated",
            "The simulation on {{ $labels.source }} ended without having simulated a single particle and may have "
            "exited with 0. The row may say completed: its dose is zero.",
            "beam",
            parameters.failed_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIEmptyDose",
            "critical",
            'mqi_beam_failure{reason="empty_dose"} == 1\n',
            f"{_THE_BEAM} looks finished, but its dose is zero everywhere",
            "The simulation on {{ $labels.source }} wrote a dose whose maximum is 0 and may have exited with 0. The "
            "row may say completed: do not use this dose.",
            "beam",
            parameters.failed_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamInterrupted",
            "info",
            f'mqi_beam_failure{{reason=~"{_INTERRUPTED}"}} == 1\n',
            f"{_THE_BEAM} was interrupted and has not started again",
            f"The run on {{{{ $labels.source }}}} was interrupted at {_BATCH} ({{{{ $labels.reason }}}}), and no new "
            f"run has started for {duration(parameters.interrupted_for_seconds)}. The beam itself is not at fault.",
            "beam",
            parameters.interrupted_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamSlow",
            "warning",
            f"""\
mqi_beam:slowness_ratio > {parameters.slow_ratio:g}
and on ({BEAM}) mqi_beam_state{{state="running"}} == 1
""",
            f"{_THE_BEAM} is {{{{ $value | humanize }}}} times slower than usual on {{{{ $labels.source }}}}",
            f"A batch takes {beam_value('mqi_beam_batch_duration_seconds', 'value | humanizeDuration')}; by the number "
            f"of its particles that is {{{{ $value | humanize }}}} times the source's median of the last "
            f"{duration(parameters.usual_over_seconds)}. It is at {_BATCH}, and will take another "
            f"{beam_value('mqi_beam_remaining_seconds', 'value | humanizeDuration')}.",
            "beam",
            parameters.slow_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamWaitingForLog",
            "warning",
            f"""\
mqi_beam_state{{state="waiting"}} == 1
and on ({BEAM}) mqi_beam_info{{status=~"{simulating}"}}
""",
            f"{_THE_BEAM} is said to be simulated, but has no log",
            f"Its row has said {_STATUS} for {duration(parameters.waiting_for_seconds)}, and no source that answers "
            "has a log of it that belongs to this run. The process has not started, or writes elsewhere.",
            "beam",
            parameters.waiting_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQILogNotUnderstood",
            "warning",
            "mqi_log_unmatched == 1\n",
            "The log of beam {{ $labels.beam_id }} of case {{ $labels.case_id }} grows, but is not understood",
            f"The log on {{{{ $labels.source }}}} has "
            f"{beam_value('mqi_beam_log_size_bytes', 'value | humanize1024')}B and not one line that is known: the "
            "engine's wording has changed. Neither progress nor the end of this run will be seen.",
            "beam",
            parameters.unmatched_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIStatusMismatch",
            "warning",
            # An interrupted run has MQIBeamInterrupted: its row may still wait for the next start.
            f"""\
mqi_beam_status_mismatch == 1
unless on ({BEAM}) mqi_beam_failure{{reason=~"{_INTERRUPTED}"}}
""",
            f"{_THE_BEAM}: the database and the log disagree about how it ended",
            f"The row says {_STATUS}, the log on {{{{ $labels.source }}}} says {_STATE}. The log is the witness: a row "
            "that says running long after the log ended will not move by itself, and one that says completed over a "
            "failed log promises a dose that is not there.",
            "beam",
            parameters.mismatch_for_seconds,
            parameters.kept_seconds,
        ),
    )
