"""The clock of the site's machine, which can be set."""

from __future__ import annotations

import os
import time
from pathlib import Path


class TimeOfDay:
    """What everybody at the site reads from the wall.

    The kernel's own clock stays: who writes a log dates it by this one (:meth:`date`).

    Args:
        file: tells it to the exporter (:mod:`tests.chaos.under_clock`).
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offset_seconds = 0.0
        self.set(0.0)

    def now(self) -> float:
        """UTC epoch seconds."""
        return time.time() + self.offset_seconds

    def set(self, seconds: float) -> None:
        """Set the clock forwards, or back."""
        offset = self.offset_seconds + seconds
        beside = self.file.with_suffix(".new")
        beside.write_text(f"{offset:+.1f}\n", encoding="ascii")
        os.replace(beside, self.file)
        self.offset_seconds = offset

    def date(self, path: Path, offset_seconds: float = 0.0) -> None:
        """A file was written now, by a host or file server whose clock is so much ahead of the exporter's."""
        now = self.now() + offset_seconds
        os.utime(path, (now, now))
