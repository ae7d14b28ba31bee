"""The steady timeline itself: what it makes of clocks that are set, and of time in which the process does not run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.process.clock import SUSPENDED_SECONDS, Clock, ClockReading

START = 1_800_000_000.0
HOUR = 3600.0


class Machine:
    """A wall clock, an uptime and a process between them."""

    def __init__(self) -> None:
        self.wall = START
        self.uptime = 1000.0
        self.events: list[tuple[str, float]] = []
        self.clock = self.start()

    def start(self) -> Clock:
        return Clock(
            on_event=lambda event, seconds: self.events.append((event, round(seconds, 3))),
            wall=lambda: self.wall,
            uptime=lambda: self.uptime,
        )

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds


def test_the_present_instant_advances_like_the_wall_clock() -> None:
    machine = Machine()
    for _ in range(10):
        machine.passes(1.0)
        assert machine.clock.now() == pytest.approx(machine.wall)
    assert machine.events == []


@pytest.mark.parametrize("step", [HOUR, -HOUR, 2.0, -2.0])
def test_setting_the_clock_does_not_change_the_present_instant(step: float) -> None:
    machine = Machine()
    before = machine.clock.now()
    machine.wall += step
    assert machine.clock.now() == before
    assert machine.clock.timeline.to_wall(before) == pytest.approx(machine.wall)
    assert machine.clock.timeline.from_wall(machine.wall) == pytest.approx(before)
    assert machine.clock.timeline.clock_steps == 1
    assert machine.events == [("set", step)]


@pytest.mark.parametrize("step", [0.9, -0.9])
def test_small_steps_of_the_clock_count_as_setting_it_once_they_add_up(step: float) -> None:
    machine = Machine()
    machine.wall += step
    machine.clock.now()
    assert machine.events == []
    machine.wall += step
    machine.clock.now()
    assert machine.events == [("set", 2 * step)]


def test_time_in_which_the_process_was_stopped_is_left_out() -> None:
    machine = Machine()
    before = machine.clock.now()
    machine.passes(600.0)
    after = machine.clock.now()
    assert 0 < after - before < 0.01
    timeline = machine.clock.timeline
    assert timeline.to_wall(before) == pytest.approx(START), "instants before it keep their wall-clock times"
    assert timeline.to_wall(after) == pytest.approx(machine.wall)
    assert timeline.from_wall(START + 300) == before, "a file that was written meanwhile"
    assert timeline.clock_steps == 0
    assert machine.events == [("suspended", 600.0)]


def test_a_pause_of_five_seconds_is_not_left_out() -> None:
    machine = Machine()
    before = machine.clock.now()
    machine.passes(SUSPENDED_SECONDS)
    assert machine.clock.now() - before == pytest.approx(SUSPENDED_SECONDS)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("passes"), st.floats(0.01, 4.9)),
        st.tuples(st.just("stops"), st.floats(5.1, 1e6)),
        st.tuples(st.just("set"), st.floats(-1e6, 1e6)),
    ),
    max_size=30,
)


@given(STEPS)
def test_instants_never_go_back_and_convert_to_wall_clock_times_and_back(steps: list[tuple[str, float]]) -> None:
    machine = Machine()
    instants = [machine.clock.now()]
    ran = 0.0
    for kind, seconds in steps:
        if kind == "set":
            machine.wall += seconds
        else:
            machine.passes(seconds)
            ran += seconds if kind == "passes" else 0.0
        instants.append(machine.clock.now())
        timeline = machine.clock.timeline
        assert timeline.to_wall(instants[-1]) == pytest.approx(machine.wall, abs=1.001)
        for instant in instants:
            assert timeline.from_wall(timeline.to_wall(instant)) == pytest.approx(instant, abs=1e-3)
    assert instants == sorted(instants)
    assert instants[-1] - instants[0] == pytest.approx(ran, abs=0.1)


def test_an_event_is_reported_without_holding_the_lock_of_the_clock() -> None:
    """A log line may wait for a slow disk: that must not stop every thread that asks for the time."""
    machine = Machine()
    locked: list[bool] = []
    machine.clock = Clock(
        on_event=lambda *_: locked.append(machine.clock._lock.locked()),
        wall=lambda: machine.wall,
        uptime=lambda: machine.uptime,
    )
    machine.wall += HOUR
    machine.clock.now()
    assert locked == [False]


class TestNextProcess:
    def test_it_continues_the_timeline_of_the_process_before(self) -> None:
        machine = Machine()
        machine.wall += HOUR
        machine.passes(600.0)
        before = machine.clock.now()
        reading = machine.clock.reading()
        machine.passes(30.0)
        clock = machine.start()
        clock.resume(reading)
        assert clock.now() - before == pytest.approx(30.0), "the time between the two is counted"
        assert clock.timeline.to_wall(before) == pytest.approx(machine.wall - 30)
        assert clock.timeline.clock_steps == 1
        assert clock.timeline.gaps == machine.clock.timeline.gaps

    @pytest.mark.parametrize("step", [HOUR, -HOUR])
    def test_it_notices_that_the_clock_was_set_in_between(self, step: float) -> None:
        machine = Machine()
        before, reading = machine.clock.now(), machine.clock.reading()
        machine.passes(3.0)
        machine.wall += step
        clock = machine.start()
        clock.resume(reading)
        assert clock.now() - before == pytest.approx(3.0)
        assert clock.timeline.clock_steps == 1

    def test_it_uses_the_wall_clock_after_a_reboot(self) -> None:
        machine = Machine()
        before, reading = machine.clock.now(), replace(machine.clock.reading(), boot_id="another")
        machine.passes(7200.0)
        machine.uptime = 20.0
        clock = machine.start()
        clock.resume(reading)
        assert clock.now() - before == pytest.approx(7200.0)
        assert clock.timeline.clock_steps == 0

    def test_no_instant_lies_in_the_future_after_a_reboot_with_an_earlier_time(self) -> None:
        machine = Machine()
        before, reading = machine.clock.now(), replace(machine.clock.reading(), boot_id="another")
        machine.wall -= HOUR
        clock = machine.start()
        clock.resume(reading)
        assert clock.now() == pytest.approx(before)
        assert clock.timeline.to_wall(clock.now()) == pytest.approx(machine.wall)
        assert clock.timeline.clock_steps == 1

    def test_it_reads_the_instants_of_an_old_state_as_wall_clock_times(self) -> None:
        machine = Machine()
        boot_id = machine.clock.reading().boot_id
        old = ClockReading(machine.wall - 10.0, machine.uptime - 10.0, boot_id)
        machine.clock.resume(old)
        assert machine.clock.now() == pytest.approx(machine.wall)
        assert machine.clock.timeline.clock_steps == 0
