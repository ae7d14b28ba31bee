"""Declarations of metrics and the lines that they lead to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from exporter.beams.snapshot import HistogramView, Summary
from exporter.metrics.encoder import encode_samples
from exporter.metrics.metric_types import (
    Definition,
    counter,
    encodable,
    format_labels,
    gauge,
    gauge_by,
    histogram,
    one_of,
    summary,
)


def _lines(metric: Definition[Any], *items: tuple[str, object]) -> list[str]:
    """Return the lines of items that each have one label ``n``, or none where its value is empty."""
    labels = [format_labels(("n", name)) if name else "" for name, _ in items]
    return encode_samples(metric, labels, [metric.read(item) for _, item in items]).splitlines(keepends=True)


def test_an_unknown_value_has_no_sample_but_zero_has_one() -> None:
    assert _lines(gauge("mqi_x", ("n",), "X.", lambda item: item), ("a", None), ("b", 0.0)) == ['mqi_x{n="b"} 0.0\n']


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1, False, -3), ("1", "0", "-3")),
        ((0.5, 1e300), ("0.5", "1e+300")),
        ((0.5, float("nan")), ("0.5", "NaN")),
        ((1, 10**400), ("1", "+Inf")),
        ((1, 2.5, True), ("1", "2.5", "1")),
    ],
)
def test_columns_of_one_type_and_of_mixed_types_are_formatted_alike(
    values: tuple[float, ...], texts: tuple[str, ...]
) -> None:
    metric = gauge("mqi_x", ("n",), "X.", lambda item: item)
    items = [(f"100%{number}", value) for number, value in enumerate(values)]

    assert _lines(metric, *items) == [f'mqi_x{{n="100%{number}"}} {text}\n' for number, text in enumerate(texts)]


@pytest.mark.parametrize("make", [gauge, counter])
def test_samples_are_named_as_declared(make: Any) -> None:
    assert _lines(make("mqi_x_total", (), "X.", lambda item: item), ("", 3)) == ["mqi_x_total 3\n"]


def test_several_samples_of_an_item_differ_in_the_extra_label() -> None:
    by_colour: Definition[str] = gauge_by("mqi_x", ("n",), ("colour",), "X.", lambda _: [(("red",), 1), (("blue",), 2)])

    assert by_colour.labels == ("n", "colour")
    assert _lines(by_colour, ("a", "item")) == ['mqi_x{n="a",colour="red"} 1\n', 'mqi_x{n="a",colour="blue"} 2\n']
    assert _lines(by_colour, ("", "item")) == ['mqi_x{colour="red"} 1\n', 'mqi_x{colour="blue"} 2\n']


def test_a_sample_with_too_few_label_values_is_an_error() -> None:
    wrong: Definition[str] = gauge_by("mqi_x", (), ("colour", "size"), "X.", lambda _: [(("red",), 1)])

    with pytest.raises(ValueError, match="zip"):
        _lines(wrong, ("", "item"))


def test_the_chosen_value_is_1_and_the_others_are_0() -> None:
    colour: Definition[str] = one_of("mqi_x", ("n",), "colour", "X.", ["red", "blue"], lambda item: item)

    assert colour.labels == ("n", "colour")
    assert _lines(colour, ("a", "blue")) == ['mqi_x{n="a",colour="red"} 0\n', 'mqi_x{n="a",colour="blue"} 1\n']


def test_a_summary_is_a_count_and_a_sum() -> None:
    assert _lines(summary("mqi_x_seconds", (), "X.", lambda item: item), ("", Summary(4, 2.5))) == [
        "mqi_x_seconds_count 4\n",
        "mqi_x_seconds_sum 2.5\n",
    ]


def test_histogram_buckets_are_cumulative() -> None:
    durations = HistogramView((30.0, 60.0), (1, 2, 3), 400.0)

    assert _lines(histogram("mqi_x_seconds", (), "X.", lambda item: item), ("", durations)) == [
        'mqi_x_seconds_bucket{le="30.0"} 1\n',
        'mqi_x_seconds_bucket{le="60.0"} 3\n',
        'mqi_x_seconds_bucket{le="+Inf"} 6\n',
        "mqi_x_seconds_count 6\n",
        "mqi_x_seconds_sum 400.0\n",
    ]


def test_text_that_is_not_utf8_becomes_distinct_escapes() -> None:
    undecodable = [b"beam\xff".decode(errors="surrogateescape"), b"beam\xfe".decode(errors="surrogateescape")]

    shown = [encodable(text) for text in undecodable]

    assert len(set(shown)) == 2
    assert all(text.encode("utf-8") for text in shown)


@pytest.mark.parametrize("text", ["plain", "환자", "ü"])
def test_utf8_text_is_unchanged(text: str) -> None:
    assert encodable(text) == text


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_labels_parse_to_the_values_that_were_formatted(first: str, second: str) -> None:
    text = format_labels(("a", first), ("b", second))

    [family] = text_string_to_metric_families(f"mqi_x{{{text}}} 1\n")

    assert family.samples[0].labels == {"a": encodable(first), "b": encodable(second)}
