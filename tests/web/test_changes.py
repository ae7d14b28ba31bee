"""What is sent to open pages after each snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporter.beams.snapshot import BeamState, StoreSnapshot
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.web.api_schema import RenderContext
from exporter.web.changes import ChangeTracker
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot, make_waiting_beam


def update(tracker: ChangeTracker, snapshot: StoreSnapshot) -> Any:
    return tracker.update(snapshot, RenderContext.of(PlainIdentifiers(), snapshot))


def test_the_first_snapshot_is_sent_whole_and_an_equal_one_changes_nothing() -> None:
    tracker, snapshot = ChangeTracker(), make_full_snapshot()
    first = update(tracker, snapshot)
    assert len(first["beams"]) == 9
    assert update(tracker, snapshot) is None
    assert tracker.full_state(NOW) == {"at": NOW, **first}


def test_only_changed_fields_are_sent() -> None:
    tracker = ChangeTracker()
    update(tracker, make_snapshot(make_beam(), make_waiting_beam()))
    change = update(tracker, make_snapshot(make_beam(batch_current=6, log_size_bytes=5000), make_waiting_beam()))
    assert change == {
        "beams": [
            {"case_id": "70010001", "beam_id": "70010001_b1", "batch_current": 6, "log_size_bytes": 5000},
        ]
    }


def test_a_removed_beam_is_sent_by_its_ids() -> None:
    tracker = ChangeTracker()
    update(tracker, make_snapshot(make_beam(), make_waiting_beam()))
    change = update(tracker, make_snapshot(make_beam()))
    assert change["gone"] == [["70010001", "70010001_b2"]]
    assert change["summary"]["waiting"] == 0
    assert "beams" not in change


def test_estimates_are_sent_when_they_differ_by_the_tolerance_and_never_drift() -> None:
    tracker = ChangeTracker()
    update(tracker, make_snapshot(make_beam(estimated_ratio=0.25)))
    changes = 0
    for step in range(1, 40):
        ratio = 0.25 + step * 0.0003
        changes += update(tracker, make_snapshot(make_beam(estimated_ratio=ratio))) is not None
        assert abs(tracker.full_state(NOW)["beams"][0]["estimated_ratio"] - ratio) < 0.0011
    assert 0 < changes < 20


def test_the_final_progress_of_a_run_is_sent_exactly() -> None:
    tracker = ChangeTracker()
    update(tracker, make_snapshot(make_beam(estimated_ratio=0.9995)))
    change = update(tracker, make_snapshot(make_beam(estimated_ratio=1.0, state=BeamState.SUCCEEDED)))
    assert change["beams"][0]["estimated_ratio"] == 1.0


def test_time_left_changes_with_time_alone_and_is_not_sent() -> None:
    tracker = ChangeTracker()
    update(tracker, make_snapshot(make_beam(remaining_seconds=900.0)))
    later = make_snapshot(make_beam(remaining_seconds=898.0), at=NOW + 2)
    assert update(tracker, later) is None
    assert tracker.full_state(NOW + 2)["beams"][0]["remaining_seconds"] == 898.0, (
        "a later subscriber gets the current value"
    )


def test_poll_counters_of_a_source_are_not_sent_at_once_but_its_loss_is() -> None:
    tracker = ChangeTracker()
    snapshot = make_full_snapshot()
    update(tracker, snapshot)
    polled = tuple(replace(source, round_trips=source.round_trips + 9) for source in snapshot.sources)
    assert update(tracker, replace(snapshot, sources=polled)) is None
    lost = tuple(replace(source, up=False) for source in snapshot.sources)
    change = update(tracker, replace(snapshot, sources=lost))
    assert list(change) == ["beams", "sources"]
    assert all("waiting_text" in beam for beam in change["beams"]), "beams that wait are explained by their sources"
