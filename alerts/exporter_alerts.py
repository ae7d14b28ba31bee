"""Alerts about sources of logs and about the exporter itself."""

from __future__ import annotations

from collections.abc import Sequence

from alerts.alert import BEAM, EXPORTER, Alert, beams_of_source, with_noun
from alerts.parameters import Parameters, duration


def source_alerts(parameters: Parameters) -> Sequence[Alert]:
    """Return the alerts about sources of logs."""
    return (
        Alert(
            "MQISourceDown",
            "critical",
            f"""\
(time() - mqi_source_last_poll_timestamp_seconds > {parameters.source_silent_seconds})
or max without (kind) (mqi_source_up) == 0
""",
            "Logs on {{ $labels.source }} cannot be read",
            "The exporter at {{ $labels.instance }} cannot read logs on {{ $labels.source }}; "
            + beams_of_source("starting|running|stalled|expired|unreachable")
            + " there may go on, but nobody sees how. The last values are kept.",
            "source",
            parameters.source_down_for_seconds,
            parameters.source_kept_seconds,
        ),
        Alert(
            "MQISourceFolderMissing",
            "warning",
            "mqi_source_folders_missing > 0\n",
            "A log folder of {{ $labels.source }} does not exist",
            with_noun("folder", "folders")
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
count without (case_id, beam_id) (
  mqi_beam_log_buffered == 1
  and on ({BEAM}) mqi_beam_state{{state=~"starting|running"}} == 1
) > 0
""",
            "Logs on {{ $labels.source }} arrive in blocks",
            with_noun("running beam", "running beams")
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
  unless on ({EXPORTER})
    sum without (outcome) (increase(mqi_database_writes_total{{outcome="written"}}[{unwritten_for}])) > 0
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
            f"sum without (reason) (increase(mqi_exporter_failed_logins_total[{logins_over}]))"
            f" > {parameters.failed_logins}\n",
            "{{ $value | humanize }} logins at {{ $labels.instance }} failed",
            f"Within {logins_over}, {{{{ $value | humanize }}}} logins failed: somebody tries passwords, or a program "
            "has an old one. The exporter's log names the addresses; it makes them wait.",
            "exporter",
        ),
        Alert(
            "MQINamesRefused",
            "warning",
            f'sum without (outcome) (increase(mqi_exporter_names_requests_total{{outcome="refused"}}[{names_over}]))'
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
increase(mqi_exporter_errors_total[{errors_over}]) > 0
or
mqi_exporter_errors_total > 0
  and on ({EXPORTER}) (time() - process_start_time_seconds < {parameters.errors_over_seconds})
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
            f"{with_noun('beam is', 'beams are')} not exported",
            f"There are more beams than max_beams allows; {with_noun('of them is', 'of them are')} on no dashboard and "
            "in no alert.",
            "exporter",
            parameters.dropped_for_seconds,
            parameters.kept_seconds,
        ),
    )
