"""How long the mirror holds the database's lock, for so many rows in one transaction."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.figures import median, row, table
from exporter.database.beams_table import BeamsTable, ProgressUpdate
from tests.support import communicator_db as db


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Write so many rows again and again.

    Returns:
        A table for people, and milliseconds by rows.
    """
    figures: dict[str, float] = {}
    lines = []
    for rows in (1, 10) if short else (1, 10, 100, 1000):
        with tempfile.TemporaryDirectory() as folder:
            path = db.make(Path(folder) / "mqi_communicator.db")
            for number in range(rows):
                db.add(path, f"b{number}")
            beams = BeamsTable(path)
            taken = []
            for value in range(1, 6 if short else 51):
                updates = [ProgressUpdate(f"b{number}", float(value)) for number in range(rows)]
                began = time.perf_counter()
                beams.write(updates)
                taken.append(1000 * (time.perf_counter() - began))
            beams.close()
        figures[str(rows)] = median(taken)
        lines.append(row(f"{rows} rows in one transaction", f"{median(taken):.2f} ms", f"{max(taken):.1f} ms"))
    return table(("what", "median", "worst"), lines), figures
