"""Three quarters of a minute in which everything goes wrong; for hours by hand (``docs/developer-guide.md``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from exporter.simulator import Simulation
from tests.chaos.campaign import run
from tests.chaos.faults import FAULTS
from tests.chaos.schedule import plan
from tests.chaos.truth import Truth, truth

SEED = 1
SECONDS = 45.0


@pytest.mark.timeout(300)
def test_whatever_goes_wrong_the_exporter_says_the_truth_in_the_end_and_no_false_alarm_before(tmp_path: Path) -> None:
    report = run(tmp_path, SEED, SECONDS)
    sys.stdout.write(f"\n{report}\n")
    assert report.survived.keys() == {kind.__name__ for kind in FAULTS}
    assert report.retries > 0
    assert report.scrapes > 0


def test_a_schedule_can_be_had_again() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


@pytest.mark.parametrize(
    ("simulation", "expected"),
    [
        (Simulation(batches=(3, 2)), Truth("succeeded", "", 5, 5, 5)),
        (Simulation(dialect="moqui-stat", gpu=True, batches=(2,), rounds=3), Truth("succeeded", "", 6, 6, 6)),
        (Simulation(batches=(3, 2), failure="killed", at_batch=2), Truth("failed", "killed", 3, 2, 1)),
        (Simulation(batches=(3, 2), failure="assertion", at_batch=4), Truth("failed", "assertion", 5, 4, 3)),
        (Simulation(failure="out_of_memory", at_batch=4), Truth("failed", "out_of_memory", 18, 3, 3)),
        (Simulation(failure="killed", at_batch=4, shell="bash"), Truth("failed", "status", 18, 4, 3)),
        (Simulation(failure="output_error"), Truth("failed", "output_error", 18, 18, 18)),
        (Simulation(failure="exception"), Truth("failed", "exception", None, 0, 0)),
    ],
)
def test_what_a_log_says_in_the_end_is_known_from_its_simulation(simulation: Simulation, expected: Truth) -> None:
    assert truth(simulation) == expected
