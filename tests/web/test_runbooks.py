"""Runbooks on the exporter's own server."""

from __future__ import annotations

import re

import pytest

from alerts.parameters import Parameters
from alerts.rules import alerts
from exporter.logs.events import FAILURE_REASONS
from exporter.web.page import PageLinks
from exporter.web.runbooks import runbook_name
from tests.web.site import serve

NAMES = {alert.name for alert in alerts(Parameters())}


def test_every_failure_and_a_stall_have_a_runbook_that_exists() -> None:
    assert {runbook_name(reason) for reason in (*FAILURE_REASONS, "stalled")} <= NAMES


def test_all_runbooks_are_listed_and_can_be_read() -> None:
    with serve() as site:
        listed = re.findall(r'href="runbooks/(\w+)\.md"', site.get("/runbooks").text)
        assert set(listed) == NAMES
        for name in listed:
            page = site.get(f"/runbooks/{name}.md")
            assert page.status_code == 200
            assert f"<h1>{name}</h1>" in page.text
            assert "<h2>What to do</h2>" in page.text
            assert page.text == site.get(f"/runbooks/{name}").text
            for link in re.findall(r'href="(\w+)\.md"', page.text):
                assert link in NAMES


def test_tables_and_code_are_rendered() -> None:
    with serve() as site:
        page = site.get("/runbooks/MQIBeamFailed.md").text
    assert "<td><code>out_of_memory</code></td>" in page
    assert 'href="../static/page.css"' in page


@pytest.mark.parametrize("name", ["nothing.md", "..%2f..%2fREADME.md", "MQIBeamFailed.md.md", ".md"])
def test_an_unknown_runbook_is_404(name: str) -> None:
    with serve() as site:
        assert site.get(f"/runbooks/{name}").status_code == 404


@pytest.mark.parametrize(
    ("url", "link"),
    [
        (None, "runbooks/MQIBeamFailed.md"),
        ("https://wiki.example/mqi/", "https://wiki.example/mqi/MQIBeamFailed.md"),
    ],
)
def test_a_failure_links_to_its_runbook_here_or_at_runbook_url(url: str | None, link: str) -> None:
    assert PageLinks(runbook_url=url).runbook("cuda") == link
