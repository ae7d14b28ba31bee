"""Counting batches over a whole run.

One process may simulate several beams, or repeat rounds until its statistics are good enough, and then announces
batches again: the counter on the lines restarts at 1 while the run's own count goes on. Counters that contradict each
other (several GPU workers print into one log) are counted as anomalies and never lower what was counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.logs.events import SimulationProgress


@dataclass(slots=True)
class BatchCounter:
    """Batches announced, started and finished so far, added up over the announcements of one run.

    Attributes:
        announcements: how often batches were announced.
        particles_per_batch: as announced last, ``None`` where the dialect does not say.
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
        """Batches of the run as far as announced; ``None`` before anything said how many."""
        return None if self._total is None else self._past_total + self._total

    @property
    def started(self) -> int:
        """Batches started; never more than :attr:`total`."""
        return self._past_started + self._started

    @property
    def finished(self) -> int:
        """Batches whose particles were transported; never more than :attr:`started`."""
        return self._past_finished + self._finished

    @property
    def last_is_running(self) -> bool:
        """The running (or next) batch is the last of its announcement: it may be shorter than the others."""
        return self._total is not None and self._finished == self._total - 1

    @property
    def all_finished(self) -> bool:
        """Every batch of the current announcement is done; the run may announce more."""
        return self._total is not None and self._finished >= self._total

    @property
    def started_of_announced(self) -> int:
        """Batches started of the current announcement alone."""
        return self._started

    @property
    def finished_of_announced(self) -> int:
        """Batches finished of the current announcement alone."""
        return self._finished

    @property
    def announced(self) -> int | None:
        """Batches of the current announcement alone."""
        return self._total

    @property
    def ratio(self) -> float:
        """Started batches of all batches, 0..1; 0 while the total is unknown (or 0)."""
        total = self.total
        return min(self.started / total, 1.0) if total else 0.0

    @property
    def progress(self) -> SimulationProgress | None:
        """The same in the plan's words; ``None`` while the total is unknown (or 0)."""
        total = self.total
        return SimulationProgress(self.started, total, 100.0 * self.ratio) if total else None

    def set_total(self, total: int) -> None:
        """Take ``total`` for the current announcement, as if it had been announced."""
        self._total = total
        self._started = min(self._started, total)
        self._finished = min(self._finished, self._started)

    def announce(self, total: int, particles_per_batch: int | None) -> list[str]:
        """Batches are announced (again).

        Returns:
            Kinds of anomalies met.
        """
        self.announcements += 1
        self.particles_per_batch = particles_per_batch
        if not self._started:
            # Nothing came of the announcement before, if there was one (a beam of 0 batches, or a line printed twice).
            repeated = bool(self._total) and self.announcements > 1
            self._total = total
            return ["announcement_repeated"] if repeated else []
        # Where nobody had said how many there would be, there were as many as started.
        self._past_total += self._started if self._total is None else self._total
        self._past_started += self._started
        self._past_finished += self._finished
        self._total, self._started, self._finished = total, 0, 0
        return []

    def start(self, number: int | None, total: int | None) -> list[str]:
        """A batch has started; ``number`` and ``total`` as its line says, where it does.

        Returns:
            Kinds of anomalies met.
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
        # Batches follow one another: that this one runs says that those before it are done.
        self._finished = max(self._finished, self._started - 1)
        return anomalies

    def finish(self) -> list[str]:
        """A batch's particles have been transported.

        Returns:
            Kinds of anomalies met.
        """
        if self._finished >= self._started:
            return ["batch_finished_twice"]
        self._finished += 1
        return []
