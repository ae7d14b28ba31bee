"""Measures from the start of the process until its metrics are right, with logs that already exist.

Both times count from the start of the process: until it answers, and until its metrics are right. The time that Python
takes to import the exporter's modules is the lower bound.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench import noisy
from bench.beside import Running, starting
from bench.figures import median, row, table

ROUNDS = 5
WORKS = ((1000, 100 << 10), (10_000, 10 << 10))
_ASK_EVERY_SECONDS = 0.005
_SHOWN = re.compile(r'^mqi_beam_batch_current\{[^}]*beam_id="b(\d+)"[^}]*\} (\d+)', re.MULTILINE)


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Start the exporter repeatedly.

    Returns:
        A table for people, and the figures by name, in seconds.
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    rounds = 1 if short else ROUNDS
    imports = median([_import_seconds() for _ in range(rounds)])
    figures["imports"] = imports
    for count, size_bytes in ((20, 10 << 10),) if short else WORKS:
        with tempfile.TemporaryDirectory() as name:
            folder, logs = Path(name), Path(name) / "logs"
            logs.mkdir()
            batches = [noisy.write(logs / f"c_b{number}.log", size_bytes, number % 5) for number in range(count)]
            taken = [_start(folder, logs, batches) for _ in range(rounds)]
        answers, right = (median([each[part] for each in taken]) for part in (0, 1))
        after = median([each[1] - each[0] for each in taken])
        key = f"{count} x {size_bytes >> 10} KiB"
        figures |= {f"{key} answers": answers, f"{key} right": right, f"{key} right after it answers": after}
        lines.append(row(key, *(f"{seconds:.2f} s" for seconds in (imports, answers, right, after))))
    head = ("logs", "imports only", "until it answers", "until all is right", "from answering to right")
    return table(head, lines), figures


def _import_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import exporter.cli.main, exporter.cli.serve"], check=True)
    return time.perf_counter() - began


def _start(folder: Path, logs: Path, batches: list[int]) -> tuple[float, float]:
    """Return the seconds until the exporter answers, and until its metrics show every batch."""
    began = time.perf_counter()
    with starting(folder, logs) as running:
        _wait_for(running, "/-/healthy")
        answers = time.perf_counter() - began
        # Scrapes would slow the start down; /-/ready says when all logs have been polled once.
        _wait_for(running, "/-/ready")
        running.wait_until(lambda text: _right(text, batches), _ASK_EVERY_SECONDS)
        return answers, time.perf_counter() - began


def _wait_for(running: Running, path: str) -> None:
    url = running.url.replace("/metrics", path)
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(_ASK_EVERY_SECONDS)
        except OSError:
            if running.process.poll() is not None:
                raise
            time.sleep(_ASK_EVERY_SECONDS)
        else:
            return


def _right(text: str, batches: list[int]) -> bool:
    return {int(beam): int(batch) for beam, batch in _SHOWN.findall(text)} == dict(enumerate(batches))
