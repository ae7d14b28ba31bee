"""Every metric there is: the only place that knows a metric's name.

Each is declared once, in the tables below: name, labels, meaning and where its value comes from. What fills them at a
scrape is in :mod:`exporter.metrics.collectors`; ``python -m exporter.metrics.definitions`` prints the reference,
``docs/metrics.md``, from the same tables.

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
    """How reading the configuration went.

    Args:
        successful: whether the last attempt to read it succeeded.
        at: when the configuration now in use was read, UTC epoch seconds; a failed attempt does not move it.
    """

    successful: bool
    at: float


@dataclass(frozen=True, slots=True)
class ProtectionView:
    """How the web server is protected.

    Args:
        failed_logins: by reason.
        up_to_date: whether the web configuration's files as they are now are in use; ``None`` where there is none.
        certificate_expires_at: of the server's certificate, UTC epoch seconds; ``None`` without TLS.
        names: how often the ids behind pseudonyms were asked for, by outcome; nothing where ids are shown as they are.
    """

    failed_logins: Mapping[str, int]
    up_to_date: bool | None = None
    certificate_expires_at: float | None = None
    names: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExporterView:
    """What the exporter says of itself: its version, its configuration and its own scrapes so far."""

    version: str
    reload: ReloadStatus
    scrapes: Summary
    scrape_size_bytes: int | None
    protection: ProtectionView = ProtectionView({})


def _each(values: Mapping[str, float]) -> list[LabelledValue]:
    return [((name,), value) for name, value in values.items()]


def _source_names(snapshot: StoreSnapshot, further: Iterable[str]) -> list[str]:
    """Every source now configured, ``unknown``, and those that only older state still names, each once."""
    return list(dict.fromkeys([*(source.name for source in snapshot.sources), UNKNOWN_SOURCE, *further]))


def _beam_counts(snapshot: StoreSnapshot) -> Iterator[LabelledValue]:
    counts = Counter((beam.source, beam.state) for beam in snapshot.beams)
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
        "Batches in the current run. A gauge: the users of this exporter asked for a name that reads like a counter's.",
        attrgetter("batches_total"),
    ),
    gauge(
        "mqi_beam_batch_current",
        _BEAM,
        "Batch the run is in, counted from 1; 0 before the first.",
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
        "When the beam came into its state.",
        attrgetter("state_since"),
    ),
    gauge(
        "mqi_beam_start_timestamp_seconds",
        _BEAM,
        "When the current run started; where its log stood there at the first look, when that was last written then. "
        "Absent without a log.",
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
        "When the last batch or phase line arrived.",
        attrgetter("last_progress_at"),
    ),
    gauge(
        "mqi_beam_stall_threshold_seconds",
        _BEAM,
        "No progress for longer than this is a stall.",
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
        "Size of the beam's log; absent while there is none.",
        attrgetter("log_size_bytes"),
    ),
    gauge(
        "mqi_beam_log_modified_timestamp_seconds",
        _BEAM,
        "When the beam's log was last written; absent while there is none.",
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
        "1 where the log arrives in blocks and stands still between them, else 0; absent while there is none.",
        lambda beam: None if beam.log_size_bytes is None else beam.log_buffered,
    ),
    gauge(
        "mqi_log_unmatched",
        _BEAM,
        "1 where the log grows and nothing in it is recognised (the engine's wording has changed), else 0.",
        attrgetter("log_unmatched"),
    ),
    gauge(
        "mqi_beam_run",
        _BEAM,
        "Which run of this beam it is, counted from 1 since the beam was first seen.",
        attrgetter("run_number"),
    ),
    info(
        "mqi_beam_phase",
        _BEAM,
        ("phase",),
        f"1 for the phase the run is in ({', '.join(PHASES)}); only the current one is there.",
        lambda beam: None if beam.phase is None else (beam.phase,),
    ),
    info(
        "mqi_beam_info",
        _BEAM,
        ("dialect", "status"),
        f"Always 1. The log's dialect ({', '.join(DIALECTS)}) and the row's status, empty where there is no row.",
        lambda beam: (beam.dialect, beam.row.status or ""),
    ),
    gauge(
        "mqi_beam_status_mismatch",
        _BEAM,
        "1 where the log and the row disagree about how the run ended, else 0.",
        attrgetter("status_mismatch"),
    ),
    info(
        "mqi_beam_failure",
        _BEAM,
        ("reason",),
        f"Always 1, there only for beams that failed. Why: {', '.join(FAILURE_REASONS)}.",
        lambda beam: (beam.reason or "",) if beam.state is BeamState.FAILED else None,
    ),
)

CASE_METRICS: tuple[Definition[float], ...] = (
    gauge(
        "mqi_case_progress_ratio",
        ("case_id",),
        "Mean estimated progress of all beams of the case, 0 to 1. A beam that succeeded counts 1, one that failed "
        "what it reached. All beams of a case stay while one of them is open, and leave together.",
        lambda ratio: ratio,
    ),
)

BATCH_METRICS: tuple[Definition[HistogramView], ...] = (
    histogram(
        "mqi_batch_duration_seconds",
        _SOURCE,
        "Duration of every batch that was seen to finish while its log was followed.",
        lambda durations: durations,
    ),
)

STORE_METRICS: tuple[Definition[StoreSnapshot], ...] = (
    gauge_by("mqi_beams", (), ("source", "state"), "Beams by source and state.", _beam_counts),
    counter_by(
        "mqi_beam_runs_total",
        (),
        ("source", "outcome", "reason"),
        "Runs seen to end. Outcome succeeded (reason empty) or failed; every combination is there from 0 on.",
        _run_counts,
    ),
    gauge(
        "mqi_beams_dropped",
        (),
        "Beams not exported because there are more than max_beams.",
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
        "Unexpected errors that the exporter survived; each has a log line with its cause.",
        lambda snapshot: _each(snapshot.errors),
    ),
)

SOURCE_METRICS: tuple[Definition[SourceView], ...] = (
    gauge_by(
        "mqi_source_up",
        _SOURCE,
        ("kind",),
        "1 where the last poll of the source succeeded, else 0; 0 before the first.",
        lambda source: [((source.kind,), source.up is True)],
    ),
    gauge(
        "mqi_source_folders_missing",
        _SOURCE,
        "Folders of the source's log_path that do not exist; absent before they were looked for.",
        lambda source: None if source.folders_missing is None else len(source.folders_missing),
    ),
    gauge(
        "mqi_source_clock_offset_seconds",
        _SOURCE,
        "How far the clock that dates the source's logs is ahead of the exporter's, negative where it is behind. It is "
        "learned from logs that are seen to grow, absent before that, and all times of the source are corrected by it.",
        lambda source: source.clock_offset_seconds,
    ),
    counter(
        "mqi_source_reconnects_total",
        _SOURCE,
        "Times the source had to be connected to again.",
        lambda source: source.reconnects,
    ),
    counter(
        "mqi_source_round_trips_total",
        _SOURCE,
        "Exchanges with the source, each of which costs the network's round trip time.",
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
        "When the source was last polled, by an earlier process (state.file) if not yet by this; absent where never.",
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
        "What did not fit in the source's logs, by kind.",
        lambda source: _each(source.anomalies),
    ),
)

DATABASE_METRICS: tuple[Definition[DatabaseView], ...] = (
    gauge(
        "mqi_database_up",
        (),
        "1 where the database could be used when it was last tried, else 0.",
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
        "Beams whose progress waits to be written.",
        lambda database: database.pending_updates,
    ),
    gauge(
        "mqi_database_last_write_timestamp_seconds",
        (),
        "When progress was last written; absent before the first time.",
        lambda database: database.last_write_at,
    ),
)

OWN_METRICS: tuple[Definition[ExporterView], ...] = (
    summary(
        "mqi_exporter_scrape_seconds",
        (),
        "Time that earlier scrapes took to collect, encode and compress, without waiting and sending.",
        lambda own: own.scrapes,
    ),
    gauge(
        "mqi_exporter_scrape_size_bytes",
        (),
        "Size of the scrape before this one, uncompressed; absent in the first.",
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
        "1 where the configuration was accepted when it was last read, else 0 (the one before it stays in use).",
        lambda own: own.reload.successful,
    ),
    gauge(
        "mqi_exporter_config_last_reload_success_timestamp_seconds",
        (),
        "When the configuration in use was read.",
        lambda own: own.reload.at,
    ),
    counter_by(
        "mqi_exporter_failed_logins_total",
        (),
        ("reason",),
        "Logins that failed: wrong user or password (password), not looked at since the address was wrong too often "
        "(limited), no acceptable client certificate (certificate).",
        lambda own: _each(own.protection.failed_logins),
    ),
    gauge(
        "mqi_exporter_web_config_up_to_date",
        (),
        "1 where the web configuration and its files are in use as they are now, 0 where they were refused and older "
        "ones are; absent without a web configuration.",
        lambda own: own.protection.up_to_date,
    ),
    gauge(
        "mqi_exporter_certificate_expiry_timestamp_seconds",
        (),
        "When the server's TLS certificate expires; absent without TLS.",
        lambda own: own.protection.certificate_expires_at,
    ),
    counter_by(
        "mqi_exporter_names_requests_total",
        (),
        ("outcome",),
        "Times that somebody asked for the ids behind pseudonyms: they were shown, or refused; absent without "
        "pseudonyms.",
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
"""Every table, under the heading it has in the reference."""

_MEANT = {name: metric.name for _, table in GROUPS for metric in table for name in metric.names}


def metric_names(names: Iterable[str]) -> frozenset[str]:
    """Which metrics of ours are meant by these names, of metrics or of samples; unknown ones mean none."""
    return frozenset(_MEANT[name] for name in names if name in _MEANT)


_REFERENCE_HEAD = """\
# Metrics

<!-- Printed by `python -m exporter.metrics.definitions`: change that file, then run `make docs`. -->

Everything that `/metrics` shows. Times are UTC epoch seconds, durations seconds, sizes bytes, ratios 0 to 1. What is
not known has no sample; 0 is never written for it. Names and labels change only with a major version.

A beam's series carry `case_id`, `beam_id` and `source`; `source` is `unknown` until a log has been found. With
`privacy.identifiers: pseudonym`, both ids are pseudonyms. Bytes of an id that are not UTF-8 are shown as escapes.

Beside these, there are `process_*` and `python_*`, as in every program that uses Prometheus' Python client.

`/metrics?name[]=mqi_beam_state&name[]=mqi_beam_info` shows the named metrics alone (at most 100 names), in a part of
the time: for a look by hand (`curl -g`), or a second job of Prometheus with a shorter `scrape_interval` and
`params: {"name[]": [mqi_beam_batch_current]}`. The name of a sample (`mqi_batch_duration_seconds_bucket`) means its
whole metric; a name that there is not shows nothing. `mqi_exporter_scrape_*` tell of scrapes of everything.
"""


def reference() -> str:
    """The reference of all metrics, as Markdown."""
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
