"""Our encoder: the same meaning as the client's, and no line made again that has not changed."""

from __future__ import annotations

import gzip
import math
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
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
from exporter.metrics.encoder import ITEMS_PER_BLOCK, MetricGroup, MetricsEncoder, head, text_of
from exporter.metrics.gzip_chunks import gzipped, plain
from exporter.metrics.metric_types import Definition, Labels, counter, gauge
from exporter.privacy.identifiers import PlainIdentifiers
from tests.support.client_encoder import ClientCollector
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot

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


BOARDS = st.builds(
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
    """Everything that a parser finds; numbers so that NaN equals itself."""
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


def _sorted_lines(encoder: MetricsEncoder) -> list[bytes]:
    """All lines, where the order of items does not matter and a parser would take too long."""
    return sorted(plain(encoder.encode(openmetrics=False)).splitlines())


def _clients(groups: Callable[[], Iterable[MetricGroup[Any]]], *, openmetrics: bool) -> bytes:
    registry = CollectorRegistry()
    registry.register(ClientCollector(groups))
    encoded: bytes = generate_openmetrics(registry) if openmetrics else generate_latest(registry)  # type: ignore[no-untyped-call]
    return encoded


def _assert_same(encoder: MetricsEncoder, groups: Callable[[], Iterable[MetricGroup[Any]]]) -> None:
    assert _text(plain(encoder.encode(openmetrics=False))) == _text(_clients(groups, openmetrics=False))
    ours = plain(encoder.encode(openmetrics=True, further=b"# EOF\n"))
    assert _openmetrics(ours) == _openmetrics(_clients(groups, openmetrics=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BOARDS, _beams()), min_size=1, max_size=4))
def test_it_means_what_the_clients_encoder_says_for_one_board_after_another(
    stores: list[tuple[StoreSnapshot, list[BeamView]]],
) -> None:
    store = make_full_snapshot()
    groups = StoreCollector(lambda: store, identifiers=PlainIdentifiers())
    encoder = MetricsEncoder(groups)
    for store, beams in stores:
        store = replace(store, beams=tuple(beams))
        _assert_same(encoder, groups)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_it_is_right_whatever_comes_goes_and_changes_on_a_large_board(data: st.DataObject) -> None:
    beams = {number: make_beam(beam_id=f"b{number}") for number in range(2 * ITEMS_PER_BLOCK)}
    groups = StoreCollector(lambda: make_snapshot(*beams.values()), identifiers=PlainIdentifiers())
    encoder = MetricsEncoder(groups)
    encoder.encode(openmetrics=False)
    for _ in range(3):
        numbers = st.integers(0, 3 * ITEMS_PER_BLOCK)
        for number in data.draw(st.lists(numbers, max_size=5)):
            beams.pop(number, None)
        for number in data.draw(st.lists(numbers, max_size=5)):
            beams[number] = make_beam(beam_id=f"b{number}", batch_current=data.draw(st.integers(0, 18)))
        assert _sorted_lines(encoder) == _sorted_lines(MetricsEncoder(groups))


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
    assert text_of(number) == text


def test_a_metrics_head_is_that_of_its_format() -> None:
    metric = counter("mqi_x_total", (), 'A "quoted"\nback\\slash.', lambda item: item)

    assert head(metric, openmetrics=False) == (
        '# HELP mqi_x_total A "quoted"\\nback\\\\slash.\n# TYPE mqi_x_total counter\n'
    )
    assert head(metric, openmetrics=True) == '# HELP mqi_x A \\"quoted\\"\\nback\\\\slash.\n# TYPE mqi_x counter\n'
    named_total = gauge("mqi_x_total", (), "X.", lambda item: item)
    assert head(named_total, openmetrics=True) == "# HELP mqi_x_total X.\n# TYPE mqi_x_total gauge\n"


def test_a_metric_without_a_sample_has_no_head() -> None:
    encoder = MetricsEncoder(StoreCollector(make_snapshot, identifiers=PlainIdentifiers()))

    assert b"mqi_beam_run " not in plain(encoder.encode(openmetrics=False))


@pytest.mark.parametrize("beams", [1, 4 * ITEMS_PER_BLOCK])
def test_compressed_and_plain_are_the_same_text_in_one_gzip_member(beams: int) -> None:
    store = make_snapshot(*(make_beam(beam_id=f"b{number}") for number in range(beams)))
    encoder = MetricsEncoder(StoreCollector(lambda: store, identifiers=PlainIdentifiers()))
    piece = encoder.encode(openmetrics=True, further=b"# EOF\n")

    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
    first_member = decompressor.decompress(gzipped(piece))
    assert first_member == gzip.decompress(gzipped(piece)) == plain(piece)
    assert decompressor.eof
    assert len(plain(piece)) == piece.size_bytes > 4 * len(gzipped(piece))
    assert first_member.endswith(b"\n# EOF\n")


def test_an_empty_exposition_is_empty() -> None:
    piece = MetricsEncoder().encode(openmetrics=False)

    assert (plain(piece), gzip.decompress(gzipped(piece))) == (b"", b"")


def _store(beams: list[BeamView]) -> tuple[MetricsEncoder, list[BeamView]]:
    encoder = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers()))
    encoder.encode(openmetrics=False)
    return encoder, beams


def _made(encoder: MetricsEncoder) -> int:
    before = encoder.lines_made
    encoder.encode(openmetrics=False)
    return encoder.lines_made - before


BEAMS = 8 * ITEMS_PER_BLOCK


def test_lines_of_beams_are_not_made_again_while_nothing_changes() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])
    lines = encoder.lines_made

    assert _made(encoder) == 0
    beams[:] = [beam._replace() for beam in beams]
    assert _made(encoder) == 0, "views that are new and equal"
    assert lines > 25 * BEAMS


def test_only_the_metrics_that_changed_are_made_again() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])

    for place in range(0, BEAMS, 100):
        beams[place] = beams[place]._replace(log_size_bytes=5000, log_modified_at=NOW)

    assert _made(encoder) <= 2 * BEAMS


def test_a_change_of_one_beam_makes_no_more_than_its_block_again() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])

    beams[BEAMS // 2] = beams[BEAMS // 2]._replace(batch_current=7)

    assert 1 <= _made(encoder) <= 2 * ITEMS_PER_BLOCK


def test_a_beam_that_comes_or_goes_leaves_the_blocks_of_others_alone() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])

    beams.pop(0)
    beams.append(make_beam(beam_id="new"))

    assert _made(encoder) <= 2 * 2 * ITEMS_PER_BLOCK * 30


def test_one_beam_more_than_the_buckets_hold_moves_a_few_hundred() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])

    beams.append(make_beam(beam_id="one more"))

    assert _made(encoder) <= 3 * ITEMS_PER_BLOCK * 30, "before, all were put into twice as many buckets"


def test_of_a_beam_that_stands_still_only_what_the_clock_moves_is_read() -> None:
    read: list[str] = []

    def counting(metric: Definition[BeamView]) -> Definition[BeamView]:
        def counted(beam: BeamView) -> object:
            read.append(metric.name)
            return metric.read(beam)

        return replace(metric, read=counted)

    table = tuple(map(counting, BEAM_METRICS))
    beams = [make_beam(beam_id=f"b{number}", revision=object()) for number in range(BEAMS)]

    def groups() -> Iterator[MetricGroup[BeamView]]:
        yield MetricGroup(table, [beam.key for beam in beams], beams, _labels, BeamView.differs_only_in_estimates)

    encoder = MetricsEncoder(groups)
    encoder.encode(openmetrics=False)
    read.clear()
    beams[:] = [beam.with_estimates(0.3, 800.0, beam.row) for beam in beams]
    beams[7] = beams[7]._replace(batch_current=9, revision=object())
    encoder.encode(openmetrics=False)

    by_clock = {metric.name for metric in BEAM_METRICS if metric.by_clock}
    assert by_clock == {"mqi_beam_progress_estimated_ratio", "mqi_beam_remaining_seconds"}
    assert len(read) == len(by_clock) * BEAMS + len(BEAM_METRICS) - len(by_clock)


def _labels(key: BeamKey) -> Labels:
    return (("beam_id", key.beam_id),)


@given(st.floats(0, 1), st.none() | st.floats(0, 1e9), st.floats(0, 2e9))
def test_what_the_clock_does_not_move_is_read_alike_at_another_time(
    ratio: float, remaining: float | None, read_at: float
) -> None:
    beam = make_beam(revision=object())
    later = beam.with_estimates(ratio, remaining, replace(beam.row, read_at=read_at))

    assert beam.differs_only_in_estimates(later)
    for metric in BEAM_METRICS:
        assert metric.by_clock or metric.read(beam) == metric.read(later), metric.name


def test_a_first_scrape_makes_nothing_that_was_prepared() -> None:
    encoder = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers()))
    beams: list[BeamView] = []

    assert not encoder.prepare(), "more may turn up"
    beams += [make_beam(beam_id=f"b{number}") for number in range(BEAMS)]
    assert not encoder.prepare()
    assert encoder.prepare(), "there was nothing left to make"
    assert _made(encoder) == 0


def test_nothing_is_prepared_once_somebody_has_scraped() -> None:
    encoder, beams = _store([make_beam()])
    beams += [make_beam(beam_id=f"b{number}") for number in range(BEAMS)]
    lines = encoder.lines_made

    assert encoder.prepare()
    assert encoder.lines_made == lines


def test_a_scrape_that_comes_meanwhile_takes_over_from_preparing() -> None:
    beams = [make_beam(beam_id=f"b{number}") for number in range(BEAMS)]
    scraped: list[bytes] = []

    def scrape() -> None:
        scraped.append(plain(encoder.encode(openmetrics=False)))

    scraper = threading.Thread(target=scrape)

    def reads(beam: BeamView) -> float:
        if scraper.ident is None:
            scraper.start()
            while not encoder.asked:
                time.sleep(0.001)
        return beam.batch_current

    first = gauge("mqi_first", ("beam_id",), "First.", reads)
    second: Definition[BeamView] = gauge("mqi_second", ("beam_id",), "Second.", lambda beam: beam.run_number)
    encoder = MetricsEncoder(lambda: [MetricGroup((first, second), [beam.key for beam in beams], beams, _labels)])

    assert encoder.prepare()
    scraper.join()
    assert scraped[0].count(b"{") == 2 * BEAMS
    assert encoder.lines_made == 2 * BEAMS


def test_nothing_is_kept_of_beams_that_are_gone() -> None:
    encoder, beams = _store([make_beam(beam_id=f"b{number}") for number in range(BEAMS)])

    del beams[1:]
    text = plain(encoder.encode(openmetrics=False))
    kept = [bucket for shelf in encoder._shelves.values() for bucket in shelf._buckets]

    assert b'"b1"' not in text
    assert sum(len(block.values) for bucket in kept for block in bucket.blocks.values()) < 100


def test_a_value_that_raises_spoils_one_scrape_and_not_the_next() -> None:
    class Odd(float):
        broken = True

        def __sub__(self, other: float) -> float:
            return 0.0

        def __repr__(self) -> str:
            return "1.5"

        def __int__(self) -> int:
            if self.broken:
                raise RuntimeError("not now")
            return 1

        def __gt__(self, other: float) -> bool:
            return True

        def __lt__(self, other: float) -> bool:
            return True

    odd = Odd(1.5)
    beams = [make_beam(beam_id=f"b{number}") for number in range(BEAMS)]
    encoder, _ = _store(beams)
    beams[3] = beams[3]._replace(remaining_seconds=odd, batch_current=9)
    beams[9] = beams[9]._replace(batch_current=8)
    with pytest.raises(RuntimeError):
        encoder.encode(openmetrics=False)
    odd.broken = False

    fresh = MetricsEncoder(StoreCollector(lambda: make_snapshot(*beams), identifiers=PlainIdentifiers()))
    assert _sorted_lines(encoder) == _sorted_lines(fresh)


def test_every_metric_of_a_beam_reads_something_that_can_be_compared() -> None:
    def reads() -> Iterator[object]:
        for metric in BEAM_METRICS:
            yield metric.read(make_beam())

    assert list(reads()) == list(reads())
