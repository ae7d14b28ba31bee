"""Cases: which beams belong together, and the progress of a case.

A case is whole: while one of its beams is open, all of them are kept, and case progress counts each of them. When the
last beam has ended and its retention is over, they are removed together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from exporter.beams.snapshot import BeamKey, BeamView


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


def case_progress(beams: Sequence[BeamView]) -> float:
    """Return the progress of a case, 0 to 1: the mean of its beams.

    Args:
        beams: all beams of the case, at least one. A succeeded beam counts 1, a failed one the progress it reached.
    """
    return sum(beam.estimated_ratio for beam in beams) / len(beams)
