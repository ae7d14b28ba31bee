"""What is learned of a source's clock from growth that was seen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.clock_offset import ClockOffset

START = 1_800_000_000.0
OFFSETS = st.one_of(st.floats(-86400, 86400), st.sampled_from([-3600.0, -300.0, -10.0, -3.0, 0.0, 3.0, 10.0, 3600.0]))
POLLS = st.floats(0.2, 5.0)


class Site:
    """Logs that grow on a source whose clock is off, seen by polls of ours."""

    def __init__(self, seconds: float, poll_seconds: float, seed: int, *, whole_seconds: bool = False) -> None:
        self.seconds = seconds
        self.at = START
        self.learned = ClockOffset()
        self._poll_seconds = poll_seconds
        self._random = random.Random(seed)
        self._whole_seconds = whole_seconds

    def grows(self, path: str = "a.log", *, late_by: float = 0.0) -> float | None:
        """A log grows once at some moment between two polls; ``late_by`` is how much older its time stamp is made."""
        earliest, self.at = self.at, self.at + self._poll_seconds
        modified_at = earliest + self._random.random() * self._poll_seconds + self.seconds - late_by
        if self._whole_seconds:
            modified_at = float(int(modified_at))
        self.learned.observe(path, modified_at, earliest, self.at)
        return self.learned.seconds


def test_the_offset_is_unknown_before_a_log_has_grown() -> None:
    assert ClockOffset().seconds is None


@given(OFFSETS, POLLS, st.integers(0, 1000), st.booleans(), st.integers(1, 20))
def test_one_growth_gives_the_offset_within_a_poll_interval(
    seconds: float, poll_seconds: float, seed: int, whole_seconds: bool, growths: int
) -> None:
    site = Site(seconds, poll_seconds, seed, whole_seconds=whole_seconds)
    for number in range(growths):
        found = site.grows(f"{number % 3}.log")
        assert found == pytest.approx(seconds, abs=poll_seconds + (1.0 if whole_seconds else 0.02))


@given(st.floats(-1, 1), POLLS, st.integers(0, 1000), st.integers(1, 20))
def test_the_offset_of_a_correct_clock_is_exactly_0(share: float, poll_seconds: float, seed: int, growths: int) -> None:
    site = Site(0.0, poll_seconds, seed)
    assert {site.grows() for _ in range(growths)} == {0.0}


@given(OFFSETS, OFFSETS, POLLS, st.integers(0, 1000), st.integers(1, 4))
def test_a_corrected_clock_is_followed_after_four_growths_of_one_log(
    before: float, after: float, poll_seconds: float, seed: int, logs: int
) -> None:
    site = Site(before, poll_seconds, seed)
    for number in range(20):
        site.grows(f"{number % logs}.log")
    site.seconds = after
    for _ in range(4):
        found = site.grows("0.log")
    assert found == pytest.approx(after, abs=poll_seconds + 0.02)


@given(OFFSETS, POLLS, st.integers(0, 1000), st.lists(st.floats(10, 1e6), min_size=1, max_size=2))
def test_a_log_with_old_time_stamps_does_not_change_an_offset_learned_from_several_growths(
    seconds: float, poll_seconds: float, seed: int, late: list[float]
) -> None:
    site = Site(seconds, poll_seconds, seed)
    for number in range(5):
        site.grows(f"{number % 2}.log")
    for late_by in late:
        found = site.grows("copied.log", late_by=late_by)
    assert found == pytest.approx(seconds, abs=poll_seconds + 0.02)


@given(OFFSETS, POLLS, st.integers(0, 1000), st.lists(st.floats(0, 60), min_size=30, max_size=40))
def test_delayed_logs_do_not_outvote_logs_written_in_place(
    seconds: float, poll_seconds: float, seed: int, late: list[float]
) -> None:
    """As by ``rsync -t`` once a minute: each arrives late by another time."""
    site = Site(seconds, poll_seconds, seed)
    for number in range(3):
        site.grows(f"{number}.log")
    for number, late_by in enumerate(late):
        site.grows("synchronised.log", late_by=late_by * 10 + 10 * poll_seconds)
        found = site.grows(f"{number % 3}.log")
        assert found == pytest.approx(seconds, abs=poll_seconds + 0.02)


def test_a_wrong_first_observation_is_outvoted_by_the_next_two() -> None:
    site = Site(0.0, 1.0, 1)
    assert site.grows("copied.log", late_by=3600.0) == pytest.approx(-3600, abs=1.1)
    site.grows()
    assert site.grows() == 0.0


def test_the_offset_stays_while_no_growth_contradicts_it() -> None:
    learned = ClockOffset()
    learned.observe("a", START - 300.5, START, START + 1)
    first = learned.seconds
    learned.observe("a", START + 10 - 300.3, START + 10, START + 11)
    assert learned.seconds == first == pytest.approx(-301, abs=0.1)


@pytest.mark.parametrize("now", [-300.0, 0.0, 250.0])
def test_the_offset_of_an_earlier_process_is_used_until_two_growths_contradict_it(now: float) -> None:
    site = Site(now, 1.0, 1)
    site.learned = ClockOffset(-300.0)
    assert site.learned.seconds == -300.0
    assert site.grows() == pytest.approx(-300, abs=1)
    assert site.grows() == pytest.approx(now, abs=1.1)


def test_the_offset_is_forgotten_when_our_own_clock_is_set() -> None:
    site = Site(-300.0, 1.0, 1)
    site.grows()
    site.learned.forget()
    assert site.learned.seconds is None
    site.seconds = 60.0
    assert site.grows() == pytest.approx(60, abs=1.1)


def test_times_that_run_backwards_are_ignored() -> None:
    learned = ClockOffset()
    learned.observe("a", START, START + 10, START)
    assert learned.seconds is None
