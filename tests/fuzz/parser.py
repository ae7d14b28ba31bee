"""Bytes of a log: the same events however they are cut and whichever way they are found, and a run that makes sense."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exporter.beams.estimate import UNFINISHED_LIMIT, Forecast
from exporter.beams.run import BeamRun
from exporter.logs import parser as parser_module
from exporter.logs import prefilter as candidates
from exporter.logs.events import Event, LogRead, RunFailed, RunSucceeded
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.logs.patterns import BEGINNINGS, FOREIGN_MARKS
from tests.fuzz.target import Check, Target, draw
from tests.support.line_by_line import LineByLine
from tests.support.replay import LOGS, names

LINE_LIMIT = 90
"""Instead of 64 KiB, so that lines that are too long come often; most of the engines' lines are shorter."""

NOTHING_MATCHES = SitePatterns(failure=(re.compile(rb"(?!)"),))
"""A site with patterns of its own has every line looked at, not only those that the fast way finds."""


@contextmanager
def _opened() -> Iterator[Check]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "LINE_LIMIT", LINE_LIMIT)
        yield _check


def _check(data: bytes) -> None:
    """Hold the events against others, the cheap comparison most often: many inputs are worth more than all of them."""
    # Small blocks are searched mark by mark, large ones by hyperscan: these inputs are small.
    small = candidates._SMALL_BLOCK_BYTES
    candidates._SMALL_BLOCK_BYTES = small if draw(data, 2) else 0
    try:
        events = TpsLogParser().feed(data)
        match draw(data, 32) // 2:
            case 0:
                _check_run(events, len(data))
            case 1:
                _check_plan(data)
            case 2:
                assert _sliced(data, 1 + draw(data, 97), restarts=True) == events
            case 3 | 4 | 5:
                assert TpsLogParser(NOTHING_MATCHES).feed(data) == events
            case 6 | 7 | 8 | 9:
                assert _sliced(data, 16 + draw(data, 97), restarts=False) == events
            case _:
                assert LineByLine().feed(data) == events
    finally:
        candidates._SMALL_BLOCK_BYTES = small


def _sliced(data: bytes, size: int, *, restarts: bool) -> list[Event]:
    """The events of slices, as the tailer hands them over: behind bytes of before."""
    parser = TpsLogParser()
    events: list[Event] = []
    for start in range(0, len(data), size):
        before = max(0, start - 16)
        events += parser.feed(data[before : start + size], start - before)
        assert len(parser.state.unfinished) <= LINE_LIMIT
        if restarts:
            parser = TpsLogParser(state=parser.state)
    return events


def _check_run(events: list[Event], size_bytes: int) -> None:
    run = BeamRun()
    for at, event in enumerate(events):
        if isinstance(event, (RunFailed, RunSucceeded)):
            assert len(event.text) <= 500
        run.apply(event, float(at))
        if at % 3 == 0:
            run.apply(LogRead(at, True, live=at % 2 == 0), at + 0.5)
        batches = run.batches
        assert 0 <= batches.finished <= batches.started
        assert batches.total is None or batches.started <= batches.total
    run.apply(LogRead(size_bytes, True, live=True), float(len(events)))
    assert 0.0 <= run.batches.ratio <= 1.0
    for prior_rate, later in ((None, 0.0), (1e-9, 1e9)):
        forecast = Forecast.of(run, prior_rate)
        ratio, left = forecast.at(len(events) + later)
        assert 0.0 <= ratio <= (1.0 if run.succeeded else UNFINISHED_LIMIT)
        assert left is None or left >= 0.0


def _check_plan(data: bytes) -> None:
    parser = TpsLogParser()
    for line in data.split(b"\n"):
        progress = parser.parse_line(line)
        if progress is not None:
            assert 0 <= progress.current_batch <= progress.total_batches
            assert 0.0 <= progress.progress_percent <= 100.0


def _seeds() -> Iterator[bytes]:
    for name in names():
        lines = (LOGS / f"{name}.log").read_bytes().split(b"\n")
        for start in range(0, min(len(lines), 60), 3):
            yield b"\n".join(lines[start : start + 3]) + b"\n"


TARGET = Target(
    _opened,
    _seeds,
    words=(
        *sorted(BEGINNINGS),
        *FOREIGN_MARKS,
        *(b"\n", b"\r\n", b"\0", b"\xff", b" (core dumped)", b"run.sh: line 7: 4711 ", b"terminate called after"),
        *(b"10000000 with 18 batches", b"3 of 9 batches) in CPU ..", b"1 of 0 batches)", b"99999999999999999999"),
        *(b" histories per batch, ", b" batches expected", b"GPUassert: out of memory", b"Assertion `x' failed"),
    ),
    longest_bytes=160,
    examples=300,
)
