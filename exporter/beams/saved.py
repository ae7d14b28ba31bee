"""What is saved of the store: marks for what has changed since the last save, and conversion to JSON and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from exporter.beams.beam import Beam
from exporter.beams.retention import ForgottenBeam
from exporter.beams.snapshot import BeamKey, BeamRow, EndedRun, HistogramView
from exporter.beams.sources import SourceState
from exporter.process.clock import ClockReading

_LONGEST_FIELD = 4096
_RUNS_WAITING = 10_000
"""So many ended runs wait to be saved while the disk is full."""


@dataclass(slots=True)
class SavedCounters:
    """The counters; mappings whose keys are not texts are lists of items."""

    since: float
    runs: list[tuple[tuple[str, str, str], int]]
    durations: dict[str, HistogramView]
    anomalies: dict[str, dict[str, int]]


@dataclass(slots=True)
class SavedSources:
    """The sources, and the clock readings that all saved times refer to."""

    states: dict[str, SourceState]
    clocks: ClockReading | None = None


Rates = list[tuple[tuple[str, float], float]]
"""Items of seconds per particle (or batch), by source and particles per batch."""

_beam = TypeAdapter(Beam)
_forgotten = TypeAdapter(tuple[BeamKey, ForgottenBeam])
_counters = TypeAdapter(SavedCounters)
_sources = TypeAdapter(SavedSources)
_rates = TypeAdapter(Rates)


@dataclass(slots=True)
class StoredState:
    """A store as JSON, and the last runs that ended.

    Args:
        parts: ``counters``, ``sources`` and ``rates``.
        beams: in the order in which they were found.
        forgotten: removed beams, in the order of their removal.
        ended: the last runs that ended.
    """

    parts: dict[str, bytes] = field(default_factory=dict)
    beams: list[bytes] = field(default_factory=list)
    forgotten: list[bytes] = field(default_factory=list)
    ended: list[EndedRun] = field(default_factory=list)


@dataclass(slots=True)
class RestoredState:
    """A saved store, decoded from a :class:`StoredState`."""

    counters: SavedCounters
    sources: SavedSources
    rates: Rates
    beams: dict[BeamKey, Beam]
    forgotten: dict[BeamKey, ForgottenBeam]
    ended: list[EndedRun]

    @classmethod
    def decode(cls, stored: StoredState) -> RestoredState:
        """Decode a saved store.

        Raises:
            pydantic.ValidationError: the JSON does not describe a store.
        """
        parts = stored.parts
        beams = (_beam.validate_json(each, strict=True) for each in stored.beams)
        return cls(
            _counters.validate_json(parts.get("counters", b""), strict=True),
            _sources.validate_json(parts.get("sources", b""), strict=True),
            _rates.validate_json(parts.get("rates", b""), strict=True),
            {beam.row.key: beam for beam in beams},
            dict(_forgotten.validate_json(each, strict=True) for each in stored.forgotten),
            stored.ended,
        )


@dataclass(slots=True)
class StoreChanges:
    """What has changed since a store was saved last, all at one instant.

    Args:
        beams: changed beams as JSON; ``None`` for removed ones.
        forgotten: removed beams as JSON; ``None`` for those that need not be remembered any more.
        parts: all of ``counters``, ``sources`` and ``rates``, as JSON.
        ended: runs that have ended.
        counters: what ``parts`` holds of the counters.
    """

    beams: dict[BeamKey, bytes | None]
    forgotten: dict[BeamKey, bytes | None]
    parts: dict[str, bytes]
    ended: list[EndedRun]
    counters: SavedCounters


class UnsavedChanges:
    """Marks what has changed since the store was saved last. Only the store uses it, under its lock.

    Attributes:
        beams: keys of added, changed and removed beams, in this order; the values mean nothing.
        forgotten: keys of removed beams that must be saved or deleted, in the same form.
        ended: runs that have ended.
        notify: called at the first mark after :meth:`begin`; it must be quick.
    """

    def __init__(self) -> None:
        self.beams: dict[BeamKey, None] = {}
        self.forgotten: dict[BeamKey, None] = {}
        self.ended: deque[EndedRun] = deque(maxlen=_RUNS_WAITING)
        self.notify: Callable[[], None] | None = None
        self._notified = False

    def mark(self, key: BeamKey) -> None:
        """Note that a beam has changed."""
        self.beams[key] = None
        if not self._notified and self.notify is not None:
            self._notified = True
            self.notify()

    def begin(self) -> None:
        """Notify at the next mark again."""
        self._notified = False


def encode_beams(keys: Iterable[BeamKey], beams: Mapping[BeamKey, Beam]) -> dict[BeamKey, bytes | None]:
    """Return beams as JSON; ``None`` for removed ones, and for those whose ids are not valid UTF-8."""
    return {key: None if (beam := beams.get(key)) is None else encode_beam(beam) for key in keys}


def encode_beam(beam: Beam) -> bytes | None:
    """Return a beam as JSON; ``None`` if its id, from a file name, is not valid UTF-8."""
    row = _without_useless_texts(beam.row)
    if row is not beam.row:
        beam = copy(beam)
        beam.row = row
    try:
        return _beam.dump_json(beam)
    except (PydanticSerializationError, UnicodeEncodeError):
        return None


def decode_beam(saved: bytes) -> Beam:
    """Decode a beam that :func:`encode_beam` made.

    Raises:
        pydantic.ValidationError: the JSON does not describe a beam.
    """
    return _beam.validate_json(saved, strict=True)


def encode_forgotten(
    keys: Iterable[BeamKey], forgotten: Mapping[BeamKey, ForgottenBeam]
) -> dict[BeamKey, bytes | None]:
    """Return what is remembered of removed beams, as JSON; ``None`` for those that are not remembered."""
    return {key: _encode_one_forgotten(key, forgotten.get(key)) for key in keys}


def _encode_one_forgotten(key: BeamKey, forgotten: ForgottenBeam | None) -> bytes | None:
    try:
        return None if forgotten is None else _forgotten.dump_json((key, forgotten))
    except (PydanticSerializationError, UnicodeEncodeError):
        return None


def encode_parts(counters: SavedCounters, sources: SavedSources, rates: Rates) -> dict[str, bytes]:
    """Return counters, sources and rates as JSON, by name."""
    return {
        "counters": _counters.dump_json(counters),
        "sources": _sources.dump_json(sources),
        "rates": _rates.dump_json(rates),
    }


def can_be_saved(key: BeamKey) -> bool:
    """Whether the ids of the beam are valid UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in f"{key.case_id}{key.beam_id}")


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
