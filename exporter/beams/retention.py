"""When a beam is removed from the store, and what is remembered of it.

The beams of a case are removed together, when none of them is open any more (:mod:`exporter.beams.cases`). Discovery
still reads the rows of removed beams. A beam whose row is unchanged is not added again. A beam that returns continues
its run numbers, and a run that is still in its log is not counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.beam import Beam
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.snapshot import ENDED_STATES, BeamKey, BeamRow, BeamState
from exporter.sources.source import LogStat

OVER_STATES = ENDED_STATES | {BeamState.EXPIRED}
"""States in which a beam may be removed once its retention is over."""
_GONE_SECONDS = 60.0
_KEPT = 1000
"""Least number of removed beams that are remembered."""


def leaves_at(beam: Beam, rules: StoreRules) -> float | None:
    """Return when the retention of a beam is over.

    Args:
        beam: the beam; its recorded state must be up to date.
        rules: how long ended beams are kept.

    Returns:
        The instant. ``None`` while the beam is open: it has not ended, its end is not counted yet, or it has failed and
        its row says that the communicator still works on it.
    """
    if beam.state in ENDED_STATES and beam.run.started_at is not None and not beam.run_counted:
        return None
    if beam.state not in OVER_STATES:
        # The row is terminal, but the log cannot be looked for while a host is down.
        if beam.source is not None or beam.row_terminal_since is None:
            return None
        return beam.row_terminal_since + rules.retention_seconds
    if beam.more_to_read:
        return None
    if beam.state is BeamState.SUCCEEDED:
        return beam.state_since + rules.retention_seconds
    status = beam.row.status
    active = status is not None and status not in rules.statuses.terminal and beam.row_missing_since is None
    return None if active else beam.state_since + rules.failed_retention_seconds


def was_deleted(beam: Beam, at: float) -> bool:
    """Whether the row of an open beam was deleted over a minute ago: it is removed without the rest of its case."""
    if beam.row_missing_since is None or beam.state in OVER_STATES:
        return False
    if beam.source is None and beam.row_terminal_since is not None:
        return False
    return at - beam.row_missing_since > _GONE_SECONDS


@dataclass(frozen=True, slots=True)
class ForgottenBeam:
    """What is remembered of a removed beam: its row, its run number and its log."""

    status: str | None
    updated_at: float | None
    run_number: int
    stat: LogStat | None


class ForgottenBeams:
    """The beams that were removed last. Not thread-safe: the store uses it under its lock.

    Attributes:
        by_key: what is remembered of each, in the order in which they were removed.
    """

    def __init__(self) -> None:
        self.by_key: dict[BeamKey, ForgottenBeam] = {}

    def remember(self, beam: Beam, rules: StoreRules) -> tuple[BeamKey, ...]:
        """Remember a beam that is removed, and forget the oldest one if there are too many.

        Returns:
            The keys whose memory has changed: the forgotten beam first, if any, then this one.
        """
        row = beam.row
        # Each row has a text of its own for the same status; the rules' own text saves memory.
        status = next((known for known in rules.statuses.terminal if known == row.status), row.status)
        self.by_key.pop(row.key, None)
        self.by_key[row.key] = ForgottenBeam(status, row.updated_at, beam.run_sequence.number, beam.stat)
        if len(self.by_key) > max(rules.max_beams, _KEPT):
            oldest = next(iter(self.by_key))
            del self.by_key[oldest]
            return oldest, row.key
        return (row.key,)

    def is_unchanged(self, row: BeamRow) -> bool:
        """Whether a row belongs to a removed beam and is as it was then."""
        known = self.by_key.get(row.key)
        return known is not None and (row.status, row.updated_at) == (known.status, known.updated_at)

    def run_number(self, row: BeamRow, statuses: StatusRules) -> int | None:
        """Return the run number with which a beam returns; ``None`` for a beam that was never removed."""
        known = self.by_key.get(row.key)
        if known is None:
            return None
        revived = known.status in statuses.terminal and row.status not in statuses.terminal
        return known.run_number + revived

    def has_new_log(self, beam: Beam) -> bool:
        """Whether a beam that returned with its old run number has another log than it had."""
        known = self.by_key.get(beam.row.key)
        if known is None or known.stat is None or beam.run_sequence.number != known.run_number:
            return False
        return beam.stat != known.stat

    def was_counted(self, beam: Beam) -> bool:
        """Whether a beam that returned still has the log whose run was counted before."""
        known = self.by_key.get(beam.row.key)
        return known is not None and beam.run.ended and beam.stat is not None and beam.stat == known.stat
