"""What is counted of the parser: ``parsing.py LOG``, run under callgrind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from exporter.logs.parser import TpsLogParser
from tests.support import callgrind

_BATCH = re.compile(rb"\n(Generating particles for[^\n]*)")

if __name__ == "__main__":
    log = Path(sys.argv[1]).read_bytes()
    # As much of an optimised search as any Python can do: what the parser takes is measured in times of it.
    callgrind.serve({"parser": lambda: TpsLogParser().feed(log), "reference": lambda: _BATCH.findall(log)})
