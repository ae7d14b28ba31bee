"""Declares every metric of the exporter: its name, labels, help text and where its value comes from.

:mod:`exporter.metrics.collectors` collects what the metrics read at a scrape.
``python -m exporter.metrics.definitions`` prints the reference, ``docs/metrics.md``, from the tables below.

Metrics that show one field of a beam read it with ``attrgetter``: it takes half the time of a lambda, and a scrape of
10 000 beams reads 250 000 fields.

Names and labels are an interface for dashboards and alerts: they change only with a major version. Units are
Prometheus' base units: seconds, bytes, ratios 0..1, UTC epoch seconds.
"""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from exporter.beams.cases import CaseView
from exporter.beams.snapshot import (
    UNKNOWN_SOURCE,
    BeamState,
    BeamView,
    DatabaseView,
    HistogramView,
    SourceView,
    StoreSnapshot,
    Summary,
)
from exporter.logs.events import DIALECTS, FAILURE_REASONS, PHASES
from exporter.metrics.metric_types import (
    Definition,
    LabelledValue,
    counter,
    counter_by,
    gauge,
    gauge_by,
    histogram,
    info,
    one_of,
    summary,
)

_BEAM = ("case_id", "beam_id", "source")
_SOURCE = ("source",)
_OUTCOMES = (("succeeded", ""), *(("failed", reason) for reason in FAILURE_REASONS))


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """The result of the last reload of the configuration.

    Args:
        successful: whether the configuration was accepted when it was last read.
        at: when the configuration in use was read, UTC epoch seconds.
    """

    successful: bool
    at: float


@dataclass(frozen=True, slots=True)
class ProtectionView:
    """The protection of the web server: TLS, logins, and requests for real ids.

    Args:
        failed_logins: number of failed logins by reason.
        up_to_date: whether the files of the web configuration are in use as they are now; ``None`` without a web
            configuration.
        certificate_expires_at: when the server's certificate expires, UTC epoch seconds; ``None`` without TLS.
        names: number of requests for the ids behind pseudonyms, by outcome; empty without pseudonyms.
    """

    failed_logins: Mapping[str, int]
    up_to_date: bool | None = None
    certificate_expires_at: float | None = None
    names: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExporterView:
    """What the metrics about the exporter itself read.

    Args:
        version: the version of the exporter.
        reload: the last reload of the configuration.
        scrapes: number and total seconds of the scrapes so far.
        scrape_size_bytes: size of the last scrape before compression; ``None`` before the first.
        protection: the protection of the web server.
        store_up: whether the last write of the state worked; ``None`` where it is not kept.
        notifications: messages to people by name and outcome.
    """

    version: str
    reload: ReloadStatus
    scrapes: Summary
    scrape_size_bytes: int | None
    protection: ProtectionView = ProtectionView({})
    store_up: bool | None = None
    notifications: Mapping[tuple[str, str], int] = field(default_factory=dict)


def _each(values: Mapping[str, float]) -> list[LabelledValue]:
    return [((name,), value) for name, value in values.items()]


def _source_names(snapshot: StoreSnapshot, further: Iterable[str]) -> list[str]:
    """Return each configured source once, then ``unknown`` and ``further``: sources that only older state names."""
    return list(dict.fromkeys([*(source.name for source in snapshot.sources), UNKNOWN_SOURCE, *further]))


def _beam_counts(snapshot: StoreSnapshot) -> Iterator[LabelledValue]:
    counts = Counter(map(attrgetter("source", "state"), snapshot.beams))
    for source in _source_names(snapshot, (source for source, _ in counts)):
        for state in BeamState:
            yield (source, state.value), counts[source, state]


def _run_counts(snapshot: StoreSnapshot) -> Iterator[LabelledValue]:
    sources = _source_names(snapshot, (source for source, _, _ in snapshot.runs))
    every = ((source, outcome, reason) for source in sources for outcome, reason in _OUTCOMES)
    for labels in dict.fromkeys([*every, *snapshot.runs]):
        yield labels, snapshot.runs.get(labels, 0)


BEAM_METRICS: tuple[Definition[BeamView], ...] = (
    gauge(
        "mqi_beam_batches_total",
        _BEAM,
        "Batches in the current run. A gauge, although its name ends like a counter's: users asked for this name.",
        attrgetter("batches_total"),
    ),
    gauge(
        "mqi_beam_batch_current",
        _BEAM,
        "Number of the current batch, counted from 1; 0 before the first.",
        attrgetter("batch_current"),
    ),
    gauge(
        "mqi_beam_batches_completed",
        _BEAM,
        "Batches of the current run whose particles have been transported.",
        attrgetter("batches_completed"),
    ),
    gauge(
        "mqi_beam_progress_ratio",
        _BEAM,
        "Started batches over all batches of the run, 0 to 1: up to one batch ahead of what is done.",
        attrgetter("progress_ratio"),
    ),
    gauge(
        "mqi_beam_progress_estimated_ratio",
        _BEAM,
        "Finished batches and the elapsed share of the running one over all batches, 0 to 1; 1 only after success.",
        attrgetter("estimated_ratio"),
    ),
    gauge(
        "mqi_beam_remaining_seconds",
        _BEAM,
        "Estimated time until the run is done; absent while unknown.",
        attrgetter("remaining_seconds"),
    ),
    one_of(
        "mqi_beam_state",
        _BEAM,
        "state",
        f"1 for the state the beam is in, 0 for the others: {', '.join(state.value for state in BeamState)}.",
        [state.value for state in BeamState],
        attrgetter("state"),
    ),
    gauge(
        "mqi_beam_state_since_timestamp_seconds",
        _BEAM,
        "Since when the beam has been in its state.",
        attrgetter("state_since"),
    ),
    gauge(
        "mqi_beam_start_timestamp_seconds",
        _BEAM,
        "When the current run started. For a log that existed before the first poll: when it had last been written by "
        "then. Absent without a log.",
        attrgetter("started_at"),
    ),
    gauge(
        "mqi_beam_end_timestamp_seconds",
        _BEAM,
        "When the current run ended; absent until it has.",
        attrgetter("ended_at"),
    ),
    gauge(
        "mqi_beam_last_progress_timestamp_seconds",
        _BEAM,
        "When the log last showed progress: a new batch or phase.",
        attrgetter("last_progress_at"),
    ),
    gauge(
        "mqi_beam_stall_threshold_seconds",
        _BEAM,
        "The beam counts as stalled after this long without progress.",
        attrgetter("stall_threshold_seconds"),
    ),
    gauge(
        "mqi_beam_batch_duration_seconds",
        _BEAM,
        "Mean duration of the finished batches of the current run, without the first one (warm-up) as soon as two "
        "others are known; absent before the first.",
        attrgetter("batch_duration_seconds"),
    ),
    gauge(
        "mqi_beam_particles_per_batch",
        _BEAM,
        "Particle histories in a full batch; absent while unknown.",
        attrgetter("particles_per_batch"),
    ),
    gauge(
        "mqi_beam_particles",
        _BEAM,
        "Particle histories in the current run; absent while unknown.",
        attrgetter("particles"),
    ),
    gauge(
        "mqi_beam_log_size_bytes",
        _BEAM,
        "Size of the beam's log; absent without a log.",
        attrgetter("log_size_bytes"),
    ),
    gauge(
        "mqi_beam_log_modified_timestamp_seconds",
        _BEAM,
        "When the beam's log was last written; absent without a log.",
        attrgetter("log_modified_at"),
    ),
    gauge(
        "mqi_beam_output_size_bytes",
        _BEAM,
        "Size of the run's dose file when it was found; absent until then, and without output_path.",
        lambda beam: None if beam.output_file is None else beam.output_file.size_bytes,
    ),
    gauge(
        "mqi_beam_log_buffered",
        _BEAM,
        "1 if the log arrives in blocks (the engine buffers its output), else 0; absent without a log.",
        lambda beam: None if beam.log_size_bytes is None else beam.log_buffered,
    ),
    gauge(
        "mqi_log_unmatched",
        _BEAM,
        "1 if the log grows but no line of it is recognised (the engine's messages have changed), else 0.",
        attrgetter("log_unmatched"),
    ),
    gauge(
        "mqi_beam_run",
        _BEAM,
        "Number of the current run of the beam, counted from 1 since the beam was first seen.",
        attrgetter("run_number"),
    ),
    info(
        "mqi_beam_phase",
        _BEAM,
        ("phase",),
        f"1 for the phase the run is in ({', '.join(PHASES)}); only the current phase has a sample.",
        lambda beam: None if beam.phase is None else (beam.phase,),
    ),
    info(
        "mqi_beam_info",
        _BEAM,
        ("dialect", "status"),
        f"Always 1. The dialect of the log ({', '.join(DIALECTS)}) and the status of the row, empty without a row.",
        lambda beam: (beam.dialect, beam.row.status or ""),
    ),
    gauge(
        "mqi_beam_status_mismatch",
        _BEAM,
        "1 if the log and the row disagree about how the run ended, else 0.",
        attrgetter("status_mismatch"),
    ),
    info(
        "mqi_beam_failure",
        _BEAM,
        ("reason",),
        f"Always 1, only for beams that failed. The reason is one of: {', '.join(FAILURE_REASONS)}.",
        lambda beam: (beam.reason or "",) if beam.state is BeamState.FAILED else None,
    ),
)

CASE_METRICS: tuple[Definition[CaseView], ...] = (
    gauge(
        "mqi_case_progress_ratio",
        ("case_id",),
        "Mean estimated progress of all beams of the case, 0 to 1. A succeeded beam counts 1, a failed beam what it "
        "reached. While one beam of a case is open, all its beams stay; later they leave together.",
        attrgetter("progress_ratio"),
    ),
    gauge(
        "mqi_case_remaining_seconds",
        ("case_id",),
        "Seconds until the last beam of the case is expected to finish. It is rough for beams that wait or have no "
        "pace yet (from earlier runs). Absent if the end of one beam is unknown, and after the end.",
        attrgetter("remaining_seconds"),
    ),
    gauge_by(
        "mqi_case_beams",
        ("case_id",),
        ("state",),
        "Beams of the case in each state. States without beams have no sample.",
        lambda case: [((state.value,), number) for state, number in case.states.items()],
    ),
)

BATCH_METRICS: tuple[Definition[HistogramView], ...] = (
    histogram(
        "mqi_batch_duration_seconds",
        _SOURCE,
        "Durations of the batches that finished while the exporter followed their logs.",
        lambda durations: durations,
    ),
)

STORE_METRICS: tuple[Definition[StoreSnapshot], ...] = (
    gauge_by("mqi_beams", (), ("source", "state"), "Beams by source and state.", _beam_counts),
    counter_by(
        "mqi_beam_runs_total",
        (),
        ("source", "outcome", "reason"),
        "Runs that ended while the exporter ran. Outcome is succeeded (with an empty reason) or failed; every "
        "combination starts at 0.",
        _run_counts,
    ),
    gauge(
        "mqi_beams_dropped",
        (),
        "Beams that are not exported because there are more than max_beams.",
        lambda snapshot: snapshot.beams_dropped,
    ),
    counter_by(
        "mqi_discovery_refused_total",
        (),
        ("reason",),
        "Beams refused because of their ids.",
        lambda snapshot: _each(snapshot.discovery_refused),
    ),
    counter_by(
        "mqi_exporter_errors_total",
        (),
        ("where",),
        "Unexpected errors that did not stop the exporter; the exporter's log has the cause of each.",
        lambda snapshot: _each(snapshot.errors),
    ),
)

SOURCE_METRICS: tuple[Definition[SourceView], ...] = (
    gauge_by(
        "mqi_source_up",
        _SOURCE,
        ("kind",),
        "1 if the last poll of the source succeeded, else 0; 0 before the first poll.",
        lambda source: [((source.kind,), source.up is True)],
    ),
    gauge(
        "mqi_source_folders_missing",
        _SOURCE,
        "Folders of the source's log_path that do not exist; absent before the first check.",
        lambda source: None if source.folders_missing is None else len(source.folders_missing),
    ),
    gauge(
        "mqi_source_clock_offset_seconds",
        _SOURCE,
        "How far the source's file times are ahead of the exporter's clock; negative if they are behind. Learned from "
        "logs that grow, absent before that. All times of the source are corrected by it.",
        lambda source: source.clock_offset_seconds,
    ),
    counter(
        "mqi_source_reconnects_total",
        _SOURCE,
        "Number of times that the connection to the source was made again.",
        lambda source: source.reconnects,
    ),
    counter(
        "mqi_source_round_trips_total",
        _SOURCE,
        "Exchanges with the source; each takes one round trip of the network.",
        lambda source: source.round_trips,
    ),
    summary(
        "mqi_source_poll_seconds",
        _SOURCE,
        "Time that polls of the source took.",
        lambda source: source.poll_seconds,
    ),
    counter(
        "mqi_source_read_bytes_total",
        _SOURCE,
        "Bytes of logs read from the source.",
        lambda source: source.read_bytes,
    ),
    gauge(
        "mqi_source_last_poll_timestamp_seconds",
        _SOURCE,
        "When the source was last polled, before a restart too if state.file is set; absent before the first poll.",
        lambda source: source.last_poll_at,
    ),
    counter_by(
        "mqi_source_errors_total",
        _SOURCE,
        ("error",),
        "Errors of the source by kind.",
        lambda source: _each(source.errors),
    ),
    counter_by(
        "mqi_log_anomalies_total",
        _SOURCE,
        ("kind",),
        "Unexpected content in the source's logs, by kind.",
        lambda source: _each(source.anomalies),
    ),
)

DATABASE_METRICS: tuple[Definition[DatabaseView], ...] = (
    gauge(
        "mqi_database_up",
        (),
        "1 if the last use of the database succeeded, else 0.",
        lambda database: database.up,
    ),
    counter_by(
        "mqi_database_writes_total",
        (),
        ("outcome",),
        "Writes of a beam's progress, by outcome.",
        lambda database: _each(database.writes),
    ),
    summary(
        "mqi_database_write_seconds",
        (),
        "Time that writing transactions took.",
        lambda database: database.write_seconds,
    ),
    gauge(
        "mqi_database_pending_updates",
        (),
        "Beams whose progress has not been written yet.",
        lambda database: database.pending_updates,
    ),
    gauge(
        "mqi_database_last_write_timestamp_seconds",
        (),
        "When progress was last written; absent before that.",
        lambda database: database.last_write_at,
    ),
)

OWN_METRICS: tuple[Definition[ExporterView], ...] = (
    summary(
        "mqi_exporter_scrape_seconds",
        (),
        "Time that the scrapes before this one took to collect, encode and compress, without waiting and sending.",
        lambda own: own.scrapes,
    ),
    gauge(
        "mqi_exporter_scrape_size_bytes",
        (),
        "Size of the scrape before this one, uncompressed; absent in the first scrape.",
        lambda own: own.scrape_size_bytes,
    ),
    info(
        "mqi_exporter_build_info",
        (),
        ("version", "python"),
        "Always 1. Version of the exporter and of the Python that runs it.",
        lambda own: (own.version, platform.python_version()),
    ),
    gauge(
        "mqi_exporter_config_last_reload_successful",
        (),
        "1 if the configuration was accepted when it was last read, else 0 (the previous one stays in use).",
        lambda own: own.reload.successful,
    ),
    gauge(
        "mqi_exporter_config_last_reload_success_timestamp_seconds",
        (),
        "When the configuration in use was read.",
        lambda own: own.reload.at,
    ),
    gauge(
        "mqi_store_up",
        (),
        "1 where the state could be written to disk at the last attempt, else 0; absent without `state.file`.",
        lambda own: own.store_up,
    ),
    counter_by(
        "mqi_exporter_failed_logins_total",
        (),
        ("reason",),
        "Failed logins: wrong user or password (password), refused unchecked after too many failures from the address "
        "(limited), no acceptable client certificate (certificate).",
        lambda own: _each(own.protection.failed_logins),
    ),
    gauge(
        "mqi_exporter_web_config_up_to_date",
        (),
        "1 if the web configuration and its files are in use as they are now, 0 if they were refused and older ones "
        "are in use; absent without a web configuration.",
        lambda own: own.protection.up_to_date,
    ),
    gauge(
        "mqi_exporter_certificate_expiry_timestamp_seconds",
        (),
        "When the server's TLS certificate expires; absent without TLS.",
        lambda own: own.protection.certificate_expires_at,
    ),
    counter_by(
        "mqi_notifications_total",
        (),
        ("name", "outcome"),
        "Messages to people by the name of the `notifications` entry and outcome: sent, failed (given up after a day) "
        "or dropped (too many waited).",
        lambda own: list(own.notifications.items()),
    ),
    counter_by(
        "mqi_exporter_names_requests_total",
        (),
        ("outcome",),
        "Requests for the ids behind pseudonyms, by outcome (shown or refused); absent without pseudonyms.",
        lambda own: _each(own.protection.names),
    ),
)

GROUPS: tuple[tuple[str, tuple[Definition[Any], ...]], ...] = (
    ("Beams", BEAM_METRICS),
    ("Cases and counts", (*CASE_METRICS, *STORE_METRICS, *BATCH_METRICS)),
    ("Sources of logs", SOURCE_METRICS),
    ("Database", DATABASE_METRICS),
    ("The exporter itself", OWN_METRICS),
)
"""All metrics under the headings of the reference."""

_METRIC_OF_NAME = {name: metric.name for _, table in GROUPS for metric in table for name in metric.names}


def metric_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of our metrics that these names of metrics or samples select; unknown names select none."""
    return frozenset(_METRIC_OF_NAME[name] for name in names if name in _METRIC_OF_NAME)


_REFERENCE_HEAD = """\
# Metrics

<!-- Printed by `python -m exporter.metrics.definitions`: change that file, then run `make docs`. -->

All metrics of `/metrics`. Times are UTC epoch seconds, durations seconds, sizes bytes, ratios 0 to 1. An unknown value
has no sample; it is never shown as 0. Names and labels change only with a major version.

The series of a beam have the labels `case_id`, `beam_id` and `source`; `source` is `unknown` until a log has been
found. With `privacy.identifiers: pseudonym`, both ids are pseudonyms. Bytes of an id that are not
UTF-8 are shown as escapes.

The Prometheus client library for Python adds its own `process_*` and `python_*` metrics.

`/metrics?name[]=mqi_beam_state&name[]=mqi_beam_info` shows only the named metrics (at most 100 names) and takes less
time. Use it by hand (`curl -g`), or for a second job of Prometheus with a shorter `scrape_interval` and
`params: {"name[]": [mqi_beam_batch_current]}`. The name of a sample (`mqi_batch_duration_seconds_bucket`) selects its
whole metric; an unknown name selects nothing. `mqi_exporter_scrape_*` measure only scrapes of all metrics.
"""


def reference() -> str:
    """Return the reference of all metrics as Markdown."""
    lines = [_REFERENCE_HEAD]
    for heading, definitions in GROUPS:
        lines += [f"## {heading}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in definitions:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help_text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(reference())
