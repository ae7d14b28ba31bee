"""Snapshots of a store made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from exporter.beams.attribution import LogAttribution, RowKnowledge
from exporter.beams.decisions import Rule
from exporter.beams.explanation import Explanation
from exporter.beams.snapshot import (
    UNKNOWN_SOURCE,
    BeamKey,
    BeamRow,
    BeamState,
    BeamView,
    DatabaseView,
    HistogramView,
    OutputFile,
    OutputState,
    SourceView,
    StoreSnapshot,
    Summary,
)
from exporter.polling.path_check import PathCheck

NOW = 1_760_000_000.0


def explain_of(snapshot: Callable[[], StoreSnapshot], key: BeamKey) -> tuple[Explanation, list[PathCheck]] | None:
    """An explanation of a beam of a snapshot, whose log is looked for at two places."""
    view = next((each for each in snapshot().beams if each.key == key), None)
    if view is None:
        return None
    explanation = Explanation(
        view=view,
        rule=Rule.PROGRESS,
        valid_until=NOW + 100,
        log=LogAttribution.CURRENT,
        log_rule=Rule.LOG_WRITTEN_WHILE_WATCHED,
        log_read_bytes=4711,
        more_to_read=False,
        log_last_growth_at=NOW - 20,
        row_knowledge=RowKnowledge.CURRENT,
        row_rule=Rule.ROW_OF_SAME_RUN,
        row_read_at=NOW - 1,
        row_from_restart=False,
        resumed=False,
    )
    followed = view.log_path or "/logs/none.log"
    return explanation, [PathCheck("local", followed, "log", followed=True), PathCheck("hpc1", "/x.log", "missing")]


def make_beam(case_id: str = "70010001", beam_id: str = "70010001_b1", **changes: Any) -> BeamView:
    """A beam in the middle of its fifth batch of eighteen."""
    key = BeamKey(case_id, beam_id)
    beam = BeamView(
        key=key,
        source="local",
        state=BeamState.RUNNING,
        state_since=NOW - 300,
        run_number=1,
        dialect="smc",
        phase="simulating",
        batches_total=18,
        batch_current=5,
        batches_completed=4,
        announcements=1,
        progress_ratio=5 / 18,
        estimated_ratio=0.25,
        remaining_seconds=900.0,
        started_at=NOW - 330,
        ended_at=None,
        last_progress_at=NOW - 20,
        stall_threshold_seconds=210.0,
        batch_duration_seconds=70.0,
        particles_per_batch=10_000_000,
        particles=172_000_000,
        log_path="/logs/70010001_b1.log",
        log_size_bytes=4711,
        log_modified_at=NOW - 3,
        log_seen_growing=True,
        log_buffered=False,
        log_unmatched=False,
        reason=None,
        failure_text=None,
        log_succeeded=False,
        row=BeamRow(key, read_at=NOW, status="simulation_running"),
        status_mismatch=False,
    )
    return beam._replace(**changes)


def make_waiting_beam(beam_id: str = "70010001_b2", **changes: Any) -> BeamView:
    """A beam without a log and without a row: nothing is known that can be unknown."""
    return make_beam(
        beam_id=beam_id,
        **{
            "source": UNKNOWN_SOURCE,
            "state": BeamState.WAITING,
            "dialect": "unknown",
            "phase": None,
            "batches_total": None,
            "batch_current": 0,
            "batches_completed": 0,
            "announcements": 0,
            "progress_ratio": 0.0,
            "estimated_ratio": 0.0,
            "remaining_seconds": None,
            "started_at": None,
            "last_progress_at": None,
            "batch_duration_seconds": None,
            "particles_per_batch": None,
            "particles": None,
            "log_path": None,
            "log_size_bytes": None,
            "log_modified_at": None,
            "log_seen_growing": False,
            "row": BeamRow(BeamKey("70010001", beam_id), read_at=NOW),
            **changes,
        },
    )


def make_snapshot(*beams: BeamView, **changes: Any) -> StoreSnapshot:
    """A store with these beams, one source, no database and nothing counted."""
    snapshot = StoreSnapshot(
        at=NOW,
        beams=beams,
        beams_dropped=0,
        sources=(SourceView("local", "local", up=True, last_poll_at=NOW),),
        database=None,
        runs={},
        batch_durations={},
        discovery_refused={},
        errors={},
        ended=(),
    )
    return replace(snapshot, **changes)


def make_full_snapshot() -> StoreSnapshot:
    """A store on which every metric has a sample and every state a beam."""
    ended: dict[str, Any] = {"ended_at": NOW - 5, "remaining_seconds": None}
    file = OutputFile("/dose/70010001/1_Dose.dcm", 640_000, NOW - 6)
    found: dict[str, Any] = {"output": OutputState.FOUND, "output_file": file, "log_succeeded": True}
    return make_snapshot(
        make_waiting_beam(),
        make_beam(case_id="70010009", beam_id="only"),
        make_beam(beam_id="starting", state=BeamState.STARTING, phase="loading"),
        make_beam(beam_id="running"),
        make_beam(beam_id="stalled", state=BeamState.STALLED, log_buffered=True, dialect="moqui"),
        make_beam(beam_id="succeeded", state=BeamState.SUCCEEDED, estimated_ratio=1.0, **found, **ended),
        make_beam(beam_id="failed", state=BeamState.FAILED, reason="killed", status_mismatch=True, **ended),
        make_beam(beam_id="expired", state=BeamState.EXPIRED, log_unmatched=True),
        make_beam(beam_id="unreachable", state=BeamState.UNREACHABLE, source="hpc1"),
        beams_dropped=3,
        sources=(
            SourceView(
                "local",
                "local",
                True,
                NOW,
                Summary(10, 0.5),
                0,
                0,
                4096,
                {},
                {"counter_went_back": 1},
                None,
                ("/lgos",),
            ),
            SourceView(
                "hpc1",
                "ssh",
                False,
                NOW - 90,
                Summary(4, 2.5),
                2,
                31,
                65536,
                {"timeout": 2},
                {},
                clock_offset_seconds=-300.2,
            ),
            SourceView("hpc2", "ssh"),
        ),
        database=DatabaseView(True, {"written": 7, "locked": 1}, Summary(8, 0.125), 1, NOW - 2),
        runs={("local", "succeeded", ""): 4, ("hpc1", "failed", "cuda"): 1},
        batch_durations={"local": HistogramView((30.0, 60.0, 120.0), (1, 2, 0, 1), 415.5)},
        discovery_refused={"path": 2},
        errors={"scrape": 1},
    )
