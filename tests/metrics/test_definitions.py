"""Names, types and labels of all metrics, on which dashboards and alerts rely, and the generated reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.collectors import ExporterCollector, ScrapeMeter, StoreCollector
from exporter.metrics.definitions import GROUPS, ProtectionView, ReloadStatus
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from tests.web.store_snapshots import NOW, make_full_snapshot

REPOSITORY = Path(__file__).parents[2]
BEAM = ("case_id", "beam_id", "source")

INTERFACE = {
    "mqi_beam_batches_total": ("gauge", BEAM),
    "mqi_beam_batch_current": ("gauge", BEAM),
    "mqi_beam_batches_completed": ("gauge", BEAM),
    "mqi_beam_progress_ratio": ("gauge", BEAM),
    "mqi_beam_progress_estimated_ratio": ("gauge", BEAM),
    "mqi_beam_remaining_seconds": ("gauge", BEAM),
    "mqi_beam_state": ("gauge", (*BEAM, "state")),
    "mqi_beam_start_timestamp_seconds": ("gauge", BEAM),
    "mqi_beam_end_timestamp_seconds": ("gauge", BEAM),
    "mqi_beam_last_progress_timestamp_seconds": ("gauge", BEAM),
    "mqi_beam_stall_threshold_seconds": ("gauge", BEAM),
    "mqi_beam_batch_duration_seconds": ("gauge", BEAM),
    "mqi_beam_particles_per_batch": ("gauge", BEAM),
    "mqi_beam_particles": ("gauge", BEAM),
    "mqi_beam_log_size_bytes": ("gauge", BEAM),
    "mqi_beam_output_size_bytes": ("gauge", BEAM),
    "mqi_beam_log_modified_timestamp_seconds": ("gauge", BEAM),
    "mqi_beam_run": ("gauge", BEAM),
    "mqi_beam_state_since_timestamp_seconds": ("gauge", BEAM),
    "mqi_beam_phase": ("gauge", (*BEAM, "phase")),
    "mqi_beam_info": ("gauge", (*BEAM, "dialect", "status")),
    "mqi_beam_log_buffered": ("gauge", BEAM),
    "mqi_beam_status_mismatch": ("gauge", BEAM),
    "mqi_beam_failure": ("gauge", (*BEAM, "reason")),
    "mqi_case_progress_ratio": ("gauge", ("case_id",)),
    "mqi_case_remaining_seconds": ("gauge", ("case_id",)),
    "mqi_case_beams": ("gauge", ("case_id", "state")),
    "mqi_beams": ("gauge", ("source", "state")),
    "mqi_beam_runs_total": ("counter", ("source", "outcome", "reason")),
    "mqi_batch_duration_seconds": ("histogram", ("source",)),
    "mqi_source_up": ("gauge", ("source", "kind")),
    "mqi_source_folders_missing": ("gauge", ("source",)),
    "mqi_source_clock_offset_seconds": ("gauge", ("source",)),
    "mqi_source_reconnects_total": ("counter", ("source",)),
    "mqi_source_round_trips_total": ("counter", ("source",)),
    "mqi_source_poll_seconds": ("summary", ("source",)),
    "mqi_source_read_bytes_total": ("counter", ("source",)),
    "mqi_source_last_poll_timestamp_seconds": ("gauge", ("source",)),
    "mqi_source_errors_total": ("counter", ("source", "error")),
    "mqi_log_anomalies_total": ("counter", ("source", "kind")),
    "mqi_log_unmatched": ("gauge", BEAM),
    "mqi_database_up": ("gauge", ()),
    "mqi_database_writes_total": ("counter", ("outcome",)),
    "mqi_database_write_seconds": ("summary", ()),
    "mqi_database_pending_updates": ("gauge", ()),
    "mqi_database_last_write_timestamp_seconds": ("gauge", ()),
    "mqi_beams_dropped": ("gauge", ()),
    "mqi_discovery_refused_total": ("counter", ("reason",)),
    "mqi_exporter_scrape_seconds": ("summary", ()),
    "mqi_exporter_scrape_size_bytes": ("gauge", ()),
    "mqi_exporter_errors_total": ("counter", ("where",)),
    "mqi_exporter_build_info": ("gauge", ("version", "python")),
    "mqi_exporter_config_last_reload_successful": ("gauge", ()),
    "mqi_exporter_config_last_reload_success_timestamp_seconds": ("gauge", ()),
    "mqi_exporter_failed_logins_total": ("counter", ("reason",)),
    "mqi_exporter_web_config_up_to_date": ("gauge", ()),
    "mqi_exporter_certificate_expiry_timestamp_seconds": ("gauge", ()),
    "mqi_exporter_names_requests_total": ("counter", ("outcome",)),
    "mqi_store_up": ("gauge", ()),
    "mqi_notifications_total": ("counter", ("name", "outcome")),
}


def full_text() -> bytes:
    """Return the text of all our metrics, each with at least one sample."""
    scrapes = ScrapeMeter()
    scrapes.observe(seconds=0.01, size_bytes=4096)
    protection = ProtectionView({"password": 1}, True, NOW, {"shown": 1})
    encoder = MetricsEncoder(
        StoreCollector(make_full_snapshot, identifiers=PlainIdentifiers()),
        ExporterCollector(
            "1.2.3",
            reload_status=lambda: ReloadStatus(True, NOW),
            scrapes=scrapes,
            protection=lambda: protection,
            store_up=lambda: True,
            notifications=lambda: {("physics", "sent"): 3},
        ),
    )
    return b"".join(encoder.encode(openmetrics=False))


def test_names_types_and_labels_of_metrics_have_not_changed() -> None:
    declared = [metric for _, table in GROUPS for metric in table]

    assert {metric.name: (metric.kind, metric.labels) for metric in declared} == INTERFACE
    assert len(declared) == len(INTERFACE), "a name is declared twice"


def test_samples_have_the_declared_labels() -> None:
    seen: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(full_text().decode()):
        name = family.name + "_total" if family.type == "counter" else family.name
        seen[name] = {frozenset(sample.labels) - {"le"} for sample in family.samples}

    assert seen == {name: {frozenset(labels)} for name, (_, labels) in INTERFACE.items()}


def test_promtool_complains_only_about_the_gauge_that_ends_in_total() -> None:
    checked = subprocess.run(["promtool", "check", "metrics"], input=full_text(), capture_output=True, check=False)

    complaints = (checked.stdout + checked.stderr).decode().splitlines()
    assert complaints == ['mqi_beam_batches_total non-counter metrics should not have "_total" suffix']


def test_docs_metrics_md_is_up_to_date() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "exporter.metrics.definitions"], cwd=REPOSITORY, capture_output=True, check=True
    )

    assert (REPOSITORY / "docs" / "metrics.md").read_bytes() == printed.stdout, (
        "print it again: python -m exporter.metrics.definitions > docs/metrics.md"
    )


def test_each_row_of_the_reference_is_one_row_of_four_cells() -> None:
    rows = [line for line in (REPOSITORY / "docs" / "metrics.md").read_text().splitlines() if line.startswith("| `")]

    assert {row.split("`")[1] for row in rows} == set(INTERFACE)
    assert {row.count("|") for row in rows} == {5}
