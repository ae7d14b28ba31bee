"""What a campaign rests on: schedules that can be had again, and the truth about what it simulates."""

from __future__ import annotations

import inspect

import pytest

from exporter.demo.simulator import Simulation
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.schedule import plan
from tests.chaos.truth import Truth, truth


def test_a_schedule_can_be_had_again() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_says_what_it_does(kind: type[Fault]) -> None:
    assert not inspect.isabstract(kind)


@pytest.mark.parametrize(
    ("simulation", "expected"),
    [
        (Simulation(batches=(3, 2)), Truth("succeeded", "", 5, 5, 5)),
        (Simulation(dialect="moqui-stat", gpu=True, batches=(2,), rounds=3), Truth("succeeded", "", 6, 6, 6)),
        (Simulation(batches=(3, 2), failure="killed", at_batch=2), Truth("failed", "killed", 3, 2, 1)),
        (Simulation(batches=(3, 2), failure="assertion", at_batch=4), Truth("failed", "assertion", 5, 4, 3, 2)),
        (Simulation(failure="out_of_memory", at_batch=4), Truth("failed", "out_of_memory", 18, 3, 3)),
        (Simulation(failure="killed", at_batch=4, shell="bash"), Truth("failed", "status", 18, 4, 3)),
        (Simulation(failure="output_error"), Truth("failed", "output_error", 18, 18, 18)),
        (Simulation(failure="exception"), Truth("failed", "exception", None, 0, 0)),
    ],
)
def test_what_a_log_says_in_the_end_is_known_from_its_simulation(simulation: Simulation, expected: Truth) -> None:
    assert truth(simulation) == expected
