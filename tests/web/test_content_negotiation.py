"""Whether an answer may be compressed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from exporter.web.content_negotiation import gzip_accepted


def accepted(*lines: str) -> bool:
    return gzip_accepted(Headers(raw=[(b"accept-encoding", line.encode("latin-1")) for line in lines]))


@pytest.mark.parametrize(
    "said",
    [
        "gzip",
        "GZIP",
        "x-gzip",
        "gzip, deflate, br",
        "br;q=1.0,gzip;q=0.001",
        "identity;q=0, gzip",
        "*",
        "*;q=0.5",
        "deflate, *",
        "*;q=0, gzip",
        "gzip;q=0, gzip",
        "x-gzip;q=0, gzip",
        # Weights that are none.
        "gzip;q=",
        "gzip;q=-0",
        "gzip;q=00",
        "gzip;q=0.0000",
        "gzip;q=nan",
        "gzip;q =0",
        "gzip;level=0",
    ],
)
def test_gzip_is_for_who_takes_it(said: str) -> None:
    assert accepted(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        ",",
        "identity",
        "deflate, br",
        "gzipped",
        "gzip;q=0",
        "GZIP; Q=0",
        "gzip ;\tq=0. ",
        "gzip;q=0.0",
        "gzip;q=0.000",
        "x-gzip;q=0",
        "identity;q=1, gzip;q=0",
        "gzip;q=0, *",
        "*, gzip;q=0",
        "*;q=0",
        "deflate, *;q=0.0",
    ],
)
def test_gzip_is_not_for_who_does_not(said: str) -> None:
    assert not accepted(said)


def test_nothing_said_is_no_yes_and_several_lines_are_one() -> None:
    assert not accepted()
    assert accepted("br", "gzip")
    assert not accepted("*", "gzip;q=0")


_BLANK = st.text(" \t", max_size=2)
_CODINGS = st.sampled_from(["gzip", "GZip", "x-gzip", "*", "identity", "br", "zstd"])
_THOUSANDTHS = st.none() | st.integers(0, 1000)


@given(st.lists(st.tuples(_CODINGS, _THOUSANDTHS, _BLANK, _BLANK), max_size=8))
def test_any_weights_are_heeded(said: Sequence[tuple[str, int | None, str, str]]) -> None:
    elements, weights = [], dict[str, list[int]]()
    for coding, thousandths, before, after in said:
        name = "gzip" if "gzip" in coding.lower() else coding
        weights.setdefault(name, []).append(1000 if thousandths is None else thousandths)
        weight = "" if thousandths is None else f";{after}q={thousandths / 1000:.3f}"
        elements.append(f"{before}{coding}{after}{weight}{before}")
    best = max(weights.get("gzip") or weights.get("*") or [0])
    assert accepted(",".join(elements)) == (best > 0)


@given(st.text(st.characters(max_codepoint=255)))
def test_nothing_that_is_said_is_an_error(said: str) -> None:
    assert accepted(said) in (True, False)
    if "gzip" not in said.lower() and "*" not in said:
        assert not accepted(said)
