"""Measures the mirror: the delay from a line in a log to the column ``progress``, and the cost of database access.

The mirror opens the database for each access and closes it afterwards. If no other process has it open, closing
moves the ``-wal`` file into the database and removes ``-wal`` and ``-shm``.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

from bench import beside
from bench.figures import median, percentile, row, table
from exporter.database.beams_table import BeamsTable
from exporter.database.table import ProgressUpdate
from tests.support import communicator_db as db
from tests.support.process import wait_for

INTERVAL_SECONDS = 2.0
POLL_SECONDS = 0.5
BATCHES = 1000
_SEED = 6
_LONGEST_SECONDS = 30.0


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Write rows repeatedly, and append lines to logs that a running exporter follows.

    Returns:
        A table for people, and milliseconds by what was measured.
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    for beside_communicator in (True, False):
        for rows in (1, 10) if short else (1, 10, 100, 1000):
            _uses(rows, 5 if short else 50, beside_communicator, figures, lines)
    uses = table(("what", "median", "worst"), lines)
    lines = []
    for polling_only in (False, True):
        _append_to_column(*((3, 2, 0.1) if short else (50, 100, 60.0)), polling_only, figures, lines)
    return f"{uses}\n\n{table(('what', 'p50', 'p99', 'to reach'), lines)}", figures


def _uses(rows: int, times: int, beside_communicator: bool, figures: dict[str, float], lines: list[str]) -> None:
    """Measure writing and reading rows, including opening and closing the database each time."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = db.make(Path(folder) / "mqi_communicator.db")
        for number in range(rows):
            db.add(path, f"b{number}")
        if beside_communicator:
            stack.callback(db.Program(path).stop)
        beams = BeamsTable(path, alone_in_process=True)
        written, read = [], []
        for value in range(1, times + 1):
            updates = [ProgressUpdate(f"b{number}", float(value)) for number in range(rows)]
            began = time.perf_counter()
            beams.write(updates)
            written.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            beams.rows()
            read.append(1000 * (time.perf_counter() - began))
    where = "beside a communicator" if beside_communicator else "alone"
    for what, taken in (("written", written), ("read", read)):
        figures[f"{rows} rows {what} {where}"] = median(taken)
        lines.append(row(f"{rows} rows {what}, {where}", f"{median(taken):.2f} ms", f"{max(taken):.1f} ms"))


def _append_to_column(
    beams: int, appends: int, seconds: float, polling_only: bool, figures: dict[str, float], lines: list[str]
) -> None:
    """Append lines to logs at irregular intervals and measure how much later the column has each value."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = db.make(folder / "mqi_communicator.db")
        logs = [folder / f"b{number}.log" for number in range(beams)]
        for log in logs:
            db.add(path, log.stem)
            log.write_bytes(b"Generating particles for (1 of %d batches) in CPU ..\n" % BATCHES)
        config = folder / "exporter.yaml"
        config.write_text(
            f"base_directory: {folder}\n"
            f"sources:\n  - {{name: local, kind: local, log_path: '{folder}/{{beam_id}}.log'}}\n"
            f"database: {{path: {path}}}\n"
            f"mirror: {{minimum_interval_seconds: {INTERVAL_SECONDS}}}\n"
            f"progress_tracking: {{monitoring: {{poll_interval_seconds: {POLL_SECONDS}}}}}\n"
            "web: {listen_address: '127.0.0.1:0'}\n",
            encoding="utf-8",
        )
        with (
            beside.configured(config, folder / "exporter.out", polling_only=polling_only),
            closing(sqlite3.connect(path, isolation_level=None)) as database,
        ):
            wait_for(lambda: len(_column(database)) == beams, "the first value of every beam")
            delays = _delays(database, logs, appends, seconds)
    limit = 1000 * (INTERVAL_SECONDS + 0.3)
    p50, p99 = percentile(delays, 50), percentile(delays, 99)
    kind = "polling" if polling_only else "announced"
    figures |= {f"{kind} append p50": p50, f"{kind} append p99": p99, "append limit": limit}
    what = f"a line appended to the column, {kind}, {beams} logs, {appends} lines in {seconds:g} s"
    lines.append(row(what, f"{p50:.0f} ms", f"{p99:.0f} ms", f"{limit:.0f} ms"))


def _delays(database: sqlite3.Connection, logs: list[Path], appends: int, seconds: float) -> list[float]:
    chance = random.Random(_SEED)
    began = time.perf_counter()
    due = sorted((began + chance.uniform(0.0, seconds), number % len(logs)) for number in range(appends))
    batch = dict.fromkeys(range(len(logs)), 1)
    waiting: list[tuple[str, float, float]] = []
    delays: list[float] = []
    while due or waiting:
        now = time.perf_counter()
        assert now < began + seconds + _LONGEST_SECONDS, f"{len(waiting)} values have not come"
        while due and due[0][0] <= now:
            _, number = due.pop(0)
            batch[number] += BATCHES // 50
            with logs[number].open("ab") as file:
                file.write(b"Generating particles for (%d of %d batches) in CPU ..\n" % (batch[number], BATCHES))
            waiting.append((logs[number].stem, 100.0 * batch[number] / BATCHES, time.perf_counter()))
        shown, now = _column(database), time.perf_counter()
        delays += [1000 * (now - at) for beam_id, value, at in waiting if shown[beam_id] >= value - 0.01]
        waiting = [each for each in waiting if shown[each[0]] < each[1] - 0.01]
        time.sleep(0.005)
    return delays


def _column(database: sqlite3.Connection) -> dict[str, float]:
    return dict(database.execute("SELECT beam_id, progress FROM beams WHERE progress > 0").fetchall())
