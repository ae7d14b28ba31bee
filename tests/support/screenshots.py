"""Pictures of page and terminal for the documents: ``python -m tests.support.screenshots docs/images``."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from exporter import __version__
from exporter.cli.top.readers import ApiReader
from exporter.cli.top.screen import draw
from exporter.cli.top.view import TopView
from exporter.web.page import PageLinks
from tests.support.browser import Visitor, open_browser
from tests.web.clinic import clinic
from tests.web.site import serve

_LINKS = PageLinks("https://grafana.example/d/mqi-beams", "https://wiki.example/mqi")
_DESK = {"width": 1360, "height": 900}
_WALL = {"width": 1920, "height": 1080}
_PHONE = {"width": 390, "height": 844}
PICTURES: dict[str, dict[str, Any]] = {
    "page-light.png": {"color_scheme": "light", "viewport": _DESK},
    "page-dark.png": {"color_scheme": "dark", "viewport": _DESK},
    "page-phone.png": {"color_scheme": "light", "viewport": _PHONE, "device_scale_factor": 2},
    "page-wall.png": {"color_scheme": "dark", "viewport": _WALL},
    "page-what-to-do.png": {"color_scheme": "light", "viewport": _DESK},
}
_PATHS = {"page-wall.png": "/?wall=1", "page-what-to-do.png": "/#/beam/TP-2038/TP-2038_2"}
_SHOWN = {"page-wall.png": "below", "page-what-to-do.png": "Copy text for IT"}


def take(folder: Path) -> None:
    """Make all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {"snapshot": lambda: clinic(time.time()), "links": _LINKS, "version": __version__}
    with serve(**parts) as site, open_browser() as browser:
        for name, options in PICTURES.items():
            context = browser.new_context(locale="en-GB", **options)
            visitor = Visitor(context.new_page())
            visitor.go(site.server.address, _PATHS.get(name, "/"))
            visitor.sees("Live", "#connection")
            visitor.sees(_SHOWN.get(name, "TP-2041_1"))
            visitor.page.screenshot(path=folder / name, full_page=name in ("page-light.png", "page-dark.png"))
            context.close()
        terminal(f"http://{site.server.address}", folder / "top.svg")


def terminal(url: str, path: Path) -> None:
    """What ``top`` shows of the same beams."""
    with contextlib.closing(ApiReader(url)) as reader:
        beam_list = reader.read()
    console = Console(record=True, width=118, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in draw(beam_list, TopView(), time.time(), width=118, height=None):
        console.print(Text.assemble(*((text, style.replace("ansi", "")) for style, text in line)))
    svg = console.export_svg(title="mqi-exporter top")
    # Rich's own fonts come from the internet; the browser's do as well.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    take(Path(sys.argv[1]))
