"""The pace of a run: durations of its batches."""

from __future__ import annotations

from dataclasses import dataclass

_MEASURED_WITHOUT_WARM_UP = 2


@dataclass(slots=True)
class Pace:
    """Durations of the finished batches of a run, with the work in them.

    Work is the number of particles, or 1 per batch if the log does not give it. The plain mean predicts the next batch
    as well as any weighting of recent batches (``docs/accuracy.md``). The first batch often takes much longer, since
    memory is allocated and kernels are compiled. It is excluded from the mean as soon as two others are measured.

    Attributes:
        count, total_seconds, total_work: all measured batches.
        longest_seconds: the longest of them, including the first.
        chunk_batches: number of batches in the last block that the C library flushed.
        warm_up_count, warm_up_seconds, warm_up_work: the batches that were read together with the run's first batch.
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
            seconds: its duration.
            work: its particles, or 1.
            warm_up: it is the run's first batch, or was read together with it.
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
        """Mean duration of a finished batch; ``None`` before the first."""
        if self._without_warm_up:
            return (self.total_seconds - self.warm_up_seconds) / (self.count - self.warm_up_count)
        return self.total_seconds / self.count if self.count else None

    @property
    def seconds_per_work(self) -> float | None:
        """Mean duration per unit of work; ``None`` before the first batch has finished."""
        seconds, work = self.total_seconds, self.total_work
        if self._without_warm_up:
            seconds, work = seconds - self.warm_up_seconds, work - self.warm_up_work
        return seconds / work if work else None
