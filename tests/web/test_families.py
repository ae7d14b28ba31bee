"""How one declaration becomes one metric family."""

from __future__ import annotations

import pytest

from exporter.beams.snapshot import HistogramView, Summary
from exporter.web.families import Definition, counter, encodable, gauge, gauge_by, histogram, summary


def test_a_value_that_is_not_known_has_no_sample_and_zero_has_one() -> None:
    family = gauge("mqi_x", ("n",), "X.", lambda thing: thing).family([(None, {"n": "a"}), (0.0, {"n": "b"})])

    assert [(sample.labels, sample.value) for sample in family.samples] == [({"n": "b"}, 0.0)]


def test_a_counters_family_is_named_without_total_and_its_samples_with_it() -> None:
    family = counter("mqi_x_total", (), "X.", lambda thing: thing).family([(3, {})])

    assert (family.name, family.type) == ("mqi_x", "counter")
    assert [sample.name for sample in family.samples] == ["mqi_x_total"]


def test_a_gauge_keeps_a_name_that_ends_in_total() -> None:
    assert gauge("mqi_x_total", (), "X.", lambda thing: thing).family([(3, {})]).name == "mqi_x_total"


def test_parts_of_a_thing_are_told_apart_by_further_labels() -> None:
    by_colour: Definition[str] = gauge_by("mqi_x", ("n",), ("colour",), "X.", lambda _: [(("red",), 1), (("blue",), 2)])

    family = by_colour.family([("thing", {"n": "a"})])

    assert by_colour.labels == ("n", "colour")
    assert [sample.labels for sample in family.samples] == [{"n": "a", "colour": "red"}, {"n": "a", "colour": "blue"}]


def test_parts_with_too_few_label_values_are_refused() -> None:
    wrong: Definition[str] = gauge_by("mqi_x", (), ("colour", "size"), "X.", lambda _: [(("red",), 1)])

    with pytest.raises(ValueError, match="zip"):
        wrong.family([("thing", {})])


def test_a_summary_is_a_count_and_a_sum() -> None:
    family = summary("mqi_x_seconds", (), "X.", lambda thing: thing).family([(Summary(4, 2.5), {})])

    assert [(sample.name, sample.value) for sample in family.samples] == [
        ("mqi_x_seconds_count", 4),
        ("mqi_x_seconds_sum", 2.5),
    ]


def test_a_histograms_buckets_add_up_to_its_count() -> None:
    durations = HistogramView((30.0, 60.0), (1, 2, 3), 400.0)

    family = histogram("mqi_x_seconds", (), "X.", lambda thing: thing).family([(durations, {})])

    assert [(sample.name, sample.labels, sample.value) for sample in family.samples] == [
        ("mqi_x_seconds_bucket", {"le": "30.0"}, 1),
        ("mqi_x_seconds_bucket", {"le": "60.0"}, 3),
        ("mqi_x_seconds_bucket", {"le": "+Inf"}, 6),
        ("mqi_x_seconds_count", {}, 6),
        ("mqi_x_seconds_sum", {}, 400.0),
    ]


def test_text_that_utf8_cannot_carry_becomes_escapes_and_stays_distinct() -> None:
    undecodable = [b"beam\xff".decode(errors="surrogateescape"), b"beam\xfe".decode(errors="surrogateescape")]

    shown = [encodable(text) for text in undecodable]

    assert len(set(shown)) == 2
    assert all(text.encode("utf-8") for text in shown)


@pytest.mark.parametrize("text", ["plain", "환자", "ü"])
def test_text_that_utf8_can_carry_stays_as_it_is(text: str) -> None:
    assert encodable(text) == text
