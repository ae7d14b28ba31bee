"""Prefixes and colours are removed. Whether a log has prefixes is decided once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.logs.events import Event, RunFailed
from exporter.logs.line_prefix import Prefixes, PrefixFilter
from exporter.logs.parser import SitePatterns, TpsLogParser
from exporter.logs.patterns import DECISIVE_BEGINNINGS
from tests.support.line_by_line import LineByLine
from tests.support.replay import LOGS, names

PREFIXES = [
    "0: ",
    "12: ",
    "  3: ",
    "2026-01-02T03:04:05 ",
    "2026-01-02T03:04:05.123456789Z ",
    "2026-01-02T03:04:05+09:00 ",
    "2026-01-02 03:04:05,678 ",
    "2026-01-02 03:04:05 KST ",
    "2026/01/02 03:04:05 ",
    "[2026-01-02T03:04:05.809] ",
    "[2026-01-02 03:04:05] ",
    "[   12.345678] ",
    "[03:04:05] ",
    "03:04:05 ",
    "03:04:05.678: ",
    "Jan  2 03:04:05 ",
    "Jan 02 03:04:05 gpu1 tps_env[4711]: ",
    "Jan 12 03:04:05 gpu-07.hospital.example mqi-job[9]: ",
    "Fri Jan  2 03:04:05 2026 ",
    "2026-01-02T03:04:05+09:00 gpu1 tps_env[4711]: ",
    "2026-01-02T03:04:05.123456789Z stdout F ",
    "2026-01-02T03:04:05.123456789+09:00 stderr F ",
    "2026-01-02 03:04:05,678 - tps - INFO - ",
    "2026-01-02 03:04:05,678 INFO ",
    "[1,0]<stdout>:",
    "[1,0]<stdout>: ",
    "[gpu1] ",
    "[pod/tps-1/tps] ",
    "tps-1  | ",
    "<14>Jan  2 03:04:05 gpu1 tps_env[4711]: ",
    "1767225600.123456 ",
    "0: [2026-01-02T03:04:05] ",
    "2026-01-02T03:04:05 0: ",
    "\x1b[32m",
    "\x1b[2m2026-01-02T03:04:05Z\x1b[0m \x1b[1;31m",
]


def prefixed(data: bytes, prefix: str, end: bytes = b"\n") -> bytes:
    return b"".join(prefix.encode() + line + end for line in data.split(b"\n")[:-1])


def events_of(data: bytes, cuts: list[int] | None = None) -> list[Event]:
    parser = TpsLogParser()
    events: list[Event] = []
    for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts or []), len(data)]):
        events += parser.feed(data[start:end])
    return events


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\x1b[0m\n"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_log_with_prefixes_gives_the_same_events_as_without(prefix: str, end: bytes) -> None:
    for name in ("v2_b18", "mgh_b18", "v2gpu_oom_upload", "good_b5", "v2_output_unwritable", "v2_perspot"):
        data = (LOGS / f"{name}.log").read_bytes()
        data = data[: data.rfind(b"\n") + 1]
        assert events_of(prefixed(data, prefix, end)) == events_of(data)


@pytest.mark.parametrize("name", names())
def test_every_captured_log_gives_the_same_events_behind_a_label_and_a_time_stamp(name: str) -> None:
    data = (LOGS / f"{name}.log").read_bytes()
    data = data[: data.rfind(b"\n") + 1]
    assert events_of(prefixed(data, "0: 2026-01-02T03:04:05.1 ")) == events_of(data)


@settings(deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(["", *PREFIXES]),
            st.sampled_from(
                [
                    *(b"noise 1 2 3", b"srun: job 7 queued and waiting for resources", b"", b"3: 4: ", b"ERROR: x"),
                    *(b"Generating particles for (3 of 9 batches) in CPU ..", b"Particle transportation complete!"),
                    *(b"master seed 3", b"Killed", b"  what():  bad", b"[1] killed", b"\x1b[31mERROR: y\x1b[0m"),
                ]
            ),
        ),
        max_size=25,
    ),
    cuts=st.lists(st.integers(0, 1500), max_size=12),
)
def test_any_mixture_in_any_slices_gives_the_same_events_as_line_by_line(
    parts: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    data = b"".join(prefix.encode() + line + b"\n" for prefix, line in parts)
    expected = LineByLine().feed(data)
    assert events_of(data, cuts) == expected
    assert events_of(data) == expected


def test_the_first_engine_line_decides_whether_there_are_prefixes() -> None:
    prefixes, head = PrefixFilter(), DECISIVE_BEGINNINGS[0]
    decided = [prefixes.prefixes]
    assert prefixes.lines(b"\n0: noise\n1: more") == b"\nnoise\nmore"
    decided.append(prefixes.prefixes)
    assert prefixes.lines(b"\n0: a\n" + head + b"\n0: b") == b"\na\n" + head + b"\n0: b"
    decided.append(prefixes.prefixes)
    assert prefixes.line(b"0: c") == b"0: c"
    assert decided == [Prefixes.UNDECIDED, Prefixes.UNDECIDED, Prefixes.ABSENT]


def test_the_decision_on_prefixes_survives_a_restart() -> None:
    parser = TpsLogParser()
    parser.feed(b"0: " + DECISIVE_BEGINNINGS[0] + b" x\n")
    resumed = TpsLogParser(state=parser.state)
    assert [event.reason for event in resumed.feed(b"0: ERROR: x\n") if isinstance(event, RunFailed)] == ["error"]
    assert resumed.state.prefixes.prefixes is Prefixes.PRESENT


def test_site_patterns_see_the_line_with_its_prefix() -> None:
    site = SitePatterns.of(failure=[r"^\[gpu1\] dose limit"])
    head = b"[gpu1] " + DECISIVE_BEGINNINGS[0] + b" x\n"
    events = TpsLogParser(site).feed(head + b"\x1b[31m[gpu1] dose limit\x1b[0m\nnoise\n")
    assert RunFailed("error", "[gpu1] dose limit") in events
