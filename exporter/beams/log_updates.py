"""Changes that a log brings: it is found, read, or its date is corrected."""

from __future__ import annotations

from collections import Counter

from exporter.beams.attribution import LogAttribution
from exporter.beams.beam_claims import decide_claim
from exporter.beams.beam_reads import apply_events, correct_dates
from exporter.beams.counters import Counters
from exporter.beams.snapshot import BeamKey, WatchedBeam
from exporter.beams.store_data import StoreData
from exporter.beams.transitions import RunBefore, start_run, update_output_check
from exporter.beams.views import keep_shown_ratio
from exporter.logs.events import Event
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat


def watched_beams(data: StoreData, source: str) -> list[WatchedBeam]:
    """Return the beams whose logs a source polls for."""
    return [WatchedBeam(beam.row, beam.path if beam.source == source else None) for beam in data.beams.values()]


def claim_log(
    data: StoreData, key: BeamKey, source: str, path: str, stat: LogStat, at: float, *, path_moved: bool, written: bool
) -> bool:
    """Decide whether a source follows a log; see :meth:`~exporter.beams.store.BeamStore.claim`."""
    beam = data.beams.get(key)
    if beam is None:
        return False
    before, place = RunBefore.of(data, beam), (beam.source, beam.path)
    timeline = data.timeline
    clock_offset_seconds = data.sources.clock_offset_seconds(source, timeline)
    claimed = decide_claim(
        beam,
        source,
        path,
        stat,
        at,
        data.rules.statuses,
        modified_at=timeline.from_wall(stat.modified_at - (clock_offset_seconds or 0.0)),
        path_moved=path_moved,
        written=written,
        clock_offset_seconds=clock_offset_seconds,
    )
    data.watch_version += place != (beam.source, beam.path)
    if place == (None, None) and data.forgotten.has_new_log(beam):
        beam.run_sequence.number += 1
    if beam.run_sequence.number != before.number:
        start_run(data, beam, before)
    if beam.view is None:
        data.mark_changed(key)
    data.collect_decisions(beam)
    return claimed


def apply_read(
    data: StoreData,
    key: BeamKey,
    path: str,
    events: list[Event],
    at: float,
    *,
    read_at: float,
    more: bool,
    recent: bytes,
    checkpoint: Checkpoint | None,
    polled_at: float | None,
) -> tuple[bool, bool]:
    """Apply one read of a beam's log; see :meth:`~exporter.beams.store.BeamStore.apply`.

    Returns:
        Whether the beam has made progress, and whether its log must be read again from its beginning.
    """
    beam = data.beams.get(key)
    if beam is None:
        return False, False
    if beam.path != path or beam.source is None:
        return False, beam.log is LogAttribution.PREVIOUS_REREAD
    data.mark_changed(key)
    data.unconfirmed.discard(key)
    beam.recent, beam.checkpoint = recent, checkpoint
    stage, before = beam.stage, RunBefore.of(data, beam)
    keep_shown_ratio(beam, read_at)
    if apply_events(
        beam,
        events,
        at,
        read_at=read_at,
        more=more,
        statuses=data.rules.statuses,
        timeline=data.timeline,
        polled_at=polled_at,
    ):
        start_run(data, beam, before)
    update_output_check(data, beam, read_at)
    run = beam.run
    for seconds in run.timed:
        data.counters.count_batch(beam.source, seconds)
    if run.anomalies != beam.anomalies:
        data.counters.count_anomalies(beam.source, run.anomalies - beam.anomalies)
        beam.anomalies = Counter(run.anomalies)
    if data.forgotten.was_counted(beam):
        beam.run_counted = True
    data.collect_decisions(beam)
    return beam.stage != stage, beam.log is LogAttribution.PREVIOUS_REREAD


def set_clock_offset(data: StoreData, source: str, seconds: float | None) -> None:
    """Record the clock offset of a source, and date and attribute its logs again.

    Args:
        data: the store's data.
        source: its name.
        seconds: how much later than our clock says; ``None`` while that is not known.
    """
    timeline = data.timeline
    data.sources.set_clock_offset(source, seconds, timeline.clock_steps)
    if seconds is None:
        return
    for key, beam in data.beams.items():
        if beam.source != source:
            continue
        data.mark_changed(key)
        before, ended_at = RunBefore.of(data, beam), beam.run.ended_at
        if correct_dates(beam, seconds, data.rules.statuses, timeline):
            before.counted = True  # it had ended before anybody watched
            start_run(data, beam, before)
        elif beam.run_counted and _must_be_counted(data.counters, ended_at, beam.run.ended_at):
            beam.run_counted = False
        data.collect_decisions(beam)


def _must_be_counted(counters: Counters, before: float | None, after: float | None) -> bool:
    """Whether a run that seemed to have ended before the counters began ended later by its corrected date."""
    return before is not None and after is not None and not counters.covers(before) and counters.covers(after)
