"""The recording rules that dashboards and alerts share, and the alerts.

An alert has the labels of its beam or source, so that Alertmanager can group and inhibit by them. Its texts contain
only labels and values of ``/metrics``, so they show pseudonyms wherever ``/metrics`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from alerts.parameters import Parameters, duration

_EXPORTER = "job, instance"
_SOURCE = f"{_EXPORTER}, source"
_BEAM = f"{_EXPORTER}, case_id, beam_id, source"
_THE_BEAM = "Beam {{ $labels.beam_id }} of case {{ $labels.case_id }}"
_NOT_WRITTEN = "output_error|output_missing"
_ALERTS_OF_THEIR_OWN = f"{_NOT_WRITTEN}|empty_dose|no_particles"
"""Failure reasons that have alerts of their own: the run looks finished, but its dose is missing or empty."""

_INTERRUPTED = "preempted|node_failure|cancelled"
"""Failure reasons that are not a fault of the run. A test compares this with the exporter's own list."""

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; its runbook is ``docs/runbooks/<name>.md``.

    Args:
        name: the name in Alertmanager.
        severity: ``critical``: somebody must act now; ``warning``: somebody must act today; ``info``: nobody must act.
        expression: PromQL with one result for each alert.
        summary: one line; a template in which Prometheus fills in labels and values.
        description: what has happened, with values, and what it means; a template, too.
        about: what the alert is about; this decides which dashboard it links to.
        for_seconds: how long the condition must hold before the alert fires.
        kept_seconds: how long the alert keeps firing after the condition ended.
    """

    name: str
    severity: Severity
    expression: str
    summary: str
    description: str
    about: Literal["beam", "source", "exporter"]
    for_seconds: int = 0
    kept_seconds: int = 0

    def rule(self, parameters: Parameters) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": self.expression}
        if self.for_seconds:
            rule["for"] = duration(self.for_seconds)
        if self.kept_seconds:
            rule["keep_firing_for"] = duration(self.kept_seconds)
        return rule | {
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "dashboard_url": parameters.grafana_url.rstrip("/") + _DASHBOARDS[self.about],
                "runbook_url": f"{parameters.runbook_url.rstrip('/')}/{self.name}.md",
            },
        }


_DASHBOARDS = {
    "beam": "/d/mqi-case?var-case={{ $labels.case_id | urlquery }}&var-beam={{ $labels.beam_id | urlquery }}",
    "source": "/d/mqi-exporter?var-source={{ $labels.source | urlquery }}",
    "exporter": "/d/mqi-exporter",
}


def _of_beam(metric: str, form: str = "value | humanize", where: str = "") -> str:
    """Return a template that fills in a metric of the alert's beam, or ``?`` if the beam does not have it."""
    selector = f"{metric}{{case_id=%q,beam_id=%q,source=%q}}{where}"
    return (
        f"{{{{ with printf `{selector}` $labels.case_id $labels.beam_id $labels.source | query }}}}"
        f"{{{{ . | first | {form} }}}}{{{{ else }}}}?{{{{ end }}}}"
    )


def _beams_of_source(states: str) -> str:
    """Return a template that counts the beams of the alert's source in these states."""
    selector = f'mqi_beams{{job=%q,instance=%q,source=%q,state=~"{states}"}}'
    return (
        f"{{{{ with printf `sum({selector})` $labels.job $labels.instance $labels.source | query }}}}"
        "{{ . | first | value | humanize }} beam{{ if ne (. | first | value) 1.0 }}s{{ end }}"
        "{{ else }}0 beams{{ end }}"
    )


def _counted(one: str, many: str) -> str:
    """Return a template for the alert's value with its noun: ``one`` after a 1, ``many`` after any other number."""
    return f"{{{{ $value | humanize }}}} {{{{ if eq $value 1.0 }}}}{one}{{{{ else }}}}{many}{{{{ end }}}}"


_BATCH = f"batch {_of_beam('mqi_beam_batch_current')} of {_of_beam('mqi_beam_batches_total')}"
_STATUS = _of_beam("mqi_beam_info", 'label "status"')
_STATE = _of_beam("mqi_beam_state", 'label "state"', " == 1")


def _recorded_of_beams(parameters: Parameters) -> list[dict[str, str]]:
    return [
        {
            "record": "mqi_beam:stalled_seconds",
            "expr": f"""\
(time() - mqi_beam_last_progress_timestamp_seconds > mqi_beam_stall_threshold_seconds)
and on ({_BEAM})
  max by ({_BEAM}) (mqi_beam_state{{state=~"starting|running|stalled|expired"}}) == 1
and on ({_SOURCE})
  (time() - mqi_source_last_poll_timestamp_seconds < {parameters.source_silent_seconds})
or
# a known stall keeps its last value while the exporter or the source is down
mqi_beam:stalled_seconds and on ({_EXPORTER}) up == 0
or
mqi_beam:stalled_seconds and on ({_BEAM}) mqi_beam_state{{state="unreachable"}} == 1
""",
        },
        {
            "record": "mqi_beam:overdue_seconds",
            "expr": f"""\
mqi_beam:stalled_seconds - mqi_beam_stall_threshold_seconds
or
mqi_beam:overdue_seconds and on ({_BEAM}) mqi_beam:stalled_seconds
""",
        },
        {
            "record": "mqi_beam:seconds_per_particle",
            "expr": """\
mqi_beam_batch_duration_seconds / (mqi_beam_particles_per_batch > 0)
and mqi_beam_batches_completed >= 2
""",
        },
        {
            "record": "mqi_beam:slowness_ratio",
            "expr": f"""\
mqi_beam:seconds_per_particle
  / on ({_SOURCE}) group_left () mqi_source:seconds_per_particle:usual
""",
        },
    ]


def _recorded_of_sources(parameters: Parameters) -> list[dict[str, str]]:
    over = duration(parameters.usual_over_seconds)
    return [
        {
            "record": "mqi_source:seconds_per_particle:median",
            "expr": f"quantile by ({_SOURCE}) (0.5, mqi_beam:seconds_per_particle)\n",
        },
        {
            "record": "mqi_source:seconds_per_particle:usual",
            "expr": f"quantile_over_time(0.5, mqi_source:seconds_per_particle:median[{over}])\n",
        },
    ]


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
            f"{_BATCH}; its threshold is {_of_beam('mqi_beam_stall_threshold_seconds', 'value | humanizeDuration')}. "
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
            f"{_of_beam('mqi_beam:stalled_seconds', 'value | humanizeDuration')}, at {_BATCH}. It will not go on by "
            "itself; the plan check waits for it.",
            "beam",
            kept_seconds=parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamFailed",
            "warning",
            f'max by ({_BEAM}, reason) (mqi_beam_failure{{reason!~"{_ALERTS_OF_THEIR_OWN}|{_INTERRUPTED}"}}) == 1\n',
            f"{_THE_BEAM} failed: {{{{ $labels.reason }}}}",
            f"The simulation on {{{{ $labels.source }}}} ended at {_BATCH} (run {_of_beam('mqi_beam_run')}). "
            "Reason: {{ $labels.reason }}.",
            "beam",
            parameters.failed_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIDoseNotWritten",
            "critical",
            f'max by ({_BEAM}, reason) (mqi_beam_failure{{reason=~"{_NOT_WRITTEN}"}}) == 1\n',
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
            f'max by ({_BEAM}, reason) (mqi_beam_failure{{reason="no_particles"}}) == 1\n',
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
            f'max by ({_BEAM}, reason) (mqi_beam_failure{{reason="empty_dose"}}) == 1\n',
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
            f'max by ({_BEAM}, reason) (mqi_beam_failure{{reason=~"{_INTERRUPTED}"}}) == 1\n',
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
and on ({_BEAM}) mqi_beam_state{{state="running"}} == 1
""",
            f"{_THE_BEAM} is {{{{ $value | humanize }}}} times slower than usual on {{{{ $labels.source }}}}",
            f"A batch takes {_of_beam('mqi_beam_batch_duration_seconds', 'value | humanizeDuration')}; by the number "
            f"of its particles that is {{{{ $value | humanize }}}} times the source's median of the last "
            f"{duration(parameters.usual_over_seconds)}. It is at {_BATCH}, and will take another "
            f"{_of_beam('mqi_beam_remaining_seconds', 'value | humanizeDuration')}.",
            "beam",
            parameters.slow_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamWaitingForLog",
            "warning",
            f"""\
mqi_beam_state{{state="waiting"}} == 1
and on ({_BEAM}) mqi_beam_info{{status=~"{simulating}"}}
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
            f"{_of_beam('mqi_beam_log_size_bytes', 'value | humanize1024')}B and not one line that is known: the "
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
unless on ({_BEAM}) mqi_beam_failure{{reason=~"{_INTERRUPTED}"}}
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


def source_alerts(parameters: Parameters) -> Sequence[Alert]:
    """Return the alerts about sources of logs."""
    return (
        Alert(
            "MQISourceDown",
            "critical",
            f"""\
(time() - max by ({_SOURCE}) (mqi_source_last_poll_timestamp_seconds) > {parameters.source_silent_seconds})
or max by ({_SOURCE}) (mqi_source_up) == 0
""",
            "Logs on {{ $labels.source }} cannot be read",
            "The exporter at {{ $labels.instance }} cannot read logs on {{ $labels.source }}; "
            + _beams_of_source("starting|running|stalled|expired|unreachable")
            + " there may go on, but nobody sees how. The last values are kept.",
            "source",
            parameters.source_down_for_seconds,
            parameters.source_kept_seconds,
        ),
        Alert(
            "MQISourceFolderMissing",
            "warning",
            f"max by ({_SOURCE}) (mqi_source_folders_missing) > 0\n",
            "A log folder of {{ $labels.source }} does not exist",
            _counted("folder", "folders")
            + " of log_path on {{ $labels.source }} {{ if eq $value 1.0 }}does{{ else }}do{{ end }} not exist. No log "
            "can be found there: beams wait for ever, and nobody sees how their simulations do.",
            "source",
            parameters.folder_missing_for_seconds,
            parameters.source_kept_seconds,
        ),
        Alert(
            "MQILogBlockBuffered",
            "info",
            f"""\
count by ({_SOURCE}) (
  mqi_beam_log_buffered == 1
  and on ({_BEAM}) mqi_beam_state{{state=~"starting|running"}} == 1
) > 0
""",
            "Logs on {{ $labels.source }} arrive in blocks",
            _counted("running beam", "running beams")
            + " on {{ $labels.source }} {{ if eq $value 1.0 }}writes its{{ else }}write their{{ end }} log 4096 bytes "
            "at a time: between blocks, progress is estimated and a stall is noticed late. Start the engine with "
            "stdbuf -oL.",
            "source",
            parameters.buffered_for_seconds,
            parameters.source_kept_seconds,
        ),
    )


def exporter_alerts(parameters: Parameters) -> Sequence[Alert]:
    """Return the alerts about the exporter itself."""
    job = f'job="{parameters.job}"'
    unwritten_for, errors_over = duration(parameters.mirror_for_seconds), duration(parameters.errors_over_seconds)
    logins_over = duration(parameters.failed_logins_over_seconds)
    names_over = duration(parameters.names_refused_over_seconds)
    return (
        Alert(
            "MQIExporterDown",
            "critical",
            f"up{{{job}}} == 0\n",
            "The beam exporter at {{ $labels.instance }} does not answer",
            "Prometheus cannot scrape {{ $labels.instance }}. Simulations are not affected; nobody sees their "
            "progress, and no stall or failure is reported until it is back.",
            "exporter",
            parameters.exporter_down_for_seconds,
        ),
        Alert(
            "MQIExporterAbsent",
            "critical",
            f"absent(up{{{job}}})\n",
            "Prometheus does not know a beam exporter",
            f"There is no target with the job {parameters.job}: it was removed from Prometheus' configuration or is "
            "called otherwise. No stall or failure is reported.",
            "exporter",
            parameters.exporter_absent_for_seconds,
        ),
        Alert(
            "MQIScrapeSlow",
            "warning",
            f"scrape_duration_seconds{{{job}}} > {parameters.scrape_seconds:g}\n",
            "Scrapes of {{ $labels.instance }} take {{ $value | humanizeDuration }}",
            "A scrape of {{ $labels.instance }} takes {{ $value | humanizeDuration }}; Prometheus gives up after its "
            "scrape_timeout, and then every beam looks gone. The exporter's machine is overloaded, or there are too "
            "many beams for one exporter.",
            "exporter",
            parameters.scrape_slow_for_seconds,
        ),
        Alert(
            "MQIMirrorNotWriting",
            "warning",
            f"""\
mqi_database_up == 0
or
mqi_database_pending_updates > 0
  unless on ({_EXPORTER})
    sum by ({_EXPORTER}) (increase(mqi_database_writes_total{{outcome="written"}}[{unwritten_for}])) > 0
""",
            "Progress does not reach the communicator's database",
            "The exporter at {{ $labels.instance }} has not been able to write to the beams table for "
            f"{unwritten_for}: the communicator's screens show old progress. Nothing is lost: "
            "the newest values wait, and /metrics is not affected.",
            "exporter",
            parameters.mirror_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIConfigReloadFailed",
            "warning",
            "mqi_exporter_config_last_reload_successful == 0\n",
            "{{ $labels.instance }} refused its new configuration",
            "The exporter goes on with the configuration before; its log names each mistake. At its next restart it "
            "will not start.",
            "exporter",
            parameters.reload_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQIWebConfigRefused",
            "warning",
            "mqi_exporter_web_config_up_to_date == 0\n",
            "{{ $labels.instance }} refused its new web configuration",
            "The file of TLS and passwords, or a certificate that it names, has changed and cannot be used; the ones "
            "before stay in use until the next restart, at which the exporter would not start. Its log names each "
            "mistake.",
            "exporter",
            parameters.reload_for_seconds,
            parameters.kept_seconds,
        ),
        Alert(
            "MQICertificateExpires",
            "warning",
            f"mqi_exporter_certificate_expiry_timestamp_seconds - time() < {parameters.certificate_seconds}\n",
            "The certificate of {{ $labels.instance }} is valid for {{ $value | humanizeDuration }} only",
            "When it has expired, neither Prometheus nor any browser will talk to {{ $labels.instance }}, and no stall "
            "or failure will be reported. A new file is taken without a restart.",
            "exporter",
            kept_seconds=parameters.kept_seconds,
        ),
        Alert(
            "MQIFailedLogins",
            "warning",
            f"sum by ({_EXPORTER}) (increase(mqi_exporter_failed_logins_total[{logins_over}]))"
            f" > {parameters.failed_logins}\n",
            "{{ $value | humanize }} logins at {{ $labels.instance }} failed",
            f"Within {logins_over}, {{{{ $value | humanize }}}} logins failed: somebody tries passwords, or a program "
            "has an old one. The exporter's log names the addresses; it makes them wait.",
            "exporter",
        ),
        Alert(
            "MQINamesRefused",
            "warning",
            f'sum by ({_EXPORTER}) (increase(mqi_exporter_names_requests_total{{outcome="refused"}}[{names_over}]))'
            f" > {parameters.names_refused}\n",
            "{{ $labels.instance }} refused {{ $value | humanize }} times to show the ids behind pseudonyms",
            f"Within {names_over}, somebody who has a password but may not see ids asked for them "
            "{{ $value | humanize }} times and got none. The exporter's log names user and address.",
            "exporter",
        ),
        Alert(
            "MQIExporterErrors",
            "warning",
            # increase() does not see errors that were counted before the first scrape
            f"""\
sum by ({_EXPORTER}, where) (increase(mqi_exporter_errors_total[{errors_over}])) > 0
or
sum by ({_EXPORTER}, where) (mqi_exporter_errors_total) > 0
  and on ({_EXPORTER}) (time() - process_start_time_seconds < {parameters.errors_over_seconds})
""",
            "{{ $labels.instance }} survived an unexpected error in: {{ $labels.where }}",
            "This is a defect of the exporter; its log has the cause. It goes on, but what it was doing then may be "
            "late or missing.",
            "exporter",
            kept_seconds=parameters.kept_seconds,
        ),
        Alert(
            "MQIBeamsDropped",
            "warning",
            "mqi_beams_dropped > 0\n",
            f"{_counted('beam is', 'beams are')} not exported",
            f"There are more beams than max_beams allows; {_counted('of them is', 'of them are')} on no dashboard and "
            "in no alert.",
            "exporter",
            parameters.dropped_for_seconds,
            parameters.kept_seconds,
        ),
    )


def alerts(parameters: Parameters) -> list[Alert]:
    """Return all alerts."""
    return [*beam_alerts(parameters), *source_alerts(parameters), *exporter_alerts(parameters)]


def groups(parameters: Parameters) -> dict[str, Any]:
    """Return the content of the rule file.

    A group evaluates its rules in order, but groups run at different times. So each group records the series that its
    own alerts read, before the alerts.
    """

    def alerting(of: Callable[[Parameters], Sequence[Alert]]) -> list[dict[str, Any]]:
        return [alert.rule(parameters) for alert in of(parameters)]

    return {
        "groups": [
            {
                "name": "mqi-usual",
                "interval": duration(parameters.usual_every_seconds),
                "rules": _recorded_of_sources(parameters),
            },
            {"name": "mqi-beams", "rules": [*_recorded_of_beams(parameters), *alerting(beam_alerts)]},
            {"name": "mqi-sources", "rules": alerting(source_alerts)},
            {"name": "mqi-exporters", "rules": alerting(exporter_alerts)},
        ]
    }


_HEAD = """\
# Rules for Prometheus 2.42 or later. Written by `python -m alerts`: change alerts/parameters.py or alerts/rules.py,
# or export them with your own addresses: mqi-exporter alerts export DIR --grafana.url URL --runbook.url URL
"""


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, unchanged."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text.rstrip("\n") else None)


_Dumper.add_representer(str, _text)


def rule_file(parameters: Parameters) -> str:
    """Return the text of ``mqi-rules.yml``."""
    rules = _stripped(groups(parameters))
    return _HEAD + yaml.dump(rules, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _stripped(value: Any) -> Any:
    """Remove the newline at the end of one-line expressions."""
    if isinstance(value, dict):
        return {key: _stripped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_stripped(each) for each in value]
    return value.rstrip("\n") if isinstance(value, str) and value.count("\n") == 1 else value
