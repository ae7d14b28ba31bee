"""How often an idle exporter wakes a processor: what saves power, and leaves the simulation alone."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench import noisy
from bench.beside import exporter
from tests.support.process import PATIENCE_SECONDS, wait_for

LOGS = 1000
WINDOW_SECONDS = 10.0
WAKES_PER_SECOND = 2.0


def _wakes(pid: int) -> int:
    """Voluntary context switches of all threads: each is a wait that has begun, and ends with a wake-up."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found += int(
            re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(encoding="ascii"), re.MULTILINE)[0]
        )
    return found


def test_an_exporter_of_a_thousand_idle_logs_wakes_twice_a_second_at_most(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(LOGS):
        noisy.write(logs / f"c_b{number}.log", 1024)
    rates: list[float] = []
    with exporter(tmp_path, logs, LOGS) as running:
        running.close()
        began, before = time.monotonic(), _wakes(running.process.pid)

        def idle() -> bool:
            nonlocal began, before
            passed = time.monotonic() - began
            if passed < WINDOW_SECONDS:
                return False
            wakes = _wakes(running.process.pid)
            rates.append((wakes - before) / passed)
            began, before = time.monotonic(), wakes
            return rates[-1] <= WAKES_PER_SECOND

        # The logs are active at first, and other work on this machine may delay what follows a start.
        wait_for(idle, f"{WAKES_PER_SECOND:g} wake-ups a second", max(PATIENCE_SECONDS, 6 * WINDOW_SECONDS))
    assert rates[-1] > 0, "counted"
