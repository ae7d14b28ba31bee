"""What readers get from the data of the store. Nothing here changes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from exporter.beams.beam import Beam
from exporter.beams.explanation import Explanation, explain_beam
from exporter.beams.snapshot import BeamKey, BeamView, DatabaseView, StoreSnapshot
from exporter.beams.state_rules import judge
from exporter.beams.store_data import StoreData
from exporter.beams.views import recorded_view, view_at
from exporter.process.clock import Timeline


def views_at(data: StoreData, beams: Iterable[Beam], at: float, timeline: Timeline) -> list[BeamView]:
    """Return the views of beams. Beams restored from a save keep their saved state until their source was polled.

    Args:
        data: the store's data.
        beams: some of its beams.
        at: the instant.
        timeline: converts instants to wall-clock times.
    """
    rules, source, unconfirmed = data.rules, data.sources.state, data.unconfirmed
    if not unconfirmed:
        return [view_at(beam, at, rules, source(beam.source), timeline) for beam in beams]
    return [
        (recorded_view if beam.row.key in unconfirmed else view_at)(beam, at, rules, source(beam.source), timeline)
        for beam in beams
    ]


def make_snapshot(
    data: StoreData,
    views: Sequence[BeamView],
    at: float,
    timeline: Timeline,
    *,
    database: DatabaseView | None,
    refused: Mapping[str, int],
    errors: Mapping[str, int],
) -> StoreSnapshot:
    """Return a snapshot with these views of beams.

    Args:
        data: the store's data.
        views: from :func:`views_at`.
        at: their instant.
        timeline: converts instants to wall-clock times.
        database: health of the mirror.
        refused: number of ids that discovery refused, by reason.
        errors: number of unexpected errors, by part of the exporter.
    """
    counters = data.counters.view()
    if database is not None and database.last_write_at is not None:
        database = replace(database, last_write_at=timeline.to_wall(database.last_write_at))
    return StoreSnapshot(
        at=timeline.to_wall(at),
        wall_offset_seconds=timeline.wall_offset_seconds,
        beams=tuple(views),
        beams_dropped=data.hidden(len(views)),
        sources=data.sources.views(counters.anomalies, timeline),
        database=database,
        runs=counters.runs,
        batch_durations=counters.durations,
        discovery_refused=dict(refused),
        errors=dict(errors),
        ended=data.counters.ended(timeline),
        rows_from_restart=frozenset(data.rows_from_restart),
    )


def explain(data: StoreData, key: BeamKey, at: float) -> Explanation | None:
    """Return the evidence about a beam; ``None`` for an unknown beam."""
    beam = data.beams.get(key)
    if beam is None:
        return None
    timeline = data.timeline
    [view] = views_at(data, [beam], at, timeline)
    return explain_beam(
        beam,
        view,
        judge(beam.evidence(data.rules, data.source_of(beam)), at),
        timeline,
        row_from_restart=key in data.rows_from_restart,
        resumed=key in data.unconfirmed,
    )
