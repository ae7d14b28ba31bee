"""How long the batches of a run take."""

from __future__ import annotations

from dataclasses import dataclass

_MEASURED_WITHOUT_WARM_UP = 2


@dataclass(slots=True)
class Pace:
    """How long the batches of a run have taken, in seconds, and how much work they were.

    Work is particles, or 1 per batch where the log does not say how many particles one holds. The plain mean foretells
    the next batch as well as any weighting of the recent ones (``docs/accuracy.md``). The first batch often takes much
    longer (memory is allocated, kernels are compiled): it is left out of the mean once two others are known.

    Attributes:
        count, total_seconds, total_work: all batches measured.
        longest_seconds: the longest of them, the first one included.
        chunk_batches: how many batches the last block of the C library brought.
        warm_up_count, warm_up_seconds, warm_up_work: those of them that came in the same read as the run's first batch.
    """

    count: int = 0
    total_seconds: float = 0.0
    total_work: float = 0.0
    longest_seconds: float = 0.0
    chunk_batches: int = 1
    warm_up_count: int = 0
    warm_up_seconds: float = 0.0
    warm_up_work: float = 0.0

    def add(self, seconds: float, work: float, *, warm_up: bool = False) -> None:
        """Add one measured batch.

        Args:
            seconds: how long it took.
            work: how much work it was.
            warm_up: it is the run's first batch, or came together with it.
        """
        self.count += 1
        self.total_seconds += seconds
        self.total_work += work
        self.longest_seconds = max(self.longest_seconds, seconds)
        if warm_up:
            self.warm_up_count += 1
            self.warm_up_seconds += seconds
            self.warm_up_work += work

    @property
    def _without_warm_up(self) -> bool:
        return self.count - self.warm_up_count >= _MEASURED_WITHOUT_WARM_UP

    @property
    def mean_seconds(self) -> float | None:
        """Mean duration of the finished batches; ``None`` before the first."""
        if self._without_warm_up:
            return (self.total_seconds - self.warm_up_seconds) / (self.count - self.warm_up_count)
        return self.total_seconds / self.count if self.count else None

    @property
    def seconds_per_work(self) -> float | None:
        """Mean pace; ``None`` before the first batch has finished."""
        seconds, work = self.total_seconds, self.total_work
        if self._without_warm_up:
            seconds, work = seconds - self.warm_up_seconds, work - self.warm_up_work
        return seconds / work if work else None
