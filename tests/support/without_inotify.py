"""Runs the exporter without inotify, as beside logs that another host writes: every change is found by polling."""

from __future__ import annotations

from exporter.cli.main import main
from exporter.sources import inotify

if __name__ == "__main__":
    inotify.open_watcher = lambda: None
    main()
