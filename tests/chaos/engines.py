"""Engines that write logs, all in one thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from exporter.demo.simulator import Script
from exporter.demo.simulator.script import Step
from tests.chaos.beams import Beam, Run
from tests.chaos.time_of_day import TimeOfDay

_TICK_SECONDS = 0.02


class Engine:
    """One run that is being written. The log's name is opened anew for each write, as a copying daemon does.

    A fault that does something to the log has :attr:`lock` meanwhile, so that nothing is written into the wrong file;
    while :attr:`held` is set, what is due waits.
    """

    def __init__(self, beam: Beam, run: Run, script: Script, began_at: float) -> None:
        self.beam = beam
        self.run = run
        self.lock = threading.Lock()
        self.held = threading.Event()
        self._steps = list(script.steps)
        if run.at_once:
            self._steps = [Step(self._steps[0].delay_seconds, script.data)]
        self._due_at = began_at + self._steps[0].delay_seconds

    def step(self, at: float, date: Callable[[Path, float], None]) -> bool:
        """Write what is due; returns whether that was all."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self.held.is_set():
                return False
            due = b""
            while self._steps and self._due_at <= at:
                due += self._steps.pop(0).data
                if self._steps:
                    self._due_at += self._steps[0].delay_seconds
            if due:
                self._write(due, at, date)
            if not self._steps:
                self.run.ended_at = at
            return not self._steps
        finally:
            self.lock.release()

    def _write(self, data: bytes, at: float, date: Callable[[Path, float], None]) -> None:
        # A shell's ``>`` empties what stands there; later writes go to its end.
        opened = os.open(
            self.beam.log,
            os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if self.run.began_at is None else os.O_APPEND),
            0o644,
        )
        with open(opened, "wb", buffering=0) as file:
            file.write(data)
        date(self.beam.log, self.beam.clock_offset_seconds)
        self.run.wrote_at = at
        if self.run.began_at is None:
            self.run.began_at = at


class Engines:
    """All engines of the site; ended at the end of the ``with`` block."""

    def __init__(self, clock: TimeOfDay) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._going: dict[Beam, Engine] = {}
        self._ended = threading.Event()
        self._stopped_at: float | None = None
        self._stopped_seconds = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Engines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def now(self) -> float:
        """Seconds on a clock that stands still while the machine does."""
        with self._lock:
            stopped_at = self._stopped_at
            return (time.monotonic() if stopped_at is None else stopped_at) - self._stopped_seconds

    def stop(self) -> None:
        """Stand still, as on a machine that is suspended."""
        with self._lock:
            self._stopped_at = time.monotonic()

    def go_on(self) -> None:
        """Go on after :meth:`stop`."""
        with self._lock:
            assert self._stopped_at is not None
            self._stopped_seconds += time.monotonic() - self._stopped_at
            self._stopped_at = None

    def launch(self, beam: Beam, run: Run) -> None:
        """Begin a run."""
        with self._lock:
            self._going[beam] = Engine(beam, run, run.script, self.now())

    def of(self, beam: Beam) -> Engine | None:
        """The engine that writes a beam's log now."""
        with self._lock:
            return self._going.get(beam)

    def going(self) -> list[Engine]:
        """Those whose logs have begun."""
        with self._lock:
            return [engine for engine in self._going.values() if engine.run.going]

    def _work(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            if self._stopped_at is not None:
                continue
            with self._lock:
                engines = list(self._going.items())
            for beam, engine in engines:
                if engine.step(self.now(), self._clock.date):
                    with self._lock:
                        del self._going[beam]
