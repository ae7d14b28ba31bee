"""What of a store survives a restart, as JSON and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from exporter.beams.beam import Beam
from exporter.beams.retention import ForgottenBeam
from exporter.beams.saved_fields import NotSaved
from exporter.beams.snapshot import BeamKey, BeamRow, EndedRun, HistogramView
from exporter.beams.sources import SourceState
from exporter.process.clock import ClockReading

_LONGEST_FIELD = 4096

_beam = TypeAdapter(Beam)


@dataclass(slots=True)
class SavedStore:
    """What a :class:`~exporter.beams.store.BeamStore` knows; mappings whose keys are not texts are lists of items.

    Attributes:
        clocks: continues the timeline of its instants; whoever saves it fills that in.
        beams: its beams, each as JSON (:func:`encode_beam`).
    """

    since: float
    retired: list[tuple[BeamKey, ForgottenBeam]]
    source_states: dict[str, SourceState]
    runs: list[tuple[tuple[str, str, str], int]]
    durations: dict[str, HistogramView]
    anomalies: dict[str, dict[str, int]]
    rates: list[tuple[tuple[str, float], float]]
    ended: list[EndedRun]
    clocks: ClockReading | None = None
    beams: NotSaved[list[bytes]] = field(default_factory=list)


def encode_beam(beam: Beam) -> bytes | None:
    """Return a beam as JSON; ``None`` for one that text cannot name (its file name is no UTF-8)."""
    row = _without_useless_texts(beam.row)
    if row is not beam.row:
        beam = copy(beam)
        beam.row = row
    try:
        return _beam.dump_json(beam)
    except (PydanticSerializationError, UnicodeEncodeError):
        return None


def decode_beam(saved: bytes) -> Beam:
    """Return the beam that was saved so.

    Raises:
        pydantic.ValidationError: it is no beam.
    """
    return _beam.validate_json(saved, strict=True)


def _without_useless_texts(row: BeamRow) -> BeamRow:
    """The row without texts that are read again and could be anything, where it has such."""
    if all(map(_is_useful, (row.beam_path, row.hpc_job_id, row.status, row.log_path))):
        return row
    return replace(
        row,
        beam_path=row.beam_path if _is_useful(row.beam_path) else None,
        hpc_job_id=row.hpc_job_id if _is_useful(row.hpc_job_id) else None,
        status=row.status if _is_useful(row.status) else None,
        log_path=row.log_path if _is_useful(row.log_path) else None,
    )


def _is_useful(text: str | None) -> bool:
    return text is None or (len(text) <= _LONGEST_FIELD and text.isprintable())


class EncodedBeams:
    """Beams as JSON, encoded a few at a time. The store alone touches them, under its lock.

    Attributes:
        changed: beams that have changed since they were encoded; the store adds to them.
    """

    def __init__(self) -> None:
        self.changed: set[BeamKey] = set()
        self._encoded: dict[BeamKey, bytes | None] = {}

    def encode(self, keys: Iterable[BeamKey], beams: Mapping[BeamKey, Beam]) -> None:
        """Encode those of ``keys`` that are still there."""
        for key in keys:
            beam = beams.get(key)
            if beam is not None:
                self._encoded[key] = encode_beam(beam)
                self.changed.discard(key)

    def finish(self, beams: Mapping[BeamKey, Beam]) -> list[bytes]:
        """Return all of the store's beams as they are now: what is new or has changed is encoded now."""
        self.encode((self.changed | beams.keys()) - (self._encoded.keys() - self.changed), beams)
        encoded = (self._encoded[key] for key in beams)
        return [each for each in encoded if each is not None]
