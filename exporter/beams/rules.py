"""What the configuration asks for of beams. Times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StallRules:
    """Limits of silence (``progress_tracking.stall`` and ``monitoring.timeout_seconds``)."""

    factor: float = 3.0
    minimum_seconds: float = 120.0
    first_batch_seconds: float = 900.0
    buffered_seconds: float = 7200.0
    timeout_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class StatusRules:
    """What the words in the column ``status`` mean (``discovery`` in the configuration)."""

    terminal: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
    completed: frozenset[str] = frozenset({"completed"})
    post_run: frozenset[str] = frozenset({"downloading", "postprocessing"})
    simulating: frozenset[str] = frozenset({"hpc_running", "simulation_running"})
    reset: frozenset[str] = frozenset({"pending"})


@dataclass(frozen=True, slots=True)
class StoreRules:
    """All that the store needs of the configuration.

    Args:
        stall, statuses: see there.
        retention_seconds: how long a beam that succeeded is shown.
        failed_retention_seconds: how long one that failed or expired is shown.
        max_beams: so many are shown; so many that left are remembered.
        output_sources: sources that must find the dose file of a run (``output_path``).
    """

    stall: StallRules = field(default_factory=StallRules)
    statuses: StatusRules = field(default_factory=StatusRules)
    retention_seconds: float = 3600.0
    failed_retention_seconds: float = 86400.0
    max_beams: int = 10_000
    output_sources: frozenset[str] = frozenset()
