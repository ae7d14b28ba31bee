"""Counts the batches of one run.

A process may simulate several beams, or repeat the simulation until its statistical error is small enough. It then
announces batches again and numbers them from 1 again, while this counter goes on. Contradictory counters (several GPU
workers print into one log) are anomalies and never lower the count.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.logs.events import SimulationProgress


@dataclass(slots=True)
class BatchCounter:
    """Adds up the announced, started and finished batches over all announcements of one run.

    Attributes:
        announcements: number of announcements.
        particles_per_batch: from the last announcement; ``None`` if the dialect does not print it.
    """

    announcements: int = 0
    particles_per_batch: int | None = None
    _past_total: int = 0
    _past_started: int = 0
    _past_finished: int = 0
    _total: int | None = None
    _started: int = 0
    _finished: int = 0

    @property
    def total(self) -> int | None:
        """Batches announced so far in this run; ``None`` before the first announcement."""
        return None if self._total is None else self._past_total + self._total

    @property
    def started(self) -> int:
        """Batches started so far; at most :attr:`total`."""
        return self._past_started + self._started

    @property
    def finished(self) -> int:
        """Batches finished so far; at most :attr:`started`."""
        return self._past_finished + self._finished

    @property
    def last_is_running(self) -> bool:
        """Whether the running or next batch is the last of its announcement. It may be shorter than the others."""
        return self._total is not None and self._finished == self._total - 1

    @property
    def all_finished(self) -> bool:
        """Whether all batches of the current announcement are finished. The run may still announce more."""
        return self._total is not None and self._finished >= self._total

    @property
    def started_of_announced(self) -> int:
        """Batches started since the current announcement."""
        return self._started

    @property
    def finished_of_announced(self) -> int:
        """Batches finished since the current announcement."""
        return self._finished

    @property
    def announced(self) -> int | None:
        """Number of batches in the current announcement."""
        return self._total

    @property
    def ratio(self) -> float:
        """Started batches divided by all batches, 0..1; 0 while the total is unknown or 0."""
        total = self.total
        return min(self.started / total, 1.0) if total else 0.0

    @property
    def progress(self) -> SimulationProgress | None:
        """Progress as the development plan defines it; ``None`` while the total is unknown or 0."""
        total = self.total
        return SimulationProgress(self.started, total, 100.0 * self.ratio) if total else None

    def set_total(self, total: int) -> None:
        """Set the number of batches in the current announcement."""
        self._total = total
        self._started = min(self._started, total)
        self._finished = min(self._finished, self._started)

    def announce(self, total: int, particles_per_batch: int | None) -> list[str]:
        """Count an announcement.

        Args:
            total: number of batches that follow.
            particles_per_batch: as printed; ``None`` if the dialect does not print it.

        Returns:
            Kinds of anomalies found.
        """
        self.announcements += 1
        self.particles_per_batch = particles_per_batch
        if not self._started:
            # The previous announcement, if any, had no batch: a beam of 0 batches, or a line printed twice.
            repeated = bool(self._total) and self.announcements > 1
            self._total = total
            return ["announcement_repeated"] if repeated else []
        # Without an earlier total, the started batches are the total.
        self._past_total += self._started if self._total is None else self._total
        self._past_started += self._started
        self._past_finished += self._finished
        self._total, self._started, self._finished = total, 0, 0
        return []

    def start(self, number: int | None, total: int | None) -> list[str]:
        """Count the start of a batch.

        Args:
            number: the batch's number as printed, from 1; ``None`` if the dialect does not print it.
            total: number of batches as printed; ``None`` if the dialect does not print it.

        Returns:
            Kinds of anomalies found.
        """
        anomalies = []
        if total == 0:
            anomalies.append("total_zero")
        elif total is not None and total != self._total:
            if self._total is not None:
                anomalies.append("total_mismatch")
            self.set_total(total)
        if number is None:
            number = self._started + 1
        elif number <= self._started:
            anomalies.append("batch_backwards" if number < self._started else "batch_repeated")
            return anomalies
        if self._total is not None and number > self._total:
            anomalies.append("batch_beyond_total")
            number = self._total
        self._started = max(self._started, number)
        # Batches run one after another, so all earlier ones are finished.
        self._finished = max(self._finished, self._started - 1)
        return anomalies

    def finish(self) -> list[str]:
        """Count the end of a batch.

        Returns:
            Kinds of anomalies found.
        """
        if self._finished >= self._started:
            return ["batch_finished_twice"]
        self._finished += 1
        return []
