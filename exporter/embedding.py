"""The development plan's names, for use inside another program (docs/embedding.md).

Import from here: the other modules may move.
"""

from __future__ import annotations

from exporter.database.beams_table import BeamsTable
from exporter.database.unavailable import DatabaseUnavailable
from exporter.logs.events import SimulationProgress
from exporter.logs.parser import TpsLogParser
from exporter.polling.progress_monitor import ProgressMonitor
from exporter.sources.line_follower import LocalLogTailer, RemoteLogTailer

__all__ = [
    "BeamsTable",
    "DatabaseUnavailable",
    "LocalLogTailer",
    "ProgressMonitor",
    "RemoteLogTailer",
    "SimulationProgress",
    "TpsLogParser",
]
