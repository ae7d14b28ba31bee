"""The parts of the configuration that decide about beams. Durations are in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.beams import statuses

ATTENTION_SECONDS = 600.0
"""A beam needs attention when its row has reported a running simulation for this long without a log. The alert
MQIBeamWaitingForLog has the same delay."""


@dataclass(frozen=True, slots=True)
class StallRules:
    """How long a log may be silent (``progress_tracking.stall`` and ``monitoring.timeout_seconds``)."""

    factor: float = 3.0
    minimum_seconds: float = 120.0
    first_batch_seconds: float = 900.0
    buffered_seconds: float = 7200.0
    timeout_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class StatusRules:
    """Meaning of the values of the column ``status`` (``discovery`` in the configuration)."""

    terminal: frozenset[str] = frozenset(statuses.TERMINAL)
    completed: frozenset[str] = frozenset(statuses.COMPLETED)
    post_run: frozenset[str] = frozenset(statuses.POST_RUN)
    simulating: frozenset[str] = frozenset(statuses.SIMULATING)
    reset: frozenset[str] = frozenset(statuses.RESET)


@dataclass(frozen=True, slots=True)
class StoreRules:
    """The configuration of the store.

    Args:
        stall, statuses: limits of silence, and meaning of statuses.
        retention_seconds: how long a beam that succeeded is shown.
        failed_retention_seconds: how long a beam that failed or expired is shown.
        max_beams: largest number of beams that are shown, and of removed beams that are remembered.
        output_sources: sources on which the dose file of a run must be found (``output_path``).
    """

    stall: StallRules = field(default_factory=StallRules)
    statuses: StatusRules = field(default_factory=StatusRules)
    retention_seconds: float = 3600.0
    failed_retention_seconds: float = 86400.0
    max_beams: int = 10_000
    output_sources: frozenset[str] = frozenset()
