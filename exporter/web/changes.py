"""Finds what has changed between two snapshots, for pages that stay open."""

from __future__ import annotations

from typing import Any, TypeAlias

from exporter.beams.snapshot import StoreSnapshot
from exporter.web import overview_fields
from exporter.web.api_schema import Json, RenderContext, render
from exporter.web.beam_fields import BEAM, ENDED_RUN

_TOLERANCES = {"estimated_ratio": 0.001, "expected_end": 5.0}
"""Estimates change in every snapshot; smaller differences are not sent."""
_NEVER_SENT = frozenset({"remaining_seconds"})
_IDS = ("case_id", "beam_id")
_SOURCE_FIELDS = ("name", "kind", "up", "reason", "folders_missing", "clock_offset_seconds", "beams", "errors")
"""Fields of a source whose change is sent at once. The others are counters that change with every poll."""
_COUNTERS_SECONDS = 10.0

Beams: TypeAlias = dict[tuple[str, str], Json]


class ChangeTracker:
    """Keeps what subscribers know, and finds what to send next."""

    def __init__(self) -> None:
        self._beams: Beams = {}
        self._rest: Json = {}
        self._sources_key: object = None

    def full_state(self, at: float) -> Json:
        """Return everything as of the last :meth:`update`.

        Args:
            at: time of that snapshot, UTC epoch seconds.
        """
        return {"at": at, **self._rest, "beams": list(self._beams.values())}

    def update(self, snapshot: StoreSnapshot, context: RenderContext) -> Json | None:
        """Compare a snapshot with what subscribers know.

        Returns:
            What has changed; ``None`` where nothing has.
        """
        change: Json = {}
        beams: Beams = {}
        changed: list[Json] = []
        for view in snapshot.beams:
            beam = render(BEAM, view, context)
            key = beam["case_id"], beam["beam_id"]
            known = self._beams.get(key)
            if known is None:
                beams[key] = beam
                changed.append(beam)
                continue
            beams[key] = known
            known.update({name: beam[name] for name in _NEVER_SENT})
            news = {name: value for name, value in beam.items() if _has_changed(name, known[name], value)}
            if news:
                known.update(news)
                changed.append({**{name: known[name] for name in _IDS}, **news})
        if changed:
            change["beams"] = changed
        if gone := [list(key) for key in self._beams.keys() - beams.keys()]:
            change["gone"] = gone
        self._beams = beams
        for name, value in self._rest_of(snapshot, context).items():
            if self._rest.get(name, ...) != value:
                self._rest[name] = change[name] = value
        return change or None

    def _rest_of(self, snapshot: StoreSnapshot, context: RenderContext) -> Json:
        """Render everything but the beams. Mere counters of sources change only every few seconds."""
        sources = overview_fields.render_sources(snapshot, context)
        key = (
            [{name: source[name] for name in _SOURCE_FIELDS} for source in sources["sources"]],
            None if sources["database"] is None else sources["database"]["up"],
            int(context.at // _COUNTERS_SECONDS),
        )
        if key == self._sources_key:
            sources = {name: self._rest[name] for name in sources}
        self._sources_key = key
        return {
            "summary": overview_fields.summary(snapshot, context.ends),
            "beams_dropped": snapshot.beams_dropped,
            "ended": [render(ENDED_RUN, run, context) for run in snapshot.ended],
            **sources,
        }


def _has_changed(name: str, known: Any, value: Any) -> bool:
    if known == value or name in _NEVER_SENT:
        return False
    tolerance = _TOLERANCES.get(name)
    if tolerance is None or known is None or value is None:
        return True
    return abs(value - known) >= tolerance or value in (0.0, 1.0)
