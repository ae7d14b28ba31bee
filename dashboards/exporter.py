"""MQI exporter: for people who run the exporter."""

from __future__ import annotations

from grafanalib import core as grafana

from dashboards.model import dashboard, exporters, failures_and_stalls, rows, variable
from dashboards.panels import (
    GREEN,
    GREY,
    ORANGE,
    RED,
    Column,
    Json,
    Query,
    lines,
    stat,
    steps,
    table,
)
from dashboards.queries import EXPORTER, SOURCE, mean_seconds

_UP = [{"type": "value", "options": {"0": {"text": "down", "color": RED}, "1": {"text": "up", "color": GREEN}}}]
_REFUSED = [
    {"type": "value", "options": {"0": {"text": "refused", "color": RED}, "1": {"text": "accepted", "color": GREEN}}}
]


def _rate(metric: str, by: str, selector: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _counted(title: str, about: str, *queries: Query, none: str | None) -> grafana.TimeSeries:
    """Return a panel for whole numbers, most of which are 0."""
    return lines(title, about, *queries, unit="short", soft_maximum=1, decimals=0, none=none)


def _hourly(metric: str, by: str, selector: str) -> str:
    return f"sum by ({by}) (increase({metric}{{{selector}}}[1h]))"


def _daily(metric: str) -> str:
    """Return the daily increase by source; 0 for a source without the metric."""
    happened = f"sum by (source) (increase({metric}{{{SOURCE}}}[1d]))"
    return f"{happened} or 0 * sum by (source) (mqi_source_up{{{SOURCE}}})"


_NOW = [
    (
        stat(
            "Does it answer?",
            "Whether the last scrape of every chosen exporter succeeded.",
            Query(f"min(up{{{EXPORTER}}})"),
            unit="none",
            mappings=_UP,
        ),
        4,
    ),
    (
        stat(
            "Sources down",
            "Sources of logs that could not be read when they were last looked at.",
            Query(f"count(mqi_source_up{{{SOURCE}}} == 0) or vector(0)"),
            thresholds=((None, GREEN), (1, RED)),
        ),
        4,
    ),
    (
        stat(
            "Updates that wait",
            "Beams whose progress has not been written yet. A few for a moment are normal; many for long are not.",
            Query(f"sum(mqi_database_pending_updates{{{EXPORTER}}})"),
            thresholds=((None, GREEN), (20, ORANGE)),
            none="No database",
        ),
        4,
    ),
    (
        stat(
            "Errors in a day",
            "Errors that the exporter survived and logged with their cause. Each is a defect.",
            Query(f"sum(increase(mqi_exporter_errors_total{{{EXPORTER}}}[1d]))"),
            decimals=0,
            thresholds=((None, GREEN), (1, ORANGE)),
        ),
        4,
    ),
    (
        stat(
            "Configuration is",
            "The last attempt to read it. A refused one leaves the one before in use; the log names each mistake.",
            Query(f"min(mqi_exporter_config_last_reload_successful{{{EXPORTER}}})"),
            unit="none",
            mappings=_REFUSED,
        ),
        4,
    ),
    (
        stat(
            "Version is",
            "Version of the exporter.",
            Query(f"count by (version) (mqi_exporter_build_info{{{EXPORTER}}})"),
            unit="none",
            text_of="version",
        ),
        4,
    ),
]

_SOURCES = table(
    "How is each source of logs?",
    "Whether it can be read, when it last was, and what went wrong with it within a day.",
    [
        Column("Source", "source", 160),
        Column("Kind", "kind", 80),
        Column(
            "State",
            Query(f"max by (source, kind) (mqi_source_up{{{SOURCE}}})"),
            80,
            properties=(("mappings", _UP), ("custom.cellOptions", {"type": "color-text"})),
        ),
        Column(
            "Missing folders",
            Query(f"max by (source) (mqi_source_folders_missing{{{SOURCE}}})"),
            130,
            "none",
            0,
            properties=(
                ("thresholds", {"mode": "absolute", "steps": steps((None, GREEN), (1, ORANGE))}),
                ("custom.cellOptions", {"type": "color-text"}),
            ),
        ),
        Column(
            "Last read",
            Query(f"time() - max by (source) (mqi_source_last_poll_timestamp_seconds{{{SOURCE}}})"),
            110,
            "s",
            1,
        ),
        Column(
            "Beams",
            Query(
                "sum by (source)"
                f' (mqi_beams{{{SOURCE}, source!="unknown", state=~"starting|running|stalled|expired|unreachable"}})'
            ),
            80,
            "none",
        ),
        Column(
            "Reconnects",
            Query(_daily("mqi_source_reconnects_total")),
            110,
            "none",
            0,
        ),
        Column(
            "Errors",
            Query(_daily("mqi_source_errors_total")),
            80,
            "none",
            0,
        ),
        Column(
            "What did not fit",
            Query(_daily("mqi_log_anomalies_total")),
            0,
            "none",
            0,
        ),
    ],
    sort_by="Source",
)

_BEAMS = lines(
    "How many beams does it follow?",
    "Beams by state, and beams that are not exported because there are more than max_beams.",
    Query(f"sum by (state) (mqi_beams{{{SOURCE}}})", "{{state}}"),
    Query(f"sum(mqi_beams_dropped{{{EXPORTER}}})", "not exported"),
    unit="short",
    soft_maximum=1,
    decimals=0,
    legend_right=True,
)

_POLL = lines(
    "How long does a look at all logs take?",
    "Mean time of a poll. One that takes longer than poll_interval_seconds delays what is shown.",
    Query(mean_seconds("mqi_source_poll_seconds", "source", SOURCE), "{{source}}"),
    unit="s",
)
_TRIPS = lines(
    "How many round trips does it need?",
    "Exchanges with each source per second; over SSH each costs the network's round trip time.",
    Query(_rate("mqi_source_round_trips_total", "source", SOURCE), "{{source}}"),
    unit="cps",
)
_BYTES = lines(
    "How much does it read?",
    "Bytes of logs read per second, by source.",
    Query(_rate("mqi_source_read_bytes_total", "source", SOURCE), "{{source}}"),
    unit="binBps",
)
_RECONNECTS = _counted(
    "Which connections broke?",
    "Reconnects and errors within the hour before, by source and kind of error.",
    Query(_hourly("mqi_source_reconnects_total", "source", SOURCE), "{{source}} reconnected"),
    Query(_hourly("mqi_source_errors_total", "source, error", SOURCE), "{{source}}: {{error}}"),
    none="None",
)
_ANOMALIES = _counted(
    "What in the logs did not fit?",
    "Anomalies within the hour before, by source and kind. Empty is good.",
    Query(_hourly("mqi_log_anomalies_total", "source, kind", SOURCE), "{{source}}: {{kind}}"),
    none="Nothing",
)
_UNMATCHED = _counted(
    "Whose log is not understood?",
    "Logs that grow without a line that is known, and beams whose row and log disagree about the end.",
    Query(f"sum by (source) (mqi_log_unmatched{{{SOURCE}}})", "{{source}}: log not understood"),
    Query(f"sum by (source) (mqi_beam_status_mismatch{{{SOURCE}}})", "{{source}}: row and log disagree"),
    none="No beam is followed",
)
_RUNS = lines(
    "How did runs end?",
    "Runs that ended within the hour before, by source and outcome; failures by reason.",
    Query(
        f'sum by (source) (increase(mqi_beam_runs_total{{{SOURCE}, outcome="succeeded"}}[1h]))', "{{source}} succeeded"
    ),
    Query(
        f'sum by (source, reason) (increase(mqi_beam_runs_total{{{SOURCE}, outcome="failed"}}[1h])) > 0',
        "{{source}} failed: {{reason}}",
    ),
    unit="short",
    soft_maximum=1,
    decimals=1,
)

_WRITES = lines(
    "What becomes of updates of the database?",
    "Updates of rows per second: written, refused by the row's own state, or failed and tried again.",
    Query(_rate("mqi_database_writes_total", "outcome", EXPORTER), "{{outcome}}"),
    unit="cps",
    none="No database",
    colors={"written": GREEN, "refused": GREY, "failed": RED},
)
_LATENCY = lines(
    "How long does it hold the database's lock?",
    "Mean time of a writing transaction. The communicator waits for it, so it must stay short.",
    Query(mean_seconds("mqi_database_write_seconds", "instance", EXPORTER), "{{instance}}"),
    unit="s",
    none="No database",
)
_PENDING = _counted(
    "Does progress reach the database?",
    "Beams whose progress waits to be written. It should fall back to nothing again and again.",
    Query(f"sum by (instance) (mqi_database_pending_updates{{{EXPORTER}}})", "waiting"),
    none="No database",
)

_SCRAPE = lines(
    "How long does a scrape take?",
    "As Prometheus sees it, and the part that the exporter needs to collect, encode and compress.",
    Query(f"max by (instance) (scrape_duration_seconds{{{EXPORTER}}})", "{{instance}} as scraped"),
    Query(mean_seconds("mqi_exporter_scrape_seconds", "instance", EXPORTER), "{{instance}} rendering"),
    unit="s",
)
_SIZE = lines(
    "How large is a scrape?",
    "Uncompressed size of the last scrape.",
    Query(f"max by (instance) (mqi_exporter_scrape_size_bytes{{{EXPORTER}}})", "{{instance}}"),
    unit="bytes",
)
_CPU = lines(
    "How much of the simulation's machine does it use?",
    "Processor time, as a share of one core.",
    Query(_rate("process_cpu_seconds_total", "instance", EXPORTER), "{{instance}}"),
    unit="percentunit",
)
_MEMORY = lines(
    "How much memory does it use?",
    "Resident memory of the process.",
    Query(f"max by (instance) (process_resident_memory_bytes{{{EXPORTER}}})", "{{instance}}"),
    unit="bytes",
)
_FILES = lines(
    "Does it leak files or connections?",
    "Open file descriptors: constant, apart from logs being read.",
    Query(f"max by (instance) (process_open_fds{{{EXPORTER}}})", "{{instance}}"),
    unit="short",
    soft_maximum=1,
    decimals=0,
)
_RELOADS = lines(
    "When was the configuration read?",
    "Time since the configuration in use was read; it falls to zero at each reload and restart.",
    Query(
        f"time() - max by (instance) (mqi_exporter_config_last_reload_success_timestamp_seconds{{{EXPORTER}}})",
        "{{instance}}",
    ),
    unit="s",
)
_LOGINS = _counted(
    "Who was refused at the door?",
    "Failed logins within the hour before, by reason. A few are typing errors; many are somebody who guesses.",
    Query(_hourly("mqi_exporter_failed_logins_total", "instance, reason", EXPORTER), "{{instance}}: {{reason}}"),
    none="No password or certificate is asked for",
)
_NAMES = _counted(
    "Who asked for ids behind pseudonyms?",
    "Times within the hour before that ids were shown or refused. User and address of each are in the exporter's log.",
    Query(_hourly("mqi_exporter_names_requests_total", "instance, outcome", EXPORTER), "{{instance}}: {{outcome}}"),
    none="No pseudonyms",
)
_CERTIFICATE = lines(
    "How long is its certificate valid?",
    "Time until the server's certificate expires; a replaced one comes into use without a restart.",
    Query(
        f"min by (instance) (mqi_exporter_certificate_expiry_timestamp_seconds{{{EXPORTER}}}) - time()", "{{instance}}"
    ),
    unit="s",
    none="No TLS",
)
_WEB_CONFIG = _counted(
    "Is the web configuration in use?",
    "1 where TLS and passwords are those of the files as they are now; 0 where changed files were refused.",
    Query(f"min by (instance) (mqi_exporter_web_config_up_to_date{{{EXPORTER}}})", "{{instance}}"),
    none="No web configuration",
)


def build() -> Json:
    """Return the dashboard."""
    return dashboard(
        "mqi-exporter",
        "MQI exporter",
        "Whether the exporter works, what it costs, and what it could not read or write.",
        variables=[
            *exporters(hidden=False),
            variable("source", "Source", f"label_values(mqi_beams{{{EXPORTER}}}, source)"),
        ],
        annotations=failures_and_stalls(SOURCE),
        panels=rows(
            (None, 5, _NOW),
            (None, 7, [(_SOURCES, 24)]),
            ("Logs", 8, [(_POLL, 8), (_TRIPS, 8), (_BYTES, 8)]),
            (None, 8, [(_RECONNECTS, 8), (_ANOMALIES, 8), (_UNMATCHED, 8)]),
            (None, 8, [(_BEAMS, 12), (_RUNS, 12)]),
            ("Database", 8, [(_WRITES, 8), (_LATENCY, 8), (_PENDING, 8)]),
            ("Web server", 8, [(_LOGINS, 12), (_NAMES, 12)]),
            (None, 8, [(_CERTIFICATE, 12), (_WEB_CONFIG, 12)]),
            ("Process", 8, [(_SCRAPE, 8), (_SIZE, 8), (_CPU, 8)]),
            (None, 8, [(_MEMORY, 8), (_FILES, 8), (_RELOADS, 8)]),
        ),
        refresh="30s",
    )
