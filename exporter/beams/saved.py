"""What of a store survives a restart, and copies of its beams that are taken while it lives on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exporter.beams.beam import Beam, SavedBeam
from exporter.beams.retention import ForgottenBeam
from exporter.beams.snapshot import BeamKey, EndedRun, HistogramView
from exporter.beams.sources import SourceState
from exporter.process.clock import Reading


@dataclass(slots=True)
class SavedStore:
    """A :class:`~exporter.beams.store.BeamStore` as plain data; mappings whose keys are not texts are lists of items.

    ``clocks`` is by which clocks its moments are; whoever saves it fills that in.
    """

    since: float
    beams: list[SavedBeam]
    retired: list[tuple[BeamKey, ForgottenBeam]]
    source_states: dict[str, SourceState]
    runs: list[tuple[tuple[str, str, str], int]]
    durations: dict[str, HistogramView]
    anomalies: dict[str, dict[str, int]]
    rates: list[tuple[tuple[str, float], float]]
    ended: list[EndedRun]
    clocks: Reading | None = None
    earliest_since: float | None = None


class Copies:
    """Copies of beams, a few of them at a time. The store alone touches them, under its lock.

    Attributes:
        changed: beams that have changed since they were copied; the store adds to them.
    """

    def __init__(self) -> None:
        self.changed: set[BeamKey] = set()
        self._copied: dict[BeamKey, SavedBeam] = {}

    def take(self, keys: Iterable[BeamKey], beams: Mapping[BeamKey, Beam]) -> None:
        """Copy those of ``keys`` that are still on the store."""
        for key in keys:
            beam = beams.get(key)
            if beam is not None:
                self._copied[key] = beam.to_state()
                self.changed.discard(key)

    def of(self, beams: Mapping[BeamKey, Beam]) -> list[SavedBeam]:
        """All of the store's beams as they are now: what is new or has changed is copied now."""
        self.take((self.changed | beams.keys()) - (self._copied.keys() - self.changed), beams)
        return [self._copied[key] for key in beams]
