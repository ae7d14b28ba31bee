from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from exporter import garbage


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_what_is_there_is_left_out_and_new_objects_are_looked_at_seldom() -> None:
    before = gc.get_threshold()
    garbage.look_seldom()

    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] > 10 * before[0]
    assert gc.get_threshold()[1:] == before[1:]
