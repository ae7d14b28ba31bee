"""Plays the rows of all beams as the communicator does: launches, verdicts and retries, in one thread."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

from tests.chaos.beams import Beam, Run
from tests.chaos.engines import Engines
from tests.chaos.table import Table

_TICK_SECONDS = 0.05
_CONFIRMATION_SECONDS = 20.0
"""A retry waits so long for the exporter to have counted the run before; a run that is retried sooner may be missed."""


class Communicator:
    """The program beside the exporter; ended at the end of the ``with`` block.

    Attributes:
        unsure: runs that were retried before anybody saw them counted.
        retries: launches of a beam that had run before.
    """

    def __init__(self, beams: list[Beam], table: Table, engines: Engines, chance: random.Random) -> None:
        self.unsure: list[tuple[Beam, Run]] = []
        self.retries = 0
        self._table = table
        self._engines = engines
        self._chance = chance
        self._closing = threading.Event()
        self._ended = threading.Event()
        self.stopped = threading.Event()
        self._lives = {beam: self._life(beam) for beam in beams}
        self._due = dict.fromkeys(beams, 0.0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        for beam in beams:
            table.add(beam.beam_id, beam.case_id)

    def __enter__(self) -> Communicator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def close(self) -> None:
        """Launch nothing more; what runs comes to its end."""
        self._closing.set()

    @property
    def done(self) -> bool:
        """Every beam has come to its end."""
        return not self._lives

    def _work(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            if self.stopped.is_set():
                continue
            now = self._engines.now()
            for beam, life in list(self._lives.items()):
                if self._due[beam] > now:
                    continue
                wait = next(life, None)
                if wait is None:
                    del self._lives[beam]
                else:
                    self._due[beam] = self._engines.now() + wait

    def _life(self, beam: Beam) -> Iterator[float]:
        """One run after another; yields seconds to wait, or none to be asked again soon."""
        chance = self._chance
        # SFTP tells whole seconds: a run that ended at once could be dated before the exporter's start.
        yield 1.5 + chance.uniform(0.0, 8.0)
        while True:
            run = beam.next_run(chance)
            if run.number > 1:
                # The old log stands until the launch.
                self._table.set_status(beam.beam_id, "pending", 0.0)
                self.retries += 1
                yield chance.uniform(0.2, 3.0)
            # A coarse value may stand in a row only until it is raised to the top.
            coarse = 40.0 if run.truth.outcome == "succeeded" else 0.0
            self._table.set_status(beam.beam_id, "simulation_running", coarse)
            if chance.random() < 0.6:
                beam.log.unlink(missing_ok=True)
            self._engines.launch(beam, run)
            while run.ended_at is None:
                yield 0.2
            yield chance.uniform(0.1, 2.0)
            yield from self._verdict(beam, run)
            yield chance.uniform(2.0, 6.0)
            patience = _CONFIRMATION_SECONDS
            while not run.confirmed and patience > 0 and not self._closing.is_set():
                yield 0.5
                patience -= 0.5
            if self._closing.is_set():
                return
            if not run.confirmed:
                self.unsure.append((beam, run))

    def _verdict(self, beam: Beam, run: Run) -> Iterator[float]:
        """What the communicator writes when the process has ended; now and then nothing, since it was restarted."""
        if run.truth.outcome == "succeeded":
            self._table.set_status(beam.beam_id, "postprocessing")
            yield 0.5
            self._table.set_status(beam.beam_id, "completed")
        elif run.truth.reason == "status" or self._chance.random() < 0.5:
            self._table.set_status(beam.beam_id, "failed")
