"""What a finished log says, known from the simulation that it was written by; no parser of ours is asked."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.demo.simulator import Simulation


@dataclass(frozen=True, slots=True)
class Truth:
    """What a reader of a finished log must find.

    Args:
        outcome, reason: how the run ended; no reason where it succeeded, ``status`` where the log does not say.
        total: batches announced, ``None`` where the log ends before.
        started, completed: batches.
        announcements: of batches, as far as the run got.
    """

    outcome: str
    reason: str
    total: int | None
    started: int
    completed: int
    announcements: int = 1

    @property
    def highest_percent(self) -> float:
        """The most that progress was while it ran: all of one announcement, before the next one came."""
        return 100.0 if self.announcements > 1 else self.percent

    @property
    def percent(self) -> float:
        """The plan's progress, as the column holds it."""
        if self.outcome == "succeeded":
            return 100.0
        return round(100.0 * self.started / self.total, 2) if self.total else 0.0


def truth(simulation: Simulation) -> Truth:
    """What the log of a simulated run says in the end."""
    announcements = [batches for batches in simulation.batches for _ in range(simulation.rounds)]
    everything = sum(announcements)
    match simulation.failure:
        case None:
            return Truth("succeeded", "", everything, everything, everything)
        case "output_error":
            return Truth("failed", "output_error", everything, everything, everything)
        case "exception":
            return Truth("failed", "exception", None, 0, 0)
        case "no_particles":
            return Truth("failed", "no_particles", 0, 0, 0)
    assert simulation.at_batch is not None
    total = announced = 0
    for batches in announcements:
        total += batches
        announced += 1
        if total >= simulation.at_batch:
            break
    # The CPU build fails while it makes room for a batch, before it says that the batch begins.
    never_begun = simulation.failure == "out_of_memory" and not simulation.gpu
    # bash writes its last word somewhere else.
    wordless = simulation.shell == "bash" and simulation.failure == "killed"
    reason = "status" if wordless else str(simulation.failure)
    started = simulation.at_batch - never_begun
    return Truth("failed", reason, total, started, simulation.at_batch - 1, announced)
