from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
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
def test_a_captured_log_gives_the_same_events_however_it_is_split(name: str, cuts: list[int]) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    assert fed(data, cuts)[0] == fed(data)[0]


@pytest.mark.parametrize("name", ["v2_b2", "mgh_b3partial", "good_no_matching_folder", "v2_output_unwritable"])
def test_a_log_read_byte_by_byte_gives_the_same_events(name: str) -> None:
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
        b"Run trans\0\0\0port\0Killed",
        b"cum_vertiex 12Killed",
        b"\0" * 60,
        b"x" * 49 + b"\0\0",
        b"y" * 50,
        b"z" * 49 + b"Killed",
        b"",
    ]
)


@given(
    lines=st.lists(LINES, max_size=30),
    junk=st.binary(max_size=60),
    ends=st.sampled_from([b"\n", b"\r\n"]),
    cuts=st.lists(st.integers(0, 2000), max_size=20),
)
def test_any_bytes_give_the_same_events_however_they_are_split(
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


def test_a_line_that_is_too_long_is_cut_and_counted_as_an_anomaly() -> None:
    parser = TpsLogParser()
    events = []
    for _ in range(100):
        events += parser.feed(b"x" * 10_000)
    assert events == [Anomaly("line_too_long")]
    assert len(parser.state.unfinished) <= parser_module.LINE_LIMIT
    assert parser.feed(b"tail\nTime taken by MC engine: 1\n")[-1] == RunSucceeded("Time taken by MC engine: 1")


def test_a_line_is_found_despite_carriage_returns_nul_bytes_and_invalid_utf8() -> None:
    data = b"\0\0\0Generating particles for (2 of 3 batches) in CPU ..\r\n\xff\xfe\nFATAL ERROR \xff\r\n"
    events, _ = fed(data)
    assert BatchStarted(2, 3) in events
    assert RunFailed("fatal_error", "FATAL ERROR \ufffd") in events


@pytest.mark.parametrize(
    ("counter", "expected"),
    [
        ("1 of 0", [BatchStarted(1, 0)]),
        ("7 of 3", [BatchStarted(7, 3)]),
        ("007 of 018", [BatchStarted(7, 18)]),
        ("18446744073709551615 of 18446744073709551616", [BatchStarted(2**64 - 1, 2**64)]),
        ("1 of 999999999999999999999", []),
        ("999999999999999999999 of 1", []),
        ("-1 of 5", []),
        ("1 of -5", []),
        ("1.5 of 5", []),
        ("nan of 5", []),
        ("\u0661 of \u0665", []),
        (" of ", []),
    ],
)
def test_a_number_with_more_than_20_digits_is_ignored(counter: str, expected: list[Event]) -> None:
    events, _ = fed(f"Generating particles for ({counter} batches) in CPU ..\n".encode())
    assert [event for event in events if isinstance(event, BatchStarted)] == expected


class TestDevelopmentPlanInterface:
    """The unit tests of section 5.2 of the development plan, and more about that interface."""

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

    def test_a_line_without_progress_returns_none(self) -> None:
        assert TpsLogParser().parse_line("Particle generation complete!") is None

    def test_a_batch_line_with_a_total_needs_no_announcement(self) -> None:
        result = TpsLogParser().parse_line("Generating particles for (5 of 18 batches) in CPU ..")
        assert result is not None
        assert (result.total_batches, result.current_batch) == (18, 5)

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    @pytest.mark.parametrize("kind", [str, bytes])
    def test_a_line_may_be_text_or_bytes_with_any_line_end(self, kind: type, end: str) -> None:
        line = "\0\0Generating particles for (5 of 18 batches) in CPU .." + end
        result = TpsLogParser().parse_line(line if kind is str else line.encode())
        assert result is not None
        assert result.current_batch == 5

    def test_reset_forgets_everything(self) -> None:
        parser = TpsLogParser()
        parser.parse_line("Generating particles for (5 of 18 batches) in CPU ..")
        parser.reset()
        assert (parser.total_batches, parser.current_batch) == (None, 0)

    def test_zero_batches_do_not_divide_by_zero(self) -> None:
        parser = TpsLogParser()
        parser.parse_line("Uploading particles with batch.. : Particle count --> 1000 with 0 batches")
        assert parser.parse_line("Generating particles for (1 of 0 batches) in CPU ..") is None

    @given(st.text(st.characters()))
    @example("\ud800 what a broken decoder leaves \udcff")
    def test_no_line_raises_an_exception(self, line: str) -> None:
        TpsLogParser().parse_line(line)

    @given(st.lists(st.tuples(st.integers(-5, 30), st.integers(-5, 30)), max_size=20))
    def test_progress_stays_within_0_and_100_percent(self, counters: list[tuple[int, int]]) -> None:
        parser = TpsLogParser()
        for number, total in counters:
            parser.parse_line(f"Uploading particles with batch.. : Particle count --> 10 with {total} batches")
            result = parser.parse_line(f"Generating particles for ({number} of {total} batches) in CPU ..")
            if result is not None:
                assert 0 <= result.current_batch <= result.total_batches
                assert 0.0 <= result.progress_percent <= 100.0


class TestSitePatterns:
    @pytest.mark.parametrize("total", [r"(\d+) batches", r"of (\d+) batches"])
    def test_a_total_beside_a_batch_number_is_no_announcement(self, total: str) -> None:
        line = b"Generating particles for (3 of 18 batches) in CPU ..\n"
        assert fed(line, site=SitePatterns.of([total]))[0] == fed(line)[0]

    def test_a_total_on_the_same_line_is_the_total_of_the_batch(self) -> None:
        site = SitePatterns.of([r"of (\d+)", r"/(\d+)"], [r"part (\d+)"])
        assert fed(b"part 3 of 7\n", site=site)[0] == [BatchStarted(3, 7)]
        assert fed(b"of 7 /8\n", site=site)[0] == [BatchesAnnounced(7)]

    def test_site_patterns_are_added_to_the_built_in_rules(self) -> None:
        site = SitePatterns.of([r"in (\d+) parts"], [r"part (\d+)"], ["all parts done"], ["no more parts"])
        data = b"runs in 4 parts\npart 2 begins\nno more parts!\nall parts done\nTime taken by MC engine: 1\n"
        assert fed(data, site=site)[0] == [
            BatchesAnnounced(4),
            BatchStarted(2),
            RunFailed("error", "no more parts!"),
            RunSucceeded("all parts done"),
            RunSucceeded("Time taken by MC engine: 1"),
        ]

    def test_a_pattern_for_the_batch_may_capture_the_total(self) -> None:
        site = SitePatterns.of(current_batch=[r"part (\d+)/(\d+)"])
        assert fed(b"part 3/7\n", site=site)[0] == [BatchStarted(3, 7)]

    def test_captured_text_that_is_no_number_is_ignored(self) -> None:
        site = SitePatterns.of([r"in (\w+) parts"], [r"part (\w*)/?(\d+)?"])
        assert fed(b"in some parts\npart x\npart \n", site=site)[0] == []

    def test_captured_numbers_with_more_than_20_digits_are_ignored(self) -> None:
        site = SitePatterns.of([r"in (\d+) parts"], [r"part (\d+) of (\d+)"])
        assert fed(b"in %s parts\npart %s of 3\n" % (b"9" * 21, b"9" * 21), site=site)[0] == []
        assert fed(b"part 2 of %s\n" % (b"9" * 21), site=site)[0] == [BatchStarted(2, None)]

    def test_site_patterns_are_searched_anywhere_in_a_line_of_any_bytes(self) -> None:
        site = SitePatterns.of(failure=["dose limit", "한계", "\ud800"])
        assert fed(b"\xff dose limit \xfe\n", site=site)[0] == [RunFailed("error", "\ufffd dose limit \ufffd")]
        assert fed("선량 한계 초과\n".encode(), site=site)[0] == [RunFailed("error", "선량 한계 초과")]

    def test_a_built_in_rule_keeps_its_failure_reason(self) -> None:
        site = SitePatterns.of(failure=["memory"], success=["Time taken"])
        assert fed(b"GPUassert: out of memory x 1\n", site=site)[0] == [
            RunFailed("out_of_memory", "GPUassert: out of memory x 1")
        ]
        assert fed(b"Time taken by MC engine: 1\n", site=site)[0] == [RunSucceeded("Time taken by MC engine: 1")]

    def test_an_invalid_regular_expression_is_refused(self) -> None:
        with pytest.raises(re.error):
            SitePatterns.of(failure=["("])

    def test_patterns_of_the_development_plan_change_nothing_in_captured_logs(self) -> None:
        site = SitePatterns.of(
            [r"with (\d+) batches"],
            [r"Generating particles for \((\d+) of (\d+) batches\)"],
            ["Simulation completed successfully"],
            ["FATAL ERROR", "ERROR:", "Segmentation fault"],
        )
        for name in names():
            data = (LOGS / f"{name}.log").read_bytes()
            assert fed(data, site=site)[0] == fed(data)[0]

    @pytest.mark.parametrize("pattern", ["ERROR:", "FATAL ERROR", "Segmentation fault"])
    def test_a_pattern_that_equals_a_built_in_one_matches_anywhere_in_a_line(self, pattern: str) -> None:
        line = f"module 7 says {pattern} in the middle\n".encode()
        assert fed(line)[0] == []
        assert fed(line, site=SitePatterns.of(failure=[pattern]))[0] == [RunFailed("error", line.decode().strip())]

    def test_site_patterns_search_the_first_4_kib_of_a_line(self) -> None:
        site = SitePatterns.of(failure=["needle"])
        assert fed(b"x" * 4090 + b"needle\n", site=site)[0] != []
        assert fed(b"x" * 4091 + b"needle\n", site=site)[0] == []
