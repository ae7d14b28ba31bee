"""Growing pauses between tries of something that fails."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Pauses that double from one failure to the next.

    Args:
        first_seconds: the first pause.
        longest_seconds: no pause is longer, apart from the jitter.
        factors: each pause is multiplied by a random factor between these two, so that several exporters do not come
            back at the same instant.
        jitter: random number within 0..1.
    """

    def __init__(
        self,
        first_seconds: float,
        longest_seconds: float,
        *,
        factors: tuple[float, float] = (1.0, 1.0),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._factors = factors
        self._jitter = jitter
        self._pause_seconds = first_seconds

    def next_pause(self) -> float:
        """Return the seconds to wait after one more failure."""
        pause, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, self._longest_seconds)
        low, high = self._factors
        return pause * (low + (high - low) * self._jitter())

    def reset(self) -> None:
        """Begin with the first pause again, after a success."""
        self._pause_seconds = self._first_seconds
