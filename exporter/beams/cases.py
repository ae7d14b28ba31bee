"""Cases: which beams belong together, and the progress of a case.

A case is whole: while one of its beams is open, all of them are kept, and case progress counts each of them. When the
last beam has ended and its retention is over, they are removed together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.beams.forecast import ExpectedEnd, last_end
from exporter.beams.snapshot import BeamKey, BeamState, BeamView, StoreSnapshot


class CaseIndex:
    """The beams of each case in the store. Not thread-safe: the store uses it under its lock.

    Args:
        keys: the beams in the store.
    """

    def __init__(self, keys: Iterable[BeamKey] = ()) -> None:
        self._beams: dict[str, list[BeamKey]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: BeamKey) -> None:
        """Add a beam to its case."""
        self._beams.setdefault(key.case_id, []).append(key)

    def remove(self, key: BeamKey) -> None:
        """Remove a beam from its case."""
        beams = self._beams[key.case_id]
        beams.remove(key)
        if not beams:
            del self._beams[key.case_id]

    def beams(self, case_id: str) -> Collection[BeamKey]:
        """Return the beams of a case; none if the store has no such case."""
        return self._beams.get(case_id, ())


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case at the instant of a snapshot.

    Args:
        case_id: its id.
        beams: all its beams, at least one.
        at: the instant, UTC epoch seconds.
        expected_end: when the last of its beams is expected to finish, UTC epoch seconds; ``None`` if that is unknown
            of one of them, or all have ended.
    """

    case_id: str
    beams: Sequence[BeamView]
    at: float
    expected_end: float | None

    @property
    def progress_ratio(self) -> float:
        """Mean progress of its beams, 0 to 1. A succeeded beam counts 1, a failed one the progress it reached."""
        return sum(beam.estimated_ratio for beam in self.beams) / len(self.beams)

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds until :attr:`expected_end`; ``None`` where there is none."""
        return None if self.expected_end is None else max(0.0, self.expected_end - self.at)

    @property
    def began_at(self) -> float | None:
        """When its first beam started; ``None`` unless the start of every started beam is known."""
        known = [beam.began_at for beam in self.beams if beam.started_at is not None]
        return None if None in known else min(filter(None, known), default=None)

    @property
    def states(self) -> Counter[BeamState]:
        """Number of its beams in each state."""
        return Counter(beam.state for beam in self.beams)


def group_by_case(snapshot: StoreSnapshot, ends: Mapping[BeamKey, ExpectedEnd]) -> list[CaseView]:
    """Return the cases of a snapshot, in the order of the first beam of each.

    Args:
        snapshot: all beams.
        ends: their expected ends (:func:`exporter.beams.forecast.expected_ends`).
    """
    beams: defaultdict[str, list[BeamView]] = defaultdict(list)
    for beam in snapshot.beams:
        beams[beam.key.case_id].append(beam)
    return [CaseView(case_id, its, snapshot.at, last_end(its, ends)) for case_id, its in beams.items()]
