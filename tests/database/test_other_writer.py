"""Advice about another writer of the column, based on its values."""

from __future__ import annotations

import pytest

from exporter.database.other_writer import KNOWN_SCALES, OtherWriter, Scale


def written(scale: Scale, total: int, *batches: int) -> list[tuple[float, int, int]]:
    """Yield the values of a writer on a scale, while we already know one batch more."""
    low, high = scale
    return [(low + (high - low) * batch / total, min(total, batch + 1), total) for batch in batches]


def said(own: Scale, *values: tuple[float, int, int]) -> list[str]:
    """Return all advice while these values are observed."""
    writer = OtherWriter(own)
    return [advice for value in values if (advice := writer.observe(*value)) is not None]


@pytest.mark.parametrize("total", [7, 18, 60])
@pytest.mark.parametrize("theirs", [(30.0, 90.0), (40.0, 90.0)])
@pytest.mark.parametrize("own", [(0.0, 100.0), (30.0, 90.0), (40.0, 90.0), (5.0, 55.0)])
def test_the_detected_range_is_advised_once_and_never_the_configured_one(own: Scale, theirs: Scale, total: int) -> None:
    advice = said(own, *written(theirs, total, 1, 2, 3, 4, 5, 6))
    low, high = theirs
    if own == theirs:
        assert advice == []
    else:
        [text] = advice
        assert f"set mirror.range to [{low:g}, {high:g}]" in text
        assert f"[{own[0]:g}, {own[1]:g}]" not in text


@pytest.mark.parametrize("own", KNOWN_SCALES)
@pytest.mark.parametrize("values", [(40.0,), (40.0, 100.0), (40.0, 40.0, 40.0, 40.0)])
def test_no_advice_for_a_writer_that_only_writes_40_at_the_start(own: Scale, values: tuple[float, ...]) -> None:
    assert said(own, *((value, 1, 18) for value in values)) == []


@pytest.mark.parametrize("own", KNOWN_SCALES)
def test_no_range_is_advised_for_one_value_per_phase(own: Scale) -> None:
    [advice] = said(own, *((value, 1, 18) for value in (20.0, 30.0, 70.0, 85.0, 95.0)))
    assert "one fixed value for each phase (20, 30, 70)" in advice
    assert "mirror.range to" not in advice


@pytest.mark.parametrize("own", KNOWN_SCALES)
def test_no_range_is_advised_for_values_on_no_known_scale(own: Scale) -> None:
    [advice] = said(own, (12.34, 5, 18), (12.34, 5, 18), (23.45, 5, 18), (34.56, 9, 18), (45.67, 9, 18))
    assert "its values (12.34, 23.45, 34.56) are on no scale that we know" in advice
    assert "mirror.range to" not in advice


def test_no_advice_while_the_values_fit_several_scales() -> None:
    writer = OtherWriter((0.0, 100.0))
    assert writer.observe(60.0, 4, 5) is None, "batch 2 of 5 on [40, 90], batch 3 on [0, 100]"
    advice = writer.observe(50.0, 4, 5)
    assert advice is not None
    assert "[40, 90]" in advice


def test_no_advice_without_a_number_of_batches() -> None:
    assert said((0.0, 100.0), (45.6, 1, 0), (51.1, 1, 0)) == []
