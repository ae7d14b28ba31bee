"""What is worth a message: cases that are over, beams that failed or stalled, sources that are down.

Occurrences are found by looking at a snapshot, not by listening to changes: what happened while the exporter was
stopped is found, too, and each has a key by which it is recognised when it is found again.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from exporter.beams.snapshot import ENDED_STATES, BeamState, BeamView, SourceView, StoreSnapshot


class NotificationKind(str, Enum):
    """What a message can be about; the words of ``notifications.on`` in the configuration."""

    CASE_DONE = "case_done"
    CASE_FAILED = "case_failed"
    BEAM_FAILED = "beam_failed"
    BEAM_STALLED = "beam_stalled"
    SOURCE_DOWN = "source_down"

    __hash__ = str.__hash__


HOLD_SECONDS: dict[NotificationKind, float] = {
    NotificationKind.CASE_DONE: 30.0,  # rows of a case may be added one after another
    NotificationKind.CASE_FAILED: 30.0,
    NotificationKind.BEAM_FAILED: 10.0,  # a retry may begin at once
    NotificationKind.BEAM_STALLED: 0.0,  # the stall threshold is long enough
    NotificationKind.SOURCE_DOWN: 120.0,  # a reconnect is no news
}
"""How long something must hold before it is told."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that deserves a message.

    Args:
        kind: what it is.
        key: identifies the occurrence, also in a later process; a hash, so that it shows no id.
        beams: the beams that it is about: all of a case, or one; none for a source.
        source: the source that is down.
    """

    kind: NotificationKind
    key: str
    beams: tuple[BeamView, ...] = ()
    source: SourceView | None = None

    @property
    def case_id(self) -> str | None:
        """The case that it is about; ``None`` for a source."""
        return self.beams[0].key.case_id if self.beams else None


def find_occurrences(snapshot: StoreSnapshot) -> list[Occurrence]:
    """Find everything in a snapshot that deserves a message, whether or not it was sent before."""
    found: list[Occurrence] = []
    cases: defaultdict[str, list[BeamView]] = defaultdict(list)
    for beam in snapshot.beams:
        cases[beam.key.case_id].append(beam)
        if beam.state is BeamState.FAILED:
            found.append(_about_beams(NotificationKind.BEAM_FAILED, [beam]))
        elif beam.state is BeamState.STALLED:
            found.append(_about_beams(NotificationKind.BEAM_STALLED, [beam]))
    for beams in cases.values():
        if all(beam.state in ENDED_STATES for beam in beams):
            done = all(beam.state is BeamState.SUCCEEDED for beam in beams)
            found.append(_about_beams(NotificationKind.CASE_DONE if done else NotificationKind.CASE_FAILED, beams))
    down = [source for source in snapshot.sources if source.up is False]
    return found + [Occurrence(NotificationKind.SOURCE_DOWN, source_key(each.name), source=each) for each in down]


def source_key(name: str) -> str:
    """The key of "this source is down"; it is forgotten when the source answers again."""
    return _key(NotificationKind.SOURCE_DOWN, name)


class OccurrenceFilter:
    """Delays each occurrence until it has lasted for :data:`HOLD_SECONDS`. Used by one thread."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def due(self, occurrences: Iterable[Occurrence], at: float) -> list[Occurrence]:
        """Return the occurrences that have lasted long enough.

        Args:
            occurrences: all present ones.
            at: now, in seconds of a clock that nobody sets.
        """
        held = {each.key: each for each in occurrences}
        self._since = {key: self._since.get(key, at) for key in held}
        return [each for key, each in held.items() if at - self._since[key] >= HOLD_SECONDS[each.kind]]


def _about_beams(kind: NotificationKind, beams: list[BeamView]) -> Occurrence:
    beams = sorted(beams, key=lambda beam: beam.key)
    parts = [text for beam in beams for text in (beam.key.case_id, beam.key.beam_id, str(beam.run_number))]
    return Occurrence(kind, _key(kind, *parts), tuple(beams))


def _key(kind: NotificationKind, *parts: str) -> str:
    text = "\0".join((kind.value, *parts))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
