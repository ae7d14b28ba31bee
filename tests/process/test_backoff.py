"""Growing pauses between tries."""

from __future__ import annotations

import pytest

from exporter.process.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next_pause() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next_pause() == 1.0


@pytest.mark.parametrize(("jitter", "pauses"), [(0.0, [5.0, 10.0]), (0.5, [7.5, 15.0]), (1.0, [10.0, 20.0])])
def test_jitter_moves_each_pause_between_the_factors_and_does_not_add_up(jitter: float, pauses: list[float]) -> None:
    backoff = Backoff(10.0, 60.0, factors=(0.5, 1.0), jitter=lambda: jitter)
    assert [backoff.next_pause() for _ in range(2)] == pauses
