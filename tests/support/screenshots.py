"""Pictures of the page for the documents: ``python -m tests.support.screenshots docs/images``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.web.page import Links
from tests.support.browser import Visitor, open_browser
from tests.web.clinic import clinic
from tests.web.test_server import serve

_LINKS = Links("https://grafana.example/d/mqi-beams", "https://wiki.example/mqi")
_DESK = {"width": 1360, "height": 900}
_PHONE = {"width": 390, "height": 844}
PICTURES: dict[str, dict[str, Any]] = {
    "page-light.png": {"color_scheme": "light", "viewport": _DESK},
    "page-dark.png": {"color_scheme": "dark", "viewport": _DESK},
    "page-phone.png": {"color_scheme": "light", "viewport": _PHONE, "device_scale_factor": 2},
}


def take(folder: Path) -> None:
    """Make all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {"snapshot": lambda: clinic(time.time()), "links": _LINKS, "version": __version__}
    with serve(**parts) as site, open_browser() as browser:
        for name, options in PICTURES.items():
            context = browser.new_context(locale="en-GB", **options)
            visitor = Visitor(context.new_page())
            visitor.go(site.server.address)
            visitor.sees("Live", "#connection")
            visitor.sees_row("TP-2041_1", "Running")
            visitor.page.screenshot(path=folder / name, full_page="phone" not in name)
            context.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
