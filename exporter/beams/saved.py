"""What of a board survives a restart."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.beam import SavedBeam, SourceState
from exporter.beams.snapshot import BeamKey, EndedRun, HistogramView
from exporter.clock import Reading
from exporter.logs.source import LogStat


@dataclass(frozen=True, slots=True)
class Retired:
    """What is remembered of a beam that left the board, so that it does not come back as it was."""

    status: str | None
    updated_at: float | None
    run_number: int
    stat: LogStat | None


@dataclass(slots=True)
class SavedBoard:
    """A :class:`~exporter.beams.board.Board` as plain data; mappings whose keys are no texts are lists of their items.

    ``clocks`` is by which clocks its moments are; whoever saves it fills that in.
    """

    since: float
    beams: list[SavedBeam]
    retired: list[tuple[BeamKey, Retired]]
    source_states: dict[str, SourceState]
    runs: list[tuple[tuple[str, str, str], int]]
    durations: dict[str, HistogramView]
    anomalies: dict[str, dict[str, int]]
    rates: list[tuple[tuple[str, float], float]]
    ended: list[EndedRun]
    clocks: Reading | None = None
    earliest_since: float | None = None
