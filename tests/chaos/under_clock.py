"""``python -m tests.chaos.under_clock FILE ARGUMENTS``: ``mqi-exporter`` whose time of day is set by a file.

The file holds the seconds by which its clock differs from the machine's own, which nobody may set for a test. SQLite's
time of day follows; the clock that counts uptime and the dates of files do not, as when a real clock is set.
(libfaketime does the same to a whole process, but breaks Python's ``time.sleep`` from 3.11 on.)
"""

from __future__ import annotations

import sqlite3
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def main() -> None:
    """Exchange the clocks, then be the exporter."""
    file = Path(sys.argv.pop(1))
    machine_time, machine_connect = time.time, sqlite3.connect

    def now() -> float:
        return machine_time() + float(file.read_bytes())

    def current_timestamp() -> str:
        return f"{datetime.fromtimestamp(now(), timezone.utc):%Y-%m-%d %H:%M:%S}"

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = machine_connect(*arguments, **options)
        connection.create_function("current_timestamp", 0, current_timestamp)
        return connection

    time.time = now
    sqlite3.connect = connect  # type: ignore[assignment]
    # After that: what is defined there may take the clock as it is then.
    from exporter.cli.main import main as exporter

    exporter()


if __name__ == "__main__":
    main()
