"""``python -m exporter.cli``: the command ``mqi-exporter``."""

from __future__ import annotations

from exporter.cli.main import main

if __name__ == "__main__":
    main()
