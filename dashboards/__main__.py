"""``python -m dashboards`` writes the JSON of every dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dashboards import beams, case, exporter
from dashboards.panels import Json

FOLDER = Path(__file__).parent


def built() -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each dashboard's file."""
    for module in (beams, case, exporter):
        data: Json = module.build()
        yield FOLDER / f"{data['uid']}.json", json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in built():
        path.write_text(text, encoding="utf-8")
