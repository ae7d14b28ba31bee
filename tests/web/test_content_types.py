"""Which format of metrics a scraper gets for what it accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from exporter.web.content_types import content_type

TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ESCAPED = f"{OPENMETRICS}; escaping=underscores"
OLD_OPENMETRICS = "application/openmetrics-text; version=0.0.1; charset=utf-8"
OM = "application/openmetrics-text"


def negotiated(*lines: str) -> str:
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
        # versions that there are not
        (f"{OM};version=2.0.0", TEXT),
        (f"{OM};version=1.1.0", TEXT),
        (f"{OM};version=x.y", TEXT),
        ("text/plain;version=0.0.5", TEXT),
        (f"{OM};version=2.0.0,{OM};version=1.0.0;q=0.1", ESCAPED),
        # a weight of 0 is a no
        (f"{OM};q=0", TEXT),
        (f"{OM};version=1.0.0;q=0.000", TEXT),
        (f"{OM};q=0, */*", TEXT),
        (f"{OM};version=1.0.0;q=0, {OM}", OLD_OPENMETRICS),
        ("text/plain;q=0, */*", OPENMETRICS),
        ("text/*;q=0, application/*", OPENMETRICS),
        ("*/*;q=0, text/plain;version=1.0.0", TEXT_1),
        # weights decide, then the place
        (f"{OM};q=0.4, text/plain;q=0.5", TEXT),
        (f"text/plain;version=0.0.4;q=0.3, {OM};version=1.0.0;q=0.31", ESCAPED),
        (f"{OM};version=0.0.1;q=0.75, {OM};version=1.0.0;q=0.5", OLD_OPENMETRICS),
        (f"text/plain, {OM}", TEXT),
        (f"{OM}, text/plain", OPENMETRICS),
        # no weights at all
        (f"{OM};q=nan", OPENMETRICS),
        (f"text/plain;q=0.9, {OM};q=7", OPENMETRICS),
    ],
)
def test_the_content_type_is_the_one_that_was_asked_for(accept: str, expected: str) -> None:
    assert negotiated(accept) == expected


def test_several_lines_are_one_list() -> None:
    assert negotiated(f"{OM};q=0.1", "text/plain;q=0.2") == TEXT


WEIGHTS = st.sampled_from(["", ";q=0", ";q=0.0", ";q=0.3", ";q=1"])
RANGES = st.sampled_from(["*/*", "text/*", "text/plain", OM, f"{OM};version=1.0.0", f"{OM};version=2.0.0", "x/y", ""])


@given(st.lists(st.tuples(RANGES, WEIGHTS), max_size=6))
def test_nothing_is_served_that_was_refused_while_there_is_something_else(elements: list[tuple[str, str]]) -> None:
    said = negotiated(",".join(media_range + weight for media_range, weight in elements))
    refused = {media_range for media_range, weight in elements if weight in (";q=0", ";q=0.0")}
    allowed = {media_range for media_range, weight in elements if weight not in (";q=0", ";q=0.0")}
    if said.startswith(OM):
        assert any(media_range.startswith(OM) or media_range == "*/*" for media_range in allowed)
        assert OM not in refused or f"{OM};version=1.0.0" in allowed or OM in allowed


@given(st.text(st.characters(max_codepoint=255), max_size=300))
def test_whatever_is_said_there_is_an_answer(accept: str) -> None:
    said, openmetrics = content_type(Headers({"accept": accept}))
    assert said.startswith(OM if openmetrics else "text/plain")
