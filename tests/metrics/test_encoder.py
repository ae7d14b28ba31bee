"""The encoder writes text with the same meaning as the client library's encoder."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.beams.snapshot import (
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    DatabaseView,
    HistogramView,
    SourceView,
    StoreSnapshot,
    Summary,
)
from exporter.logs.events import FAILURE_REASONS, PHASES
from exporter.metrics.collectors import StoreCollector
from exporter.metrics.definitions import BEAM_METRICS
from exporter.metrics.encoder import (
    MetricGroup,
    MetricsEncoder,
    encode_header,
    encode_samples,
    format_number,
    gzip_chunks,
)
from exporter.metrics.metric_types import Definition, counter, gauge
from exporter.privacy.identifiers import PlainIdentifiers
from tests.support.client_encoder import ClientCollector
from tests.web.store_snapshots import make_beam, make_full_snapshot, make_snapshot

Meaning = dict[str, tuple[str, str, dict[tuple[str, frozenset[tuple[str, str]]], object]]]

HOSTILE = st.text(st.characters(codec=None) | st.sampled_from('\\"\n{},=#% \udcff\udc80'), max_size=12)
NUMBERS = st.floats() | st.integers(-(2**70), 2**70) | st.booleans()
COUNTS = st.integers(0, 2**53) | st.floats(min_value=0, allow_infinity=False)


_MAYBE_KNOWN = (
    "batches_total",
    "remaining_seconds",
    "started_at",
    "ended_at",
    "last_progress_at",
    "batch_duration_seconds",
    "particles",
    "log_size_bytes",
    "log_modified_at",
)


def _beams() -> st.SearchStrategy[list[BeamView]]:
    key = st.builds(BeamKey, HOSTILE, HOSTILE)
    known = st.none() | NUMBERS
    beam = st.builds(
        make_beam()._replace,
        key=key,
        source=HOSTILE,
        state=st.sampled_from(BeamState),
        reason=st.sampled_from([None, *FAILURE_REASONS]),
        phase=st.sampled_from([None, *PHASES]),
        row=st.builds(BeamRow, key, NUMBERS, status=st.none() | HOSTILE),
        estimated_ratio=st.floats(),
        **dict.fromkeys(("batch_current", "batches_completed", "progress_ratio", "state_since", "run_number"), NUMBERS),
        **dict.fromkeys(
            (
                "batches_total",
                "remaining_seconds",
                "started_at",
                "ended_at",
                "last_progress_at",
                "stall_threshold_seconds",
                "batch_duration_seconds",
                "particles",
                "log_size_bytes",
                "log_modified_at",
            ),
            known,
        ),
    )
    return st.lists(beam, max_size=8, unique_by=lambda beam: (beam.key, beam.source))


STORES = st.builds(
    make_snapshot,
    sources=st.lists(
        st.builds(
            SourceView,
            HOSTILE,
            HOSTILE,
            st.none() | st.booleans(),
            st.none() | NUMBERS,
            st.builds(Summary, st.integers(0, 10**6), COUNTS),
            COUNTS,
            errors=st.dictionaries(HOSTILE, COUNTS, max_size=3),
        ),
        unique_by=lambda source: source.name,
        max_size=3,
    ).map(tuple),
    database=st.none()
    | st.builds(
        DatabaseView,
        st.booleans(),
        st.dictionaries(HOSTILE, COUNTS, max_size=3),
        st.builds(Summary, st.integers(0, 10**6), COUNTS),
        st.integers(0, 99),
        st.none() | NUMBERS,
    ),
    batch_durations=st.dictionaries(
        HOSTILE, st.builds(HistogramView, st.just((1.0, 2.5)), st.just((1, 0, 2)), COUNTS), max_size=2
    ),
    beams_dropped=st.integers(0, 9),
)


def _meaning(families: Iterable[Metric]) -> Meaning:
    """Return everything that a parser finds, with NaN as text so that it equals itself."""
    found: Meaning = {}
    for family in families:
        assert family.name not in found
        samples = {
            (sample.name, frozenset(sample.labels.items())): "NaN" if math.isnan(sample.value) else sample.value
            for sample in family.samples
        }
        assert len(samples) == len(family.samples)
        found[family.name] = (family.type, family.documentation, dict(samples))
    return found


def _text(content: bytes) -> Meaning:
    return _meaning(parse_text(content.decode()))


def _openmetrics(content: bytes) -> Meaning:
    return _meaning(parse_openmetrics(content.decode()))  # type: ignore[no-untyped-call]


def _encode(encoder: MetricsEncoder, *, openmetrics: bool = False) -> bytes:
    return b"".join(encoder.encode(openmetrics=openmetrics))


def _encode_with_client(collect: Callable[[], Iterable[MetricGroup[Any]]], *, openmetrics: bool) -> bytes:
    registry = CollectorRegistry()
    registry.register(ClientCollector(collect))
    encoded: bytes = generate_openmetrics(registry) if openmetrics else generate_latest(registry)  # type: ignore[no-untyped-call]
    return encoded


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(STORES, _beams()), min_size=1, max_size=4))
def test_both_formats_mean_what_the_client_library_encodes_for_one_snapshot_after_another(
    snapshots: list[tuple[StoreSnapshot, list[BeamView]]],
) -> None:
    snapshot = make_full_snapshot()
    collector = StoreCollector(lambda: snapshot, identifiers=PlainIdentifiers())
    encoder = MetricsEncoder(collector)
    for snapshot, beams in snapshots:
        snapshot = replace(snapshot, beams=tuple(beams))
        assert _text(_encode(encoder)) == _text(_encode_with_client(collector, openmetrics=False))
        ours = _encode(encoder, openmetrics=True) + b"# EOF\n"
        assert _openmetrics(ours) == _openmetrics(_encode_with_client(collector, openmetrics=True))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_reused_lines_are_those_that_a_new_encoder_makes(data: st.DataObject) -> None:
    beams = {number: make_beam(beam_id=f"b{number}") for number in range(5)}
    collector = StoreCollector(lambda: make_snapshot(*beams.values()), identifiers=PlainIdentifiers())
    encoder = MetricsEncoder(collector)
    for _ in range(4):
        for number in data.draw(st.lists(st.integers(0, 7), max_size=2)):
            beams.pop(number, None)
        for number in data.draw(st.lists(st.integers(0, 7), max_size=2)):
            source = data.draw(st.sampled_from(["local", "unknown"]))
            batch = data.draw(st.integers(0, 18))
            beams[number] = make_beam(beam_id=f"b{number}", source=source, batch_current=batch)
        assert _encode(encoder) == _encode(MetricsEncoder(collector))


def test_lines_of_beams_are_made_again_only_for_metrics_of_which_a_value_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[str] = []

    def recording(metric: Definition[Any], labels: Sequence[str], values: Sequence[Any]) -> str:
        if metric in BEAM_METRICS:
            encoded.append(metric.name)
        return encode_samples(metric, labels, values)

    monkeypatch.setattr("exporter.metrics.encoder.encode_samples", recording)
    beams = [make_beam(beam_id=f"b{number}") for number in range(10)]
    encoder = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers()))
    first = _encode(encoder)
    assert encoded == [metric.name for metric in BEAM_METRICS]

    encoded.clear()
    beams[:] = [beam._replace() for beam in beams]
    assert _encode(encoder) == first
    assert encoded == []

    beams[5] = beams[5]._replace(batch_current=7, log_size_bytes=5000)
    assert _encode(encoder) != first
    assert encoded == ["mqi_beam_batch_current", "mqi_beam_log_size_bytes"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.25, "0.25"),
        (1.76e9, "1760000000.0"),
        (1e300, "1e+300"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
        (True, "1"),
        (False, "0"),
        (172_000_000, "172000000"),
        (-3, "-3"),
        (2**60, "1.152921504606847e+18"),
        (10**400, "+Inf"),
        (-(10**400), "-Inf"),
    ],
)
def test_numbers_are_written_as_prometheus_reads_them(number: float, text: str) -> None:
    assert format_number(number) == text


def test_the_header_differs_between_the_formats() -> None:
    metric = counter("mqi_x_total", (), 'A "quoted"\nback\\slash.', lambda item: item)

    assert encode_header(metric, openmetrics=False) == (
        '# HELP mqi_x_total A "quoted"\\nback\\\\slash.\n# TYPE mqi_x_total counter\n'
    )
    assert encode_header(metric, openmetrics=True) == (
        '# HELP mqi_x A \\"quoted\\"\\nback\\\\slash.\n# TYPE mqi_x counter\n'
    )
    named_total = gauge("mqi_x_total", (), "X.", lambda item: item)
    assert encode_header(named_total, openmetrics=True) == "# HELP mqi_x_total X.\n# TYPE mqi_x_total gauge\n"


def test_a_metric_without_a_sample_has_no_header() -> None:
    encoder = MetricsEncoder(StoreCollector(make_snapshot, identifiers=PlainIdentifiers()))

    assert b"mqi_beam_run " not in _encode(encoder)


@pytest.mark.parametrize("beams", [0, 1, 1000])
def test_compressed_chunks_are_one_gzip_member_with_the_same_text(beams: int) -> None:
    store = make_snapshot(*(make_beam(beam_id=f"b{number}") for number in range(beams)))
    encoder = MetricsEncoder(StoreCollector(lambda: store, identifiers=PlainIdentifiers()))
    compressed = b"".join(gzip_chunks(encoder.encode(openmetrics=True)))

    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    first_member = decompressor.decompress(compressed)
    assert first_member == gzip.decompress(compressed) == _encode(encoder, openmetrics=True)
    assert decompressor.eof
    assert len(first_member) > 3 * len(compressed)


def test_without_collectors_there_is_no_text() -> None:
    assert list(MetricsEncoder().encode(openmetrics=False)) == []
    assert gzip.decompress(b"".join(gzip_chunks([]))) == b""


def test_the_header_of_a_metric_is_followed_by_its_lines() -> None:
    chunks = list(
        MetricsEncoder(StoreCollector(make_full_snapshot, identifiers=PlainIdentifiers())).encode(openmetrics=False)
    )

    assert len(chunks) > 2 * 20
    for header, lines in zip(chunks[::2], chunks[1::2], strict=True):
        name = header.split()[2]
        assert header.startswith(b"# HELP ")
        assert all(line.startswith(name) for line in lines.splitlines())


def test_a_beam_that_has_gone_is_in_no_later_scrape_and_its_labels_are_forgotten() -> None:
    beams = [make_beam(beam_id=f"b{number}") for number in range(100)]
    collector = StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers())
    encoder = MetricsEncoder(collector)
    assert b'"b1"' in _encode(encoder)

    del beams[1:]

    assert b'"b1"' not in _encode(encoder)
    assert len(collector._labelled_beams[1]) == 1


def test_labels_of_a_beam_are_made_once() -> None:
    class CountingIdentifiers(PlainIdentifiers):
        calls = 0

        def beam(self, beam_id: str) -> str:
            self.calls += 1
            return beam_id

    identifiers = CountingIdentifiers()
    beams = [make_beam(beam_id=f"b{number}") for number in range(100)]
    encoder = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=identifiers))
    first = _encode(encoder)

    assert _encode(encoder) == first
    assert identifiers.calls == 100


def test_a_beam_that_moves_to_another_source_gets_new_labels() -> None:
    beams = [make_beam(source="unknown")]
    encoder = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers()))
    assert b'source="unknown"' in _encode(encoder)

    beams[0] = beams[0]._replace(source="hpc1")

    assert re.search(rb'^mqi_beam_run\{.*source="hpc1"\} ', _encode(encoder), re.MULTILINE)


def test_an_error_in_one_scrape_does_not_affect_the_next() -> None:
    broken = True

    def read(beam: BeamView) -> float:
        if broken:
            raise RuntimeError("not now")
        return beam.batch_current

    metric = gauge("mqi_x", ("n",), "X.", read)
    encoder = MetricsEncoder(lambda: [MetricGroup([metric], [make_beam(batch_current=5)], ['n="a"'])])
    with pytest.raises(RuntimeError):
        _encode(encoder)
    broken = False

    assert _encode(encoder).endswith(b'\nmqi_x{n="a"} 5\n')


def test_every_metric_of_a_beam_reads_a_hashable_value() -> None:
    for metric in BEAM_METRICS:
        hash(metric.read(make_beam()))
