"""Times that a loaded machine does not change."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time

from tests.support.scheduling import seconds_of

_WORK_SECONDS = 0.3
_BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


def _work() -> None:
    until = time.thread_time() + _WORK_SECONDS
    while time.thread_time() < until:
        pass


def test_time_without_a_processor_does_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    processor = min(allowed)
    with subprocess.Popen([sys.executable, "-c", _BUSY, str(processor)], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            os.sched_setaffinity(0, {processor})
            began = time.monotonic()
            counted = seconds_of(_work)
            took = time.monotonic() - began
        finally:
            os.sched_setaffinity(0, allowed)
            busy.kill()
    # They take turns; of what is taken off, the work has been waiting for all but what the watcher costs.
    assert took - counted > _WORK_SECONDS / 2
    assert counted > 0.9 * _WORK_SECONDS


def test_threads_that_wait_for_a_processor_at_once_lose_the_time_once() -> None:
    allowed = os.sched_getaffinity(0)
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)  # not under the interpreter's lock

    threads = [threading.Thread(target=compute) for _ in range(4)]
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for thread in threads:
            thread.start()
        counted = seconds_of(lambda: threading.Event().wait(3 * _WORK_SECONDS))
    finally:
        os.sched_setaffinity(0, allowed)
        done.set()
        for thread in threads:
            thread.join()
    assert counted >= 0


def test_waiting_for_something_else_counts() -> None:
    assert seconds_of(lambda: threading.Event().wait(_WORK_SECONDS)) > 0.9 * _WORK_SECONDS
