"""The history of runs in a real browser: Recent, earlier runs of a beam, and links to what has left the list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser

from exporter.beams.snapshot import BeamKey, EndedRun
from exporter.persistence.history import RunHistory
from exporter.persistence.store import StateStore
from tests.persistence.test_store import changes
from tests.support.browser import Visitor, open_browser
from tests.web.clinic import clinic
from tests.web.site import serve

pytestmark = pytest.mark.timeout(180)
DAY = 86_400.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    context = browser.new_context(locale="en-GB", timezone_id="UTC", viewport={"width": 1440, "height": 900})
    yield Visitor(context.new_page())
    context.close()


def run(
    case_id: str, beam_id: str, number: int, ago: float, seconds: float = 2880.0, reason: str | None = None
) -> EndedRun:
    """A run that ended ``ago`` seconds before now."""
    end = time.time() - ago
    return EndedRun(
        BeamKey(case_id, beam_id),
        "local",
        number,
        "succeeded" if reason is None else "failed",
        reason,
        end - seconds,
        end,
        batches=18,
    )


@contextmanager
def site_with(folder: Path, *runs: EndedRun, snapshot: Callable[[], object] | None = None) -> Iterator[str]:
    """A server with these runs in its history, and the beams of the clinic."""
    store = StateStore(folder / "state.db")
    store.write(changes({}, runs=list(runs)))
    store.close()
    with serve(snapshot=snapshot or (lambda: clinic(time.time())), history=RunHistory(store.path)) as site:
        yield site.server.address


def test_recent_lists_runs_by_day_with_outcome_and_duration(tmp_path: Path, visitor: Visitor) -> None:
    runs = (
        run("TP-1", "TP-1_1", 1, 3 * DAY),
        run("TP-2", "TP-2_1", 2, 2 * DAY, reason="cuda"),
        run("TP-3", "TP-3_1", 1, 1),
    )
    with site_with(tmp_path, *runs) as address:
        visitor.go(address, "/#/recent")
        visitor.sees("TP-2_1", "#detail")
        text = visitor.text("#detail")
        for part in ("Today", "TP-3_1", "48 min", "Failed: ", "graphics card"):
            assert part in text
        assert text.index("TP-3_1") < text.index("TP-2_1") < text.index("TP-1_1"), "newest first"
        assert "cuda" not in text, "the reason is in words"
        found = [
            each for each in Axe().run(visitor.page).response["violations"] if each["impact"] in ("serious", "critical")
        ]
        assert found == []


def test_a_link_to_a_case_or_beam_that_has_left_the_list_shows_its_runs(tmp_path: Path, visitor: Visitor) -> None:
    with site_with(tmp_path, run("GONE", "GONE_1", 1, DAY), run("GONE", "GONE_2", 1, DAY)) as address:
        visitor.go(address, "/#/beam/GONE/GONE_1")
        visitor.sees("Not in the list any more", "#detail")
        assert "GONE_2" not in visitor.text("#detail")
        visitor.go(address, "/#/case/GONE")
        visitor.sees("GONE_2", "#detail")
        visitor.go(address, "/#/beam/NEVER/SEEN")
        visitor.sees("It is unknown", "#detail")
        visitor.page.locator("#detail .crumbs a").click()
        visitor.sees_row("TP-2044_2", "Waiting")


def test_a_beam_shows_its_earlier_runs_and_how_long_it_took_last_time(tmp_path: Path, visitor: Visitor) -> None:
    shown = next(beam for beam in clinic(time.time()).beams if beam.key.beam_id == "TP-2041_1")
    earlier = replace(run(*("TP-2041", "TP-2041_1"), 0, DAY), key=shown.key)
    with site_with(tmp_path, earlier, run("TP-2041", "TP-2041_2", 1, DAY)) as address:
        visitor.go(address, "/#/beam/TP-2041/TP-2041_1")
        visitor.sees("It took 48 min last time.", "#detail")
        assert "1 run" in visitor.text(".earlier")


def test_the_address_of_what_is_shown_can_be_copied(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    visitor = Visitor(context.new_page())
    with site_with(tmp_path) as address:
        visitor.go(address, "/#/recent")
        visitor.page.locator("#copy-link").click()
        visitor.sees("Copied", "#copy-link")
        assert visitor.value("navigator.clipboard.readText()").endswith("/#/recent")
    context.close()


def test_without_a_history_recent_says_how_to_turn_it_on(visitor: Visitor) -> None:
    with serve(snapshot=lambda: clinic(time.time())) as site:
        visitor.go(site.server.address, "/#/recent")
        visitor.sees("state.file", "#detail")
