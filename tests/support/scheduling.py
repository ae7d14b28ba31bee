"""How long something takes, whatever else the machine does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

_SAMPLE_SECONDS = 0.01


def seconds_of(work: Callable[[], object]) -> float:
    """How long work takes, less the time in which threads of this process could have run and had no processor.

    On a quiet machine that is nothing and the clock decides. Waiting for a lock (the interpreter's, too), for a timer
    or for a peer is not taken off. A processor that a hypervisor or a quota takes away is not seen.
    """
    waits = _Waits()
    done = threading.Event()

    def watch() -> None:
        waits.unseen = threading.get_native_id()
        while not done.wait(_SAMPLE_SECONDS):
            waits.look()

    watcher = threading.Thread(target=watch, name="scheduling", daemon=True)
    watcher.start()
    began = time.monotonic()
    try:
        work()
        ended = time.monotonic()
        waits.look()
    finally:
        done.set()
        watcher.join()
    return ended - began - waits.seconds(began, ended)


class _Waits:
    """When threads of this process were waiting for a processor, as far as looking now and then can tell.

    A thread that has ended is not listed any more: what was seen of it last counts.

    Attributes:
        unseen: a thread that does not count.
    """

    def __init__(self) -> None:
        self.unseen: int | None = None
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._waited = _waited_seconds()
        self._total_seconds = 0.0
        self._spans: list[tuple[float, float]] = []

    def look(self) -> None:
        """See who has waited since the last look."""
        with self._lock:
            looked_at, self._looked_at = self._looked_at, time.monotonic()
            now = _waited_seconds()
            over = time.monotonic()
            for thread, waited in now.items():
                seconds = waited - self._waited.get(thread, 0.0)
                self._waited[thread] = waited
                if seconds > 0 and thread != self.unseen:
                    # A wait is told of when it is over: that was between the two looks.
                    self._spans.append((looked_at - seconds, over))
                    self._total_seconds += seconds

    def seconds(self, began: float, ended: float) -> float:
        """At most so much of this time was lost: those who wait at once lose it once."""
        covered, until = 0.0, began
        for start, end in sorted(self._spans):
            start, end = max(start, until), min(end, ended)
            if end > start:
                covered += end - start
                until = end
        return min(covered, self._total_seconds)


def _waited_seconds() -> dict[int, float]:
    """How long each thread of this process has waited for a processor since it began; nothing where it is not told."""
    waited: dict[int, float] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            _, nanoseconds, _ = (task / "schedstat").read_text(encoding="ascii").split()
        except OSError:
            continue  # it has ended, or the kernel does not count
        waited[int(task.name)] = int(nanoseconds) / 1e9
    return waited
