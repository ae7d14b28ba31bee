"""Writes a script to a file, at a given speed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from exporter.demo.simulator.script import Script, Step


class Player:
    """Writes a script to a file, truncated first as by the shell's ``>``.

    Args:
        script: what to write.
        path: the log; its folder must exist.
        started_at: start time by the caller's clock, seconds.
        speed: how many times faster than the script.

    Raises:
        ValueError: ``speed`` is not positive.
        OSError: the file cannot be opened; from :meth:`step`: not written.
    """

    def __init__(self, script: Script, path: Path, *, started_at: float, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.exit_code = script.exit_code
        self._steps: Iterator[Step] = iter(script.steps)
        self._step = next(self._steps, None)
        self._speed = speed
        self._due = started_at + (self._step.delay_seconds / speed if self._step else 0.0)
        self._file = path.open("wb", buffering=0)

    def step(self, at: float) -> float | None:
        """Write what is due at ``at``.

        Returns:
            When the next write is due: ``inf`` if the process hangs, ``None`` at its end.
        """
        while self._step is not None and self._due <= at:
            unwritten = memoryview(self._step.data)
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
            self._step = next(self._steps, None)
            if self._step is not None:
                self._due += self._step.delay_seconds / self._speed
        if self._step is not None:
            return self._due
        return math.inf if self.exit_code is None else None

    def close(self) -> None:
        """Close the file. The rest of the script is never written."""
        self._file.close()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def play(
    script: Script,
    path: Path,
    *,
    speed: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], bool] | None = None,
) -> int | None:
    """Write a log to its end.

    Args:
        script, path, speed: as for :class:`Player`.
        clock: the caller's clock, seconds.
        wait: waits for some seconds and returns whether to stop (``wait`` of a stop event); never stops by default.

    Returns:
        The exit code; ``None`` if it was stopped before the end, as a process that hangs must be.

    Raises:
        OSError: the log cannot be written.
    """
    wait = wait if wait is not None else threading.Event().wait
    with Player(script, path, started_at=clock(), speed=speed) as player:
        while (due := player.step(now := clock())) is not None:
            if wait(min(due - now, threading.TIMEOUT_MAX)):
                return None
    return player.exit_code
