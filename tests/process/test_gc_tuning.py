from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from exporter.process import gc_tuning


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_existing_objects_are_excluded_and_collections_are_rare() -> None:
    before = gc.get_threshold()
    gc_tuning.collect_less_often()

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] > 10 * before[0]
    assert gc.get_threshold()[1:] == before[1:]


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def test_a_collection_starts_after_enough_reported_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_tuning, "_left_bytes", 0)
    monkeypatch.setattr(gc_tuning, "_times", 0)
    searches: list[int] = []
    monkeypatch.setattr(gc, "collect", searches.append)
    for _ in range(7):
        gc_tuning.report_garbage(1024 * 1024)
    assert searches == []
    gc_tuning.report_garbage(1024 * 1024)
    assert searches == [1]
    for _ in range(15):
        gc_tuning.report_garbage(8 * 1024 * 1024)
    assert searches == [1] * 15 + [2]


def test_a_reference_cycle_of_a_request_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_tuning, "_left_bytes", 0)
    gc_tuning.collect_less_often()
    seen = weakref.ref(Ring())
    assert seen() is not None
    gc_tuning.report_garbage(8 * 1024 * 1024)
    assert seen() is None
