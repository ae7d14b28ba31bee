"""A run that the scheduler interrupted is no fault, and its next start in the same log is a new run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.replay import LOGS
from tests.support.world import World

WHOLE = (LOGS / "v2_b18.log").read_bytes()
SLURM = b"slurmstepd-n1: error: *** JOB 9 ON n1 CANCELLED AT 2026-01-01T00:00:00 %s***\n"
ENDS = [
    ("preempted", SLURM % b"DUE TO PREEMPTION "),
    ("node_failure", SLURM % b"DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS "),
    ("cancelled", SLURM % b"DUE TO JOB REQUEUE "),
    ("time_limit", SLURM % b"DUE TO TIME LIMIT "),
    ("node_failure", b"srun: error: Node failure on n1\n"),
]
PREPARING = WHOLE.index(b"Starting process of creating")
SIMULATING = WHOLE.index(b"Particle transportation complete!")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("cut", [PREPARING, SIMULATING], ids=["preparing", "simulating"])
@pytest.mark.parametrize(("reason", "line"), ENDS, ids=lambda value: str(value)[-40:])
def test_an_interrupted_run_appended_to_the_same_log_starts_run_2(
    world: World, reason: str, line: bytes, cut: int
) -> None:
    world.row()
    world.look()
    world.write(WHOLE[:cut] + line)
    world.look()
    assert (world.state, world.view().reason, world.view().run_number) == ("failed", reason, 1)
    world.write(WHOLE[:SIMULATING])
    world.look()
    assert (world.state, world.view().reason, world.view().run_number) == ("running", None, 2)
    world.write(WHOLE[SIMULATING:])
    world.look()
    assert (world.state, world.view().reason, world.view().run_number) == ("succeeded", None, 2)


def test_a_failed_run_stays_failed_when_its_script_starts_another_process(world: World) -> None:
    world.row()
    world.look()
    world.write(WHOLE[:SIMULATING] + b"CUDA error after (finalize): unspecified launch failure\n" + WHOLE)
    world.look()
    assert (world.state, world.view().reason, world.view().run_number) == ("failed", "cuda", 1)
