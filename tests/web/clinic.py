"""A typical store for the page: a clinic's afternoon with beams in most states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from exporter.beams.snapshot import (
    BeamKey,
    BeamState,
    BeamView,
    DatabaseView,
    EndedRun,
    SourceView,
    StoreSnapshot,
    Summary,
)
from tests.web.store_snapshots import make_beam, make_snapshot, make_waiting_beam

MINUTE = 60.0
LOG = b"".join(
    b"Generating particles for (%d of 18 batches) in CPU ..\nParticle generation complete!\n"
    b"Transporting particles...\nTransportation call ended!\nParticle transportation complete!\n" % batch
    for batch in range(1, 9)
)


def clinic(at: float) -> StoreSnapshot:
    """The store at ``at``: four cases on two sources."""
    ended = tuple(_ended(at))
    return make_snapshot(
        *_beams(at),
        at=at,
        sources=(
            SourceView("local", "local", True, at, Summary(10_000, 45.0), read_bytes=4_000_000),
            SourceView("hpc1", "ssh", True, at, Summary(9_000, 630.0), 1, 9_100, 2_000_000),
        ),
        database=DatabaseView(True, {"written": 212}, Summary(212, 0.9), 0, at - 2),
        ended=ended,
    )


def _beams(at: float) -> Iterator[BeamView]:
    yield _beam(at, "TP-2041", 1, finished=11, share=0.4, batch_minutes=1.1)
    yield _beam(at, "TP-2041", 2, finished=7, share=0.8, batch_minutes=1.3, source="hpc1")
    yield _beam(at, "TP-2041", 3, finished=3, share=0.15, batch_minutes=1.2, run_number=2)
    failed = {"reason": "output_error", "failure_text": "Unable to write file /data/dose/TP-2038_2.mhd"}
    yield _over(at, "TP-2038", 1, BeamState.SUCCEEDED, ended_at=at - 31 * MINUTE, log_succeeded=True)
    yield _over(at, "TP-2038", 2, BeamState.FAILED, ended_at=at - 12 * MINUTE, **failed)
    stalled = _beam(at, "TP-2043", 1, finished=8, share=0.99, batch_minutes=1.0, source="hpc1")
    silent = at - 9 * MINUTE
    yield stalled._replace(
        state=BeamState.STALLED,
        state_since=at - 5 * MINUTE,
        remaining_seconds=None,
        last_progress_at=silent,
        log_modified_at=silent,
        row=replace(stalled.row, hpc_job_id="48211", status="hpc_running"),
    )
    yield _beam(at, "TP-2043", 2, finished=30, share=0.5, batch_minutes=0.4, of=72, log_buffered=True, dialect="moqui")
    yield make_beam(
        "TP-2044",
        "TP-2044_1",
        state=BeamState.STARTING,
        state_since=at - 40,
        phase="loading",
        batches_total=None,
        batch_current=0,
        batches_completed=0,
        progress_ratio=0.0,
        estimated_ratio=0.0,
        remaining_seconds=None,
        batch_duration_seconds=None,
        started_at=at - 40,
        last_progress_at=at - 8,
        log_modified_at=at - 8,
    )
    waiting = make_waiting_beam("TP-2044_2", state_since=at - 3 * MINUTE)
    key = BeamKey("TP-2044", "TP-2044_2")
    yield waiting._replace(key=key, row=replace(waiting.row, key=key, status="pending"))


def _beam(
    at: float,
    case_id: str,
    number: int,
    *,
    finished: int,
    share: float,
    batch_minutes: float,
    of: int = 18,
    **changes: Any,
) -> BeamView:
    """A beam in the batch after the finished ones, of which a share is done."""
    seconds = batch_minutes * MINUTE
    beam_id = f"{case_id}_{number}"
    return make_beam(
        case_id,
        beam_id,
        **{
            "state_since": at - (finished + share) * seconds,
            "batches_total": of,
            "batch_current": finished + 1,
            "batches_completed": finished,
            "progress_ratio": (finished + 1) / of,
            "estimated_ratio": (finished + share) / of,
            "remaining_seconds": (of - finished - share) * seconds,
            "batch_duration_seconds": seconds,
            "started_at": at - (finished + share) * seconds - 25,
            "last_progress_at": at - share * seconds,
            "log_modified_at": at - 4 - number,
            "log_path": f"/data/mqi/logs/sim_{beam_id}.log",
            "recent": LOG,
            **changes,
        },
    )


def _over(at: float, case_id: str, number: int, state: BeamState, **changes: Any) -> BeamView:
    beam = _beam(at, case_id, number, finished=18, share=0, batch_minutes=1.2)
    return beam._replace(
        **{
            "state": state,
            "state_since": changes["ended_at"],
            "phase": "saving",
            "batch_current": 18,
            "progress_ratio": 1.0,
            "estimated_ratio": 1.0 if state is BeamState.SUCCEEDED else 0.999,
            "remaining_seconds": None,
            "started_at": changes["ended_at"] - 22 * MINUTE,
            "log_modified_at": changes["ended_at"],
            **changes,
        },
    )


def _ended(at: float) -> Iterator[EndedRun]:
    runs = [
        ("TP-2036_1", "succeeded", None, 1, 131.0),
        ("TP-2036_2", "succeeded", None, 1, 118.0),
        ("TP-2041_3", "failed", "out_of_memory", 1, 64.0),
        ("TP-2038_1", "succeeded", None, 1, 31.0),
        ("TP-2038_2", "failed", "output_error", 1, 12.0),
    ]
    for beam_id, outcome, reason, number, minutes in runs:
        end = at - minutes * MINUTE
        yield EndedRun(BeamKey(beam_id[:-2], beam_id), "local", number, outcome, reason, end - 22 * MINUTE, end)
