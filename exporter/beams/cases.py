"""Cases: which beams belong together, and how far a case is.

A case is whole: while one of its beams is open, all of them stay on the store, and case progress counts each of them.
When the last one has ended and its retention is over, they leave together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from exporter.beams.snapshot import BeamKey, BeamView


class CaseIndex:
    """The beams of each case. The store alone uses it, under its lock.

    Args:
        keys: beams that are on the store.
    """

    def __init__(self, keys: Iterable[BeamKey] = ()) -> None:
        self._beams: dict[str, list[BeamKey]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: BeamKey) -> None:
        """A beam has come to the store."""
        self._beams.setdefault(key.case_id, []).append(key)

    def remove(self, key: BeamKey) -> None:
        """A beam has left the store."""
        beams = self._beams[key.case_id]
        beams.remove(key)
        if not beams:
            del self._beams[key.case_id]

    def beams(self, case_id: str) -> Collection[BeamKey]:
        """The beams of a case that are on the store; none where no such case is."""
        return self._beams.get(case_id, ())


def case_progress(beams: Sequence[BeamView]) -> float:
    """How far a case is: the mean of its beams, 0 to 1.

    Args:
        beams: all beams of the case, at least one. A beam that succeeded counts 1, one that failed what it reached.
    """
    return sum(beam.estimated_ratio for beam in beams) / len(beams)
