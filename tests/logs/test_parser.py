from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.logs import parser as parser_module
from exporter.logs.events import Anomaly, BatchesAnnounced, BatchStarted, Event, RunFailed, RunSucceeded
from exporter.logs.parser import SitePatterns, TpsLogParser
from tests.support.replay import LOGS, names


def fed(
    data: bytes, cuts: list[int] | None = None, site: SitePatterns | None = None
) -> tuple[list[Event], TpsLogParser]:
    parser = TpsLogParser(site)
    events: list[Event] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts or []), len(data)]
    for start, end in pairwise(edges):
        events += parser.feed(data[start:end])
    return events, parser


@given(name=st.sampled_from(names()), cuts=st.lists(st.integers(0, 40_000), max_size=40))
def test_any_split_of_a_captured_log_gives_the_events_of_the_whole(name: str, cuts: list[int]) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    assert fed(data, cuts)[0] == fed(data)[0]


@pytest.mark.parametrize("name", ["v2_b2", "mgh_b3partial", "good_no_matching_folder", "v2_output_unwritable"])
def test_a_log_byte_by_byte_gives_the_events_of_the_whole(name: str) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    assert fed(data, list(range(len(data))))[0] == fed(data)[0]


LINES = st.sampled_from(
    [
        b"Generating particles for (3 of 9 batches) in CPU ..",
        b"Run transpoKilled",
        "✓ 환자 → Generating particles for (4 of 9 batches) in CPU ..".encode(),
        b"Particle transportation complete!",
        b"GPUassert: out of memory here",
        b"x" * 30,
        b"ERROR: \xff\xfe",
        b"",
    ]
)


@given(
    lines=st.lists(LINES, max_size=30),
    junk=st.binary(max_size=60),
    ends=st.sampled_from([b"\n", b"\r\n"]),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_any_split_of_anything_gives_the_events_of_the_whole(
    lines: list[bytes], junk: bytes, ends: bytes, cuts: list[int]
) -> None:
    data = ends.join([*lines, junk, *lines])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "LINE_LIMIT", 50)
        assert fed(data, cuts)[0] == fed(data)[0]


def test_an_unfinished_line_waits_for_its_newline() -> None:
    parser = TpsLogParser()
    assert parser.feed(b"Time taken by MC engine: 1 milli-seconds") == []
    assert not parser.line_complete
    assert parser.feed(b"\n") == [RunSucceeded("Time taken by MC engine: 1 milli-seconds")]
    assert parser.line_complete


def test_a_line_that_is_too_long_is_cut_counted_and_forgotten() -> None:
    parser = TpsLogParser()
    events = []
    for _ in range(100):
        events += parser.feed(b"x" * 10_000)
    assert events == [Anomaly("line_too_long")]
    assert len(parser._unfinished) <= parser_module.LINE_LIMIT
    assert parser.feed(b"tail\nTime taken by MC engine: 1\n")[-1] == RunSucceeded("Time taken by MC engine: 1")


def test_carriage_returns_nul_bytes_and_invalid_utf8_do_not_hide_a_line() -> None:
    data = b"\0\0\0Generating particles for (2 of 3 batches) in CPU ..\r\n\xff\xfe\nFATAL ERROR \xff\r\n"
    events, _ = fed(data)
    assert BatchStarted(2, 3) in events
    assert RunFailed("fatal_error", "FATAL ERROR \ufffd") in events


class TestThePlansInterface:
    """The unit tests of the plan's section 5.2, as they are written there, and what belongs to them."""

    def test_parse_total_batches(self) -> None:
        parser = TpsLogParser()
        line = "Uploading particles with batch.. : Particle count --> 10000000 with 18 batches"
        parser.parse_line(line)
        assert parser.total_batches == 18

    def test_parse_current_batch(self) -> None:
        parser = TpsLogParser()
        parser.total_batches = 18
        line = "Generating particles for (5 of 18 batches) in CPU .."
        result = parser.parse_line(line)
        assert result is not None
        assert result.current_batch == 5
        assert result.progress_percent == pytest.approx(27.78, rel=0.01)

    def test_a_line_without_progress_says_none(self) -> None:
        assert TpsLogParser().parse_line("Particle generation complete!") is None

    def test_the_counters_own_total_is_enough(self) -> None:
        result = TpsLogParser().parse_line("Generating particles for (5 of 18 batches) in CPU ..")
        assert result is not None
        assert (result.total_batches, result.current_batch) == (18, 5)

    def test_reset_forgets(self) -> None:
        parser = TpsLogParser()
        parser.parse_line("Generating particles for (5 of 18 batches) in CPU ..")
        parser.reset()
        assert (parser.total_batches, parser.current_batch) == (None, 0)

    def test_zero_batches_are_no_division(self) -> None:
        parser = TpsLogParser()
        parser.parse_line("Uploading particles with batch.. : Particle count --> 1000 with 0 batches")
        assert parser.parse_line("Generating particles for (1 of 0 batches) in CPU ..") is None

    @given(st.text())
    def test_no_line_raises(self, line: str) -> None:
        TpsLogParser().parse_line(line)


class TestSitePatterns:
    def test_are_added_to_the_built_in_ones(self) -> None:
        site = SitePatterns.of([r"in (\d+) parts"], [r"part (\d+)"], ["all parts done"], ["no more parts"])
        data = b"runs in 4 parts\npart 2 begins\nno more parts!\nall parts done\nTime taken by MC engine: 1\n"
        assert fed(data, site=site)[0] == [
            BatchesAnnounced(4),
            BatchStarted(2),
            RunFailed("error", "no more parts!"),
            RunSucceeded("all parts done"),
            RunSucceeded("Time taken by MC engine: 1"),
        ]

    def test_a_counter_may_name_the_total(self) -> None:
        site = SitePatterns.of(current_batch=[r"part (\d+)/(\d+)"])
        assert fed(b"part 3/7\n", site=site)[0] == [BatchStarted(3, 7)]

    def test_groups_that_are_no_number_say_nothing(self) -> None:
        site = SitePatterns.of([r"in (\w+) parts"], [r"part (\w*)/?(\d+)?"])
        assert fed(b"in some parts\npart x\npart \n", site=site)[0] == []

    def test_those_of_the_plan_change_nothing(self) -> None:
        site = SitePatterns.of(
            [r"with (\d+) batches"],
            [r"Generating particles for \((\d+) of (\d+) batches\)"],
            ["Simulation completed successfully"],
            ["FATAL ERROR", "ERROR:", "Segmentation fault"],
        )
        for name in names():
            data = (LOGS / f"{name}.log").read_bytes()
            assert fed(data, site=site)[0] == fed(data)[0]
        assert fed(b"Relative ERROR: 0.01\n", site=site)[0] == []
