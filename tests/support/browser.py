"""Debian's chromium, driven by playwright: a browser for all tests, a page for each, and what went wrong in it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

from tests.support.process import PATIENCE_SECONDS, wait_for

_ROW = """id => {
    const row = [...document.querySelectorAll('.beam')].find(row => row.querySelector('.id').textContent === id);
    if (row === undefined) return '';
    const texts = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
    let said = '';
    while (texts.nextNode()) said += ` ${texts.currentNode.data}`;
    return said;
}"""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser, without a window."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed; `make tools` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Somebody who looks at the page. Playwright's own waiting for functions needs ``eval``, which the page forbids.

    Args:
        page: a new page.

    Attributes:
        complaints: errors and warnings of the browser: exceptions, what the policy forbade, what failed to load.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("dialog", self._dismiss)

    def _heard(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.complaints.append(said.text)

    def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, address: str, path: str = "/") -> None:
        """Open a page of the server at ``host:port``."""
        self.page.goto(f"http://{address}{path}")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page now."""
        return self.page.evaluate(expression)

    def until(self, expression: str, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a JavaScript expression is true."""
        wait_for(lambda: bool(self.page.evaluate(expression)), what, seconds)

    def sees(self, text: str, inside: str = "body") -> None:
        """Wait until an element shows a text."""
        wait_for(lambda: text in self.text(inside), f"{text!r} in {inside}")

    def sees_no_more(self, text: str, inside: str = "body") -> None:
        """Wait until an element does not show a text."""
        wait_for(lambda: text not in self.text(inside), f"no {text!r} in {inside}")

    def text(self, selector: str) -> str:
        """The text that is shown in an element, blanks made one; empty where there is none."""
        found = self.page.evaluate("s => document.querySelector(s)?.innerText ?? ''", selector)
        return " ".join(str(found).split())

    def row(self, beam_id: str) -> str:
        """The text of a beam's row, also of one that is out of sight; empty where there is none."""
        found = self.page.evaluate(_ROW, beam_id)
        return " ".join(str(found).split())

    def sees_row(self, beam_id: str, text: str) -> float:
        """Wait until a beam's row shows a text; returns how long that took, in seconds."""
        began = time.monotonic()
        wait_for(lambda: text in self.row(beam_id), f"{text!r} in the row of {beam_id}")
        return time.monotonic() - began
