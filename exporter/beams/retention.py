"""When a beam may leave the store, and what is remembered of those that left.

A case is whole: its beams stay as long as one of them is open, and leave together (:mod:`exporter.beams.cases`).
Discovery reads rows again and again, those of beams that left, too. One whose row is as it was stays away; one that
comes back goes on with its run number, and the run that is still in its log is not counted a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.beam import Beam
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.snapshot import ENDED_STATES, BeamKey, BeamRow, BeamState
from exporter.sources.source import LogStat

OVER_STATES = ENDED_STATES | {BeamState.EXPIRED}
"""A beam in one of these may leave when it has been shown for long enough."""
_GONE_SECONDS = 60.0
_KEPT = 1000
"""So many that left are remembered, however few are shown."""


def leaves_at(beam: Beam, rules: StoreRules) -> float | None:
    """When the retention of a beam is over.

    Args:
        beam: it; its state must be up to date.
        rules: how long ended beams are kept.

    Returns:
        Epoch seconds; ``None`` while the beam is open: it has not ended, its end is not counted yet, or it failed and
        its row says that the communicator still works on it.
    """
    if beam.state in ENDED_STATES and beam.run.started_at is not None and not beam.run_counted:
        return None
    if beam.state not in OVER_STATES:
        # Said to be completed; nobody can look for its log at some host that is down.
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
    """The row of a beam that has not ended was deleted a minute ago: the beam leaves, whatever its case does."""
    if beam.row_missing_since is None or beam.state in OVER_STATES:
        return False
    if beam.source is None and beam.row_terminal_since is not None:
        return False
    return at - beam.row_missing_since > _GONE_SECONDS


@dataclass(frozen=True, slots=True)
class ForgottenBeam:
    """What is remembered of a beam that left the store, so that it does not come back as it was."""

    status: str | None
    updated_at: float | None
    run_number: int
    stat: LogStat | None


class Retention:
    """The beams that left last. The store alone touches them, under its lock.

    Attributes:
        forgotten: what is remembered of each; those that left first come first.
    """

    def __init__(self) -> None:
        self.forgotten: dict[BeamKey, ForgottenBeam] = {}

    def remember(self, beam: Beam, rules: StoreRules) -> tuple[BeamKey, ...]:
        """A beam leaves.

        Returns:
            The keys of what is remembered now, or is not any more.
        """
        row = beam.row
        # A row's status is a text of its own: the same words ten thousand times.
        status = next((known for known in rules.statuses.terminal if known == row.status), row.status)
        self.forgotten.pop(row.key, None)
        self.forgotten[row.key] = ForgottenBeam(status, row.updated_at, beam.run_sequence.number, beam.stat)
        if len(self.forgotten) > max(rules.max_beams, _KEPT):
            oldest = next(iter(self.forgotten))
            del self.forgotten[oldest]
            return oldest, row.key
        return (row.key,)

    def stays_away(self, row: BeamRow) -> bool:
        """The row is that of a beam that left, and as it was then."""
        retired = self.forgotten.get(row.key)
        return retired is not None and (row.status, row.updated_at) == (retired.status, retired.updated_at)

    def run_number(self, row: BeamRow, statuses: StatusRules) -> int | None:
        """In which run a beam is that comes back; ``None`` where it never left."""
        retired = self.forgotten.get(row.key)
        if retired is None:
            return None
        revived = retired.status in statuses.terminal and row.status not in statuses.terminal
        return retired.run_number + revived

    def begins_anew(self, beam: Beam) -> bool:
        """The beam came back as if in the run in which it left, and its log is another than it was then."""
        retired = self.forgotten.get(beam.row.key)
        if retired is None or retired.stat is None or beam.run_sequence.number != retired.run_number:
            return False
        return beam.stat != retired.stat

    def was_counted(self, beam: Beam) -> bool:
        """The beam left and came back with the log it had: its run was counted then."""
        retired = self.forgotten.get(beam.row.key)
        return retired is not None and beam.run.ended and beam.stat is not None and beam.stat == retired.stat
