"""The index of the API, unknown addresses, the icon, and exports for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest

from exporter.beams.snapshot import BeamState
from tests.web.site import Site, serve
from tests.web.store_snapshots import NOW, make_beam, make_snapshot

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as site:
        yield site


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/v1", "/api/v1/"])
def test_links_of_the_index_of_the_api_work(site: Site, path: str) -> None:
    page = site.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    links = [urljoin(f"http://host{path}", link) for link in re.findall(r'href="([^"]+)"', page.text)]
    assert "http://host/api/v1/openapi.json" in links
    assert "http://host/api/v1/beams" in links
    for link in links:
        status = site.get(link.removeprefix("http://host")).status_code
        assert status == 200 or link.endswith(("/runs", "/names")), "those two are turned off here"


@pytest.mark.parametrize("path", ["/nowhere", "/api/v1/nowhere/at/all", "/static/nothing.js", "/runbooks/none.md"])
def test_browsers_get_a_page_for_an_unknown_address_and_programs_one_line(site: Site, path: str) -> None:
    page = site.get(path, accept=BROWSER)
    assert page.status_code == 404
    if page.headers["content-type"].startswith("text/html"):
        back = re.search(r'<a href="([^"]+)">Show all beams', page.text)
        assert back is not None
        assert urljoin(f"http://host{path}", back[1]) == "http://host/"
    other = site.get(path)
    assert other.status_code == 404
    assert "<" not in other.text


def test_the_page_for_an_unknown_address_is_html(site: Site) -> None:
    assert site.get("/nowhere", accept=BROWSER).headers["content-type"].startswith("text/html")


def test_the_icon_is_where_browsers_look_for_it(site: Site) -> None:
    icon = site.get("/favicon.ico")
    assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")


def test_beams_can_be_saved_for_spreadsheets_as_they_are_filtered() -> None:
    beams = make_beam(beam_id="=1+1"), make_beam(beam_id="two", state=BeamState.STALLED)
    with serve(snapshot=lambda: make_snapshot(*beams)) as site:
        answer = site.get("/api/v1/beams?format=csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["beam_id"] for row in rows] == ["'=1+1", "two"], "a formula is escaped"
        assert rows[0]["expected_end"] == str(NOW + 900)
        assert answer.headers["content-disposition"] == 'attachment; filename="beams.csv"'
        filtered = site.get("/api/v1/beams?format=csv&state=stalled").text
        assert [row["beam_id"] for row in csv.DictReader(io.StringIO(filtered))] == ["two"]


def test_the_plain_table_begins_with_what_needs_attention_and_links_to_pages() -> None:
    beams = (
        make_beam("c", "done", state=BeamState.SUCCEEDED),
        make_beam("c", "running"),
        make_beam("c", "stalled", state=BeamState.STALLED),
        make_beam("c/d", "failed", state=BeamState.FAILED, reason="cuda"),
    )
    with serve(snapshot=lambda: make_snapshot(*beams)) as site:
        found = re.findall(r'<td><a href="([^"]+)">(\w+)</a>', site.get("/table").text)
    assert [name for _, name in found] == ["failed", "stalled", "running", "done"]
    assert found[0][0] == "./#/beam/c%2Fd/failed"
