"""The thresholds of all rules, by name. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

GRAFANA_URL = "http://localhost:3000"
RUNBOOK_URL = "docs/runbooks"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a site may want to change in the rules.

    ``..._for_seconds`` is how long a condition must hold before its alert fires.

    Args:
        job: label ``job`` of the exporter in Prometheus' configuration.
        simulating_statuses: statuses of a row whose simulation runs, as in ``discovery.simulating_statuses``.
        grafana_url: where the dashboards are; alerts link to it.
        runbook_url: folder or URL of the runbooks; alerts link to ``runbook_url/NAME.md``.
        source_silent_seconds: a source not polled for this long is down; its beams' silence is not a stall.
        stall_for_seconds: beyond the beam's own threshold.
        kept_seconds: an alert goes on for this long after its condition ended: longer than an exporter may be down
            before that silences it, and as long as one that has just started may need to know a beam again.
        source_kept_seconds: the same of sources; shorter, since a stall that ended with its source's trouble and is
            still silenced when it ends is never told to be over.
        stalled_long_seconds: beyond the beam's own threshold.
        mismatch_for_seconds: beyond the minute after which the exporter speaks of a mismatch.
        slow_ratio: times the usual time per particle of its source.
        usual_over_seconds: what is usual is the median over so long.
        certificate_seconds: a certificate that is valid for no longer than this must be replaced.
        failed_logins: so many in ``failed_logins_over_seconds`` are no typing errors.
        names_refused: so many in ``names_refused_over_seconds`` are not somebody who tried the page's button.
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
    """A duration as Prometheus writes it: ``90s``, ``5m``, ``2h``, ``1w``."""
    for size, unit in ((604_800, "w"), (86_400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
