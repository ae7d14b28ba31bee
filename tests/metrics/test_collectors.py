"""The metrics of a store and of the exporter, in both formats that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, BeamView, HistogramView, SourceView, StoreSnapshot
from exporter.logs.events import FAILURE_REASONS
from exporter.metrics.collectors import ExporterCollector, ScrapeMeter, StoreCollector, process_registry
from exporter.metrics.definitions import ReloadStatus
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from tests.support.client_encoder import ClientCollector
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot, make_waiting_beam

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class _Upper(PlainIdentifiers):
    """Identifiers that change ids, those of cases in another way than those of beams."""

    def case(self, case_id: str) -> str:
        return f"case-{case_id}"

    def beam(self, beam_id: str) -> str:
        return f"beam-{beam_id}"


def _through_text(encoder: MetricsEncoder) -> Iterable[Metric]:
    return parse_text(b"".join(encoder.encode(openmetrics=False)).decode())


def _through_openmetrics(encoder: MetricsEncoder) -> Iterable[Metric]:
    text = b"".join(encoder.encode(openmetrics=True)).decode() + "# EOF\n"
    families: Iterable[Metric] = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    return families


def _encoder(snapshot: StoreSnapshot, identifiers: PlainIdentifiers | None = None) -> MetricsEncoder:
    return MetricsEncoder(StoreCollector(lambda: snapshot, identifiers=identifiers or PlainIdentifiers()))


def _samples(families: Iterable[Metric]) -> Samples:
    samples: Samples = {}
    for family in families:
        for sample in family.samples:
            series = sample.name, frozenset(sample.labels.items())
            assert series not in samples, f"{series} is there twice"
            samples[series] = sample.value
    return samples


def _scrape(*beams: BeamView, **changes: object) -> Samples:
    return _samples(_through_text(_encoder(make_snapshot(*beams, **changes))))


def _of(samples: Samples, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one name by the values of these labels."""
    return {
        tuple(dict(own)[label] for label in labels): value for (each, own), value in samples.items() if each == name
    }


@pytest.mark.parametrize("through", [_through_text, _through_openmetrics])
def test_both_formats_parse_to_the_same_samples(through: Callable[[MetricsEncoder], Iterable[Metric]]) -> None:
    groups = StoreCollector(make_full_snapshot, identifiers=PlainIdentifiers())

    assert _samples(through(MetricsEncoder(groups))) == _samples(ClientCollector(groups).collect())


@pytest.mark.parametrize("through", [_through_text, _through_openmetrics])
def test_batches_total_is_a_gauge_although_its_name_ends_in_total(
    through: Callable[[MetricsEncoder], Iterable[Metric]],
) -> None:
    families = {family.name: family for family in through(_encoder(make_snapshot(make_beam())))}

    assert families["mqi_beam_batches_total"].type == "gauge"
    assert [(sample.name, sample.value) for sample in families["mqi_beam_batches_total"].samples] == [
        ("mqi_beam_batches_total", 18)
    ]


def test_a_beam_shows_its_numbers() -> None:
    samples = _scrape(make_beam(case_id="c", beam_id="b"))
    beam = frozenset({"case_id": "c", "beam_id": "b", "source": "local"}.items())

    assert {name: value for (name, labels), value in samples.items() if labels == beam} == {
        "mqi_beam_batches_total": 18,
        "mqi_beam_batch_current": 5,
        "mqi_beam_batches_completed": 4,
        "mqi_beam_progress_ratio": 5 / 18,
        "mqi_beam_progress_estimated_ratio": 0.25,
        "mqi_beam_remaining_seconds": 900,
        "mqi_beam_state_since_timestamp_seconds": NOW - 300,
        "mqi_beam_start_timestamp_seconds": NOW - 330,
        "mqi_beam_last_progress_timestamp_seconds": NOW - 20,
        "mqi_beam_stall_threshold_seconds": 210,
        "mqi_beam_batch_duration_seconds": 70,
        "mqi_beam_particles_per_batch": 10_000_000,
        "mqi_beam_particles": 172_000_000,
        "mqi_beam_log_size_bytes": 4711,
        "mqi_beam_log_modified_timestamp_seconds": NOW - 3,
        "mqi_beam_log_buffered": 0,
        "mqi_beam_run": 1,
        "mqi_beam_status_mismatch": 0,
        "mqi_log_unmatched": 0,
    }


def test_unknown_values_of_a_beam_are_absent_and_not_zero() -> None:
    samples = _scrape(make_waiting_beam())

    shown = {name for name, labels in samples if dict(labels).get("beam_id")}
    assert shown == {
        "mqi_beam_batch_current",
        "mqi_beam_batches_completed",
        "mqi_beam_progress_ratio",
        "mqi_beam_progress_estimated_ratio",
        "mqi_beam_state",
        "mqi_beam_state_since_timestamp_seconds",
        "mqi_beam_stall_threshold_seconds",
        "mqi_beam_run",
        "mqi_beam_info",
        "mqi_beam_status_mismatch",
        "mqi_log_unmatched",
    }


@pytest.mark.parametrize("state", BeamState)
def test_every_state_has_a_sample_and_only_the_current_one_is_1(state: BeamState) -> None:
    shown = _of(_scrape(make_beam(state=state)), "mqi_beam_state", "state")

    assert shown == {(each.value,): float(each is state) for each in BeamState}


def test_only_the_current_phase_is_shown() -> None:
    assert _of(_scrape(make_beam(phase="saving")), "mqi_beam_phase", "phase") == {("saving",): 1}


@pytest.mark.parametrize(("status", "shown"), [("hpc_running", "hpc_running"), (None, "")])
def test_info_shows_dialect_and_status_and_an_empty_one_without_a_row(status: str | None, shown: str) -> None:
    beam = make_beam(dialect="moqui", row=BeamRow(BeamKey("c", "b"), read_at=NOW, status=status))

    # Prometheus takes an empty label for one that is not there; the text format shows it all the same.
    assert _of(_scrape(beam), "mqi_beam_info", "dialect", "status") == {("moqui", shown): 1}


def test_only_a_failed_beam_has_a_failure_reason() -> None:
    failed = make_beam(beam_id="f", state=BeamState.FAILED, reason="cuda")
    running = make_beam(beam_id="r", reason="cuda")

    assert _of(_scrape(failed, running), "mqi_beam_failure", "beam_id", "reason") == {("f", "cuda"): 1}


def test_flags_are_1_when_set() -> None:
    samples = _scrape(make_beam(log_unmatched=True, status_mismatch=True, log_buffered=True))

    for name in ("mqi_log_unmatched", "mqi_beam_status_mismatch", "mqi_beam_log_buffered"):
        assert _of(samples, name) == {(): 1}


def test_a_cases_progress_is_the_mean_of_its_beams() -> None:
    samples = _scrape(
        make_beam("one", "a", estimated_ratio=0.25),
        make_beam("one", "b", estimated_ratio=0.75),
        make_beam("two", "c", estimated_ratio=1.0),
    )

    assert _of(samples, "mqi_case_progress_ratio", "case_id") == {("one",): 0.5, ("two",): 1.0}


def test_beam_counts_exist_for_every_source_and_state_even_at_zero() -> None:
    sources = (SourceView("local", "local"), SourceView("hpc1", "ssh"))

    counts = _of(_scrape(make_beam(), make_beam(beam_id="b"), sources=sources), "mqi_beams", "source", "state")

    assert set(counts) == {(s, state.value) for s in ("local", "hpc1", "unknown") for state in BeamState}
    assert {series: count for series, count in counts.items() if count} == {("local", "running"): 2}


def test_a_beam_of_a_source_that_a_reload_removed_is_still_counted() -> None:
    assert _of(_scrape(make_beam(source="gone")), "mqi_beams", "source", "state")["gone", "running"] == 1


def test_run_counters_exist_for_every_outcome_and_reason_even_at_zero() -> None:
    counts = _of(_scrape(runs={("local", "failed", "cuda"): 2}), "mqi_beam_runs_total", "source", "outcome", "reason")

    outcomes = [("succeeded", ""), *(("failed", reason) for reason in FAILURE_REASONS)]
    assert set(counts) == {(source, *outcome) for source in ("local", "unknown") for outcome in outcomes}
    assert {series: count for series, count in counts.items() if count} == {("local", "failed", "cuda"): 2}


def test_runs_of_a_source_or_reason_no_longer_known_keep_their_count() -> None:
    runs = {("gone", "failed", "by_magic"): 3}

    counts = _of(_scrape(runs=runs), "mqi_beam_runs_total", "source", "outcome", "reason")

    assert counts["gone", "failed", "by_magic"] == 3


def test_batch_durations_are_a_histogram_per_source() -> None:
    samples = _scrape(batch_durations={"local": HistogramView((30.0, 60.0), (1, 2, 1), 415.5)})

    buckets = _of(samples, "mqi_batch_duration_seconds_bucket", "source", "le")
    assert buckets == {("local", "30.0"): 1, ("local", "60.0"): 3, ("local", "+Inf"): 4}
    assert _of(samples, "mqi_batch_duration_seconds_count", "source") == {("local",): 4}
    assert _of(samples, "mqi_batch_duration_seconds_sum", "source") == {("local",): 415.5}


@pytest.mark.parametrize(
    ("up", "shown"), [(True, {("hpc1", "ssh"): 1}), (False, {("hpc1", "ssh"): 0}), (None, {("hpc1", "ssh"): 0})]
)
def test_a_source_is_not_up_before_its_first_successful_poll(
    up: bool | None, shown: dict[tuple[str, ...], float]
) -> None:
    assert _of(_scrape(sources=(SourceView("hpc1", "ssh", up=up),)), "mqi_source_up", "source", "kind") == shown


def test_a_source_shows_its_work_and_what_went_wrong() -> None:
    samples = _samples(_through_text(_encoder(make_full_snapshot())))

    assert _of(samples, "mqi_source_reconnects_total", "source") == {("local",): 0, ("hpc1",): 2, ("hpc2",): 0}
    assert _of(samples, "mqi_source_round_trips_total", "source")["hpc1",] == 31
    assert _of(samples, "mqi_source_read_bytes_total", "source")["hpc1",] == 65536
    assert _of(samples, "mqi_source_poll_seconds_count", "source")["hpc1",] == 4
    assert _of(samples, "mqi_source_poll_seconds_sum", "source")["hpc1",] == 2.5
    assert ("hpc2",) not in _of(samples, "mqi_source_last_poll_timestamp_seconds", "source")
    assert _of(samples, "mqi_source_errors_total", "source", "error") == {("hpc1", "timeout"): 2}
    assert _of(samples, "mqi_log_anomalies_total", "source", "kind") == {("local", "counter_went_back"): 1}


def test_a_database_shows_its_work() -> None:
    samples = _samples(_through_text(_encoder(make_full_snapshot())))

    assert _of(samples, "mqi_database_up") == {(): 1}
    assert _of(samples, "mqi_database_writes_total", "outcome") == {("written",): 7, ("locked",): 1}
    assert _of(samples, "mqi_database_write_seconds_sum") == {(): 0.125}
    assert _of(samples, "mqi_database_pending_updates") == {(): 1}
    assert _of(samples, "mqi_database_last_write_timestamp_seconds") == {(): NOW - 2}


def test_without_a_database_there_are_no_database_metrics() -> None:
    assert "mqi_database" not in b"".join(_encoder(make_snapshot(make_beam())).encode(openmetrics=False)).decode()


def test_counters_of_the_store_are_exported() -> None:
    samples = _samples(_through_text(_encoder(make_full_snapshot())))

    assert _of(samples, "mqi_beams_dropped") == {(): 3}
    assert _of(samples, "mqi_discovery_refused_total", "reason") == {("path",): 2}
    assert _of(samples, "mqi_exporter_errors_total", "where") == {("scrape",): 1}


def test_ids_appear_only_as_the_identifiers_render_them() -> None:
    encoder = _encoder(make_snapshot(make_beam("patient", "field")), _Upper())

    shown = {
        (name, value)
        for (_, labels) in _samples(_through_text(encoder))
        for name, value in labels
        if name in ("case_id", "beam_id")
    }
    assert shown == {("case_id", "case-patient"), ("beam_id", "beam-field")}


@pytest.mark.parametrize("through", [_through_text, _through_openmetrics])
@pytest.mark.parametrize(
    "beam_id", ['a "quoted" one', "back\\slash", "two\nlines", "환자 1 (재계획)", "a,b={c}#", "\\n", ""]
)
def test_any_id_survives_encoding_and_parsing(
    beam_id: str, through: Callable[[MetricsEncoder], Iterable[Metric]]
) -> None:
    shown = _of(_samples(through(_encoder(make_snapshot(make_beam(beam_id=beam_id))))), "mqi_beam_run", "beam_id")

    assert shown == {(beam_id,): 1}


def test_ids_of_undecodable_bytes_stay_distinct() -> None:
    ids = [name.decode(errors="surrogateescape") for name in (b"b\xff", b"b\xfe")]

    shown = _of(_scrape(*(make_beam("c\udcff", beam_id) for beam_id in ids)), "mqi_beam_run", "beam_id")

    assert len(shown) == 2


def test_a_scrape_takes_one_snapshot() -> None:
    taken: list[int] = []

    def snapshot() -> StoreSnapshot:
        taken.append(1)
        return make_full_snapshot()

    list(MetricsEncoder(StoreCollector(snapshot, identifiers=PlainIdentifiers())).encode(openmetrics=False))

    assert len(taken) == 1


def test_the_exporter_exports_metrics_about_itself() -> None:
    scrapes = ScrapeMeter()
    encoder = MetricsEncoder(
        ExporterCollector("1.2.3", reload_status=lambda: ReloadStatus(False, NOW), scrapes=scrapes)
    )
    first = _samples(_through_text(encoder))
    scrapes.observe(seconds=0.25, size_bytes=1000)
    scrapes.observe(seconds=0.5, size_bytes=2000)

    second = _samples(_through_text(encoder))

    assert _of(first, "mqi_exporter_build_info", "version") == {("1.2.3",): 1}
    assert _of(first, "mqi_exporter_config_last_reload_successful") == {(): 0}
    assert _of(first, "mqi_exporter_config_last_reload_success_timestamp_seconds") == {(): NOW}
    assert _of(first, "mqi_exporter_scrape_seconds_count") == {(): 0}
    assert _of(first, "mqi_exporter_scrape_size_bytes") == {}
    assert _of(second, "mqi_exporter_scrape_seconds_count") == {(): 2}
    assert _of(second, "mqi_exporter_scrape_seconds_sum") == {(): 0.75}
    assert _of(second, "mqi_exporter_scrape_size_bytes") == {(): 2000}


def test_process_and_python_metrics_come_from_the_client() -> None:
    names = {family.name for family in parse_text(generate_latest(process_registry()).decode())}

    assert {"process_resident_memory_bytes", "process_cpu_seconds", "python_info", "python_gc_collections"} <= names


def test_a_clock_offset_is_exported_only_once_it_is_known() -> None:
    sources = (SourceView("local", "local"), SourceView("hpc1", "ssh", clock_offset_seconds=-300.2))
    assert _of(_scrape(sources=sources), "mqi_source_clock_offset_seconds", "source") == {("hpc1",): -300.2}
