"""The prefilter finds the same lines as a plain loop over all lines, however the bytes are split."""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.noisy import noise
from exporter.logs import parser as parser_module
from exporter.logs import prefilter as candidates
from exporter.logs.events import Anomaly, Event, RunFailed
from exporter.logs.parser import LINE_LIMIT, SitePatterns, TpsLogParser
from exporter.logs.patterns import BEGINNINGS, FOREIGN_MARKS
from tests.support.line_by_line import LineByLine
from tests.support.replay import LOGS, names

NOTHING_MATCHES = SitePatterns(failure=(re.compile(rb"(?!)"),))
EVERYTHING_MATCHES = SitePatterns(total_batches=(re.compile(rb"()"),))
"""Site patterns, which must see every line. They capture no number, so they yield no event."""


def sliced(parser: TpsLogParser, data: bytes, cuts: list[int]) -> list[Event]:
    events: list[Event] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        # As the tailer hands them over: behind a few bytes that were read before.
        before = max(0, start - 256)
        events += parser.feed(data[before:end], start - before)
    return events


FOREIGN = st.sampled_from(
    [
        b"Run transpoKilled",
        b"Segmentation fault (core dumped)",
        b"Tracks that were Killed",
        b"cum_vertiexGPUassert: invalid argument x.hpp 12",
        b"called ",
        b"Killed ERROR: x Aborted",
        b"Particle transportation complete!Terminated",
        b"\0\0ERROR: hole",
        b"Run trans\0port\0Killed",
    ]
)


@given(
    logs=st.lists(st.sampled_from(names()), min_size=1, max_size=4),
    seed=st.integers(0, 9),
    every=st.integers(1, 300),
    foreign=st.lists(FOREIGN, max_size=6),
    junk=st.binary(max_size=200),
    end=st.sampled_from([b"\n", b"\r\n"]),
    cuts=st.lists(st.integers(0, 100_000), max_size=30),
)
def test_real_logs_mixed_with_noise_give_the_same_events_as_line_by_line(
    logs: list[str], seed: int, every: int, foreign: list[bytes], junk: bytes, end: bytes, cuts: list[int]
) -> None:
    real = b"\n".join((LOGS / f"{name}.log").read_bytes() for name in logs).split(b"\n")
    noisy = noise(400, seed).split(b"\n")
    lines = [*foreign[::2], junk]
    for number, line in enumerate(real):
        lines += [line, *noisy[number * every % 397 :][: every % 7]]
        if foreign and number % every == 0:
            lines.append(foreign[number % len(foreign)])
    data = end.join(lines) + end
    expected = sliced(LineByLine(), data, [])
    assert sliced(TpsLogParser(), data, cuts) == expected
    assert sliced(TpsLogParser(NOTHING_MATCHES), data, cuts) == expected
    assert sliced(TpsLogParser(EVERYTHING_MATCHES), data, cuts) == expected
    assert sliced(TpsLogParser(), data, []) == expected


@given(
    data=st.lists(st.sampled_from([b"", b"x" * 49, b"x" * 50, b"x" * 51, b"ERROR: y", b"Killed"])), start=st.booleans()
)
def test_long_lines_are_cut_the_same_way_with_and_without_the_prefilter(data: list[bytes], start: bool) -> None:
    text = b"\n".join(data) + b"\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "LINE_LIMIT", 50)
        fast, plain = TpsLogParser(), TpsLogParser(NOTHING_MATCHES)
        assert fast.feed(b"z" * start + text, start) == plain.feed(text)
        assert Counter(map(type, fast.feed(text)))[Anomaly] == data.count(b"x" * 51)


def test_a_line_of_exactly_the_limit_is_not_cut() -> None:
    line = b"ERROR: " + b"x" * (LINE_LIMIT - 7)
    assert [type(event) for event in TpsLogParser().feed(b"a\n" + line + b"\nb\n")] == [RunFailed]
    assert [type(event) for event in TpsLogParser().feed(b"a\n" + line + b"x\nb\n")] == [Anomaly, RunFailed]


@pytest.mark.parametrize("mark", FOREIGN_MARKS)
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_mark_is_found_anywhere_in_a_block(mark: bytes, size: int) -> None:
    rest = b"-" * size
    for data in (mark + rest, rest + mark, rest + mark + rest):
        assert mark in candidates.marks_in(data)
    assert candidates.marks_in(rest) == []
    assert candidates.marks_in(mark + rest, len(mark)) == []


def test_marks_are_found_without_hyperscan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    assert candidates._new_finder(FOREIGN_MARKS) is None
    monkeypatch.setattr(candidates._per_thread, "finder", None)
    assert candidates.marks_in(b"-" * 100_000 + b"Run transpoKilled") == [b"lled"]


def test_noise_lines_never_become_python_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test counts the lines that are matched, not seconds."""
    matched: list[bytes] = []
    monkeypatch.setattr(TpsLogParser, "_match", lambda self, line, events, marks=(), raw=None: matched.append(line))
    chunk = noise(400, 1) * 20 + b"Generating particles for (3 of 9 batches) in CPU ..\n" + noise(400, 2) * 20
    TpsLogParser().feed(chunk)
    assert chunk.count(b"\n") > 16_000
    # The first line of a chunk may be the rest of one that was cut.
    assert len(matched) == 2
    assert matched[-1].startswith(b"Generating")


def test_every_rule_can_be_reached() -> None:
    for beginning in BEGINNINGS:
        data = b"\n" + beginning + b"\n"
        assert candidates.candidate_lines(data, 0, len(data), ()) == [beginning]
