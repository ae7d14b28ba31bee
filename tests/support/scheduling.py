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
    before = _waited_seconds()
    last = dict(before)
    done = threading.Event()

    def watch() -> None:
        # A thread that has ended is not listed any more: what was seen of it last counts.
        own = threading.get_native_id()
        while not done.wait(_SAMPLE_SECONDS):
            last.update((thread, waited) for thread, waited in _waited_seconds().items() if thread != own)

    watcher = threading.Thread(target=watch, name="scheduling", daemon=True)
    watcher.start()
    began = time.monotonic()
    try:
        work()
        took = time.monotonic() - began
        own = threading.get_native_id()
        last[own] = _waited_seconds().get(own, 0.0)
    finally:
        done.set()
        watcher.join()
    return took - sum(waited - before.get(thread, 0.0) for thread, waited in last.items())


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
