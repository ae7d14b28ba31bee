"""Negotiation of the metrics' format and of compression."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from exporter.web.content_negotiation import content_type, gzip_accepted

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ESCAPED = f"{OPENMETRICS}; escaping=underscores"
OLD_OPENMETRICS = "application/openmetrics-text; version=0.0.1; charset=utf-8"
OM = "application/openmetrics-text"


def _negotiated(*lines: str) -> str:
    return content_type(Headers(raw=[(b"accept", line.encode("latin-1")) for line in lines]))[0]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("text/html, application/xhtml+xml, */*;q=0.8", TEXT),
        (OM, OPENMETRICS),
        ("APPLICATION/OPENMETRICS-TEXT", OPENMETRICS),
        ("application/*", OPENMETRICS),
        (f"{OM};version=1.0.0", ESCAPED),
        (f'{OM}; version="1.0.0"; charset=utf-8', ESCAPED),
        (f"{OM};version=1.0.0;escaping=allow-utf-8", f"{OPENMETRICS}; escaping=allow-utf-8"),
        (f"{OM};version=1.0.0;escaping=dots", ESCAPED),
        (f"{OM};version=0.0.1", OLD_OPENMETRICS),
        ("text/plain;version=1.0.0", TEXT_1),
        # versions that we do not write
        (f"{OM};version=2.0.0", TEXT),
        (f"{OM};version=1.1.0", TEXT),
        (f"{OM};version=x.y", TEXT),
        ("text/plain;version=0.0.5", TEXT),
        (f"{OM};version=2.0.0,{OM};version=1.0.0;q=0.1", ESCAPED),
        # a weight of 0 refuses
        (f"{OM};q=0", TEXT),
        (f"{OM};version=1.0.0;q=0.000", TEXT),
        (f"{OM};q=0, */*", TEXT),
        (f"{OM};version=1.0.0;q=0, {OM}", OLD_OPENMETRICS),
        ("text/plain;q=0, */*", OPENMETRICS),
        ("text/*;q=0, application/*", OPENMETRICS),
        ("*/*;q=0, text/plain;version=1.0.0", TEXT_1),
        # weights decide, then the position
        (f"{OM};q=0.4, text/plain;q=0.5", TEXT),
        (f"text/plain;version=0.0.4;q=0.3, {OM};version=1.0.0;q=0.31", ESCAPED),
        (f"{OM};version=0.0.1;q=0.75, {OM};version=1.0.0;q=0.5", OLD_OPENMETRICS),
        (f"text/plain, {OM}", TEXT),
        (f"{OM}, text/plain", OPENMETRICS),
        # malformed weights
        (f"{OM};q=nan", OPENMETRICS),
        (f"text/plain;q=0.9, {OM};q=7", OPENMETRICS),
    ],
)
def test_the_accepted_format_with_the_highest_weight_is_chosen(accept: str, expected: str) -> None:
    assert _negotiated(accept) == expected


def test_several_accept_headers_count_as_one_list() -> None:
    assert _negotiated(f"{OM};q=0.1", "text/plain;q=0.2") == TEXT


WEIGHTS = st.sampled_from(["", ";q=0", ";q=0.0", ";q=0.3", ";q=1"])
RANGES = st.sampled_from(["*/*", "text/*", "text/plain", OM, f"{OM};version=1.0.0", f"{OM};version=2.0.0", "x/y", ""])


@given(st.lists(st.tuples(RANGES, WEIGHTS), max_size=6))
def test_a_refused_format_is_not_chosen_while_another_is_accepted(elements: list[tuple[str, str]]) -> None:
    chosen = _negotiated(",".join(media_range + weight for media_range, weight in elements))
    refused = {media_range for media_range, weight in elements if weight in (";q=0", ";q=0.0")}
    allowed = {media_range for media_range, weight in elements if weight not in (";q=0", ";q=0.0")}
    if chosen.startswith(OM):
        assert any(media_range.startswith(OM) or media_range == "*/*" for media_range in allowed)
        assert OM not in refused or f"{OM};version=1.0.0" in allowed or OM in allowed


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_any_accept_header_gets_a_format(accept: str) -> None:
    chosen, openmetrics = content_type(Headers({"accept": accept}))
    assert chosen.startswith(OM if openmetrics else "text/plain")


def _accepted(*lines: str) -> bool:
    return gzip_accepted(Headers(raw=[(b"accept-encoding", line.encode("latin-1")) for line in lines]))


@pytest.mark.parametrize(
    "header",
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
        # Malformed weights.
        "gzip;q=",
        "gzip;q=-0",
        "gzip;q=00",
        "gzip;q=0.0000",
        "gzip;q=nan",
        "gzip;q =0",
        "gzip;level=0",
    ],
)
def test_gzip_is_used_for_clients_that_accept_it(header: str) -> None:
    assert _accepted(header)


@pytest.mark.parametrize(
    "header",
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
def test_gzip_is_not_used_for_clients_that_do_not_accept_it(header: str) -> None:
    assert not _accepted(header)


def test_without_a_header_there_is_no_gzip_and_several_headers_count_as_one() -> None:
    assert not _accepted()
    assert _accepted("br", "gzip")
    assert not _accepted("*", "gzip;q=0")


_BLANK = st.text(" \t", max_size=2)
_CODINGS = st.sampled_from(["gzip", "GZip", "x-gzip", "*", "identity", "br", "zstd"])
_THOUSANDTHS = st.none() | st.integers(0, 1000)


@given(st.lists(st.tuples(_CODINGS, _THOUSANDTHS, _BLANK, _BLANK), max_size=8))
def test_the_highest_weight_decides_about_gzip(elements_said: Sequence[tuple[str, int | None, str, str]]) -> None:
    elements, weights = [], dict[str, list[int]]()
    for coding, thousandths, before, after in elements_said:
        name = "gzip" if "gzip" in coding.lower() else coding
        weights.setdefault(name, []).append(1000 if thousandths is None else thousandths)
        weight = "" if thousandths is None else f";{after}q={thousandths / 1000:.3f}"
        elements.append(f"{before}{coding}{after}{weight}{before}")
    best = max(weights.get("gzip") or weights.get("*") or [0])
    assert _accepted(",".join(elements)) == (best > 0)


@given(st.text(st.characters(max_codepoint=255)))
def test_any_accept_encoding_header_is_handled(header: str) -> None:
    assert _accepted(header) in (True, False)
    if "gzip" not in header.lower() and "*" not in header:
        assert not _accepted(header)
