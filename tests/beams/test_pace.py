"""The pace of a run whose first batch is slow, because memory is allocated and kernels are compiled in it."""

from __future__ import annotations

from copy import deepcopy

import pytest
from pydantic import TypeAdapter

from exporter.beams.estimate import Forecast, stall_threshold_seconds
from exporter.beams.pace import Pace
from exporter.beams.rules import StallRules
from exporter.beams.run import BeamRun
from exporter.demo.simulator import Simulation, simulate
from exporter.logs.events import LogRead
from exporter.logs.parser import TpsLogParser

_run = TypeAdapter(BeamRun)


def runs_of(simulation: Simulation) -> list[tuple[float, BeamRun]]:
    """The end of each write of a simulated log, and the run as it was read then."""
    parser, run, at, size = TpsLogParser(), BeamRun(), 1000.0, 0
    seen = []
    for step in simulate(simulation).steps:
        at, size = at + step.delay_seconds, size + len(step.data)
        for event in parser.feed(step.data):
            run.apply(event, at)
        run.apply(LogRead(size, parser.line_complete, live=True), at)
        seen.append((at, deepcopy(run)))
    return seen


SLOW_FIRST = Simulation(batches=(10,), batch_seconds=(60.0, *[10.0] * 9), saving_seconds=1.0, generation_share=0.1)
ALL_ALIKE = Simulation(batches=(10,), batch_seconds=(10.0,) * 10, saving_seconds=1.0, generation_share=0.1)


def after_batch(simulation: Simulation, number: int) -> tuple[float, BeamRun]:
    return next((at, run) for at, run in runs_of(simulation) if run.batches.finished == number)


@pytest.mark.parametrize("number", range(3, 10))
def test_a_slow_first_batch_is_left_out_of_the_time_left_once_two_others_are_known(number: int) -> None:
    at, run = after_batch(SLOW_FIRST, number)
    _, left = Forecast.of(run, None).at(at)
    assert left == pytest.approx(10.0 * (10 - number), abs=0.5)
    assert run.pace.mean_seconds == pytest.approx(10.0, abs=0.1)


def test_the_first_batch_counts_until_two_others_are_known() -> None:
    at, run = after_batch(SLOW_FIRST, 1)
    assert Forecast.of(run, None).at(at)[1] == pytest.approx(540.0, abs=1.0)
    at, run = after_batch(SLOW_FIRST, 2)
    assert Forecast.of(run, None).at(at)[1] == pytest.approx(8 * 35.0, abs=1.0)


@pytest.mark.parametrize("number", range(1, 10))
def test_equal_batches_give_the_same_estimate_with_and_without_the_first(number: int) -> None:
    at, run = after_batch(ALL_ALIKE, number)
    assert Forecast.of(run, None).at(at)[1] == pytest.approx(10.0 * (10 - number), abs=0.5)


def test_the_stall_threshold_follows_the_longest_batch() -> None:
    _, run = after_batch(SLOW_FIRST, 5)
    assert stall_threshold_seconds(run, StallRules(minimum_seconds=1)) == pytest.approx(180.0, abs=1.0)


def test_nothing_is_left_out_when_the_first_batch_was_not_timed() -> None:
    """A log that already stood there at its fourth batch: the next ones are the first that are timed."""
    pace = Pace()
    for _ in range(2):
        pace.add(10.0, 1.0)
    pace.add(40.0, 1.0)
    assert pace.mean_seconds == pytest.approx(20.0)
    assert pace.seconds_per_work == pytest.approx(20.0)


def test_the_pace_is_the_same_after_a_restart() -> None:
    _, run = after_batch(SLOW_FIRST, 4)
    again = _run.validate_json(_run.dump_json(run), strict=True)
    assert again.pace == run.pace
    assert again.pace.warm_up_seconds == pytest.approx(60.0, abs=0.1)
