"""The thresholds of all rules, by name. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

GRAFANA_URL = "http://localhost:3000"
RUNBOOK_URL = "docs/runbooks"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The thresholds that a site can change.

    Parameters that end in ``_for_seconds`` say how long a condition must hold before its alert fires.

    Args:
        job: the label ``job`` of the exporter in the configuration of Prometheus.
        simulating_statuses: the statuses of rows whose simulation runs, as in ``discovery.simulating_statuses``.
        grafana_url: the URL of Grafana; alerts link to dashboards there.
        runbook_url: folder or URL of the runbooks; alerts link to ``runbook_url/NAME.md``.
        source_silent_seconds: a source that was not polled for this long is down, and its beams do not count as
            stalled.
        stall_for_seconds: time after the beam's own stall threshold.
        kept_seconds: an alert keeps firing for this long after its condition ended. This is longer than an exporter can
            be down before MQIExporterDown inhibits the alert, and long enough for a restarted exporter to find its
            beams.
        source_kept_seconds: the same for alerts about sources. It is shorter than ``kept_seconds``: a stall that ends
            together with its source's failure must outlive the inhibition, or nobody gets its "resolved" message.
        stalled_long_seconds: time after the beam's own stall threshold until a stall is critical.
        mismatch_for_seconds: time after the minute that the exporter itself waits before it reports a mismatch.
        slow_ratio: a beam is slow if it takes this many times the usual time per particle of its source.
        usual_over_seconds: the usual time per particle is the median over this period.
        certificate_seconds: a certificate that expires sooner than this must be replaced.
        failed_logins: more failed logins than this within ``failed_logins_over_seconds`` are suspicious.
        names_refused: more refused requests for ids than this within ``names_refused_over_seconds`` are suspicious.
        scrape_seconds: a scrape that takes longer is slow; Prometheus gives up after 10 s by default.
    """

    job: str = "mqi-beam-exporter"
    simulating_statuses: tuple[str, ...] = ("hpc_running", "simulation_running")
    grafana_url: str = GRAFANA_URL
    runbook_url: str = RUNBOOK_URL

    kept_seconds: int = 180
    source_kept_seconds: int = 150
    source_silent_seconds: int = 60
    stall_for_seconds: int = 60
    stalled_long_seconds: int = 1800
    failed_for_seconds: int = 0
    interrupted_for_seconds: int = 900
    slow_ratio: float = 3
    slow_for_seconds: int = 300
    usual_over_seconds: int = 7 * 86400
    usual_every_seconds: int = 60
    waiting_for_seconds: int = 600
    unmatched_for_seconds: int = 60
    buffered_for_seconds: int = 300
    mismatch_for_seconds: int = 300
    source_down_for_seconds: int = 60
    folder_missing_for_seconds: int = 300
    exporter_down_for_seconds: int = 120
    exporter_absent_for_seconds: int = 300
    scrape_seconds: float = 5
    scrape_slow_for_seconds: int = 600
    mirror_for_seconds: int = 300
    reload_for_seconds: int = 60
    errors_over_seconds: int = 900
    dropped_for_seconds: int = 60
    certificate_seconds: int = 14 * 86400
    failed_logins: int = 20
    failed_logins_over_seconds: int = 900
    names_refused: int = 5
    names_refused_over_seconds: int = 3600


def duration(seconds: int) -> str:
    """Return a duration as Prometheus writes it: ``90s``, ``5m``, ``2h``, ``1w``."""
    for size, unit in ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
