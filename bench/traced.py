"""Runs the exporter and writes Python's own count of its memory: ``python -m bench.traced FILE ARGUMENTS...``."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from pathlib import Path

_EVERY_SECONDS = 2.0


def _note(file: Path) -> None:
    while True:
        file.write_text(str(tracemalloc.get_traced_memory()[0]), encoding="ascii")
        time.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    tracemalloc.start()
    from exporter.cli.main import main

    threading.Thread(target=_note, args=(Path(sys.argv[1]),), name="traced", daemon=True).start()
    sys.argv[1:] = sys.argv[2:]
    main()
