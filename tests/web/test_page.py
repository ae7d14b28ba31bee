"""The page as the server sends it, and the table for browsers without scripts."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

from exporter.beams.advice import SITUATIONS, WHAT_TO_DO
from exporter.beams.labels import REASON_TEXTS, STATE_LABELS, STATE_MEANINGS
from exporter.beams.snapshot import BeamKey, BeamState, EndedRun, SourceView
from exporter.logs.events import FAILURE_REASONS
from exporter.sources.source import SourceUnavailable
from exporter.web.page import CONTENT_SECURITY_POLICY, PageLinks, clock, duration, percent
from tests.web.site import serve
from tests.web.store_snapshots import NOW, make_beam, make_full_snapshot, make_snapshot, make_waiting_beam

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
FILES = tuple(sorted(file.name for file in (resources.files("exporter.web") / "static").iterdir()))


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("path", ["/", "/table", "/metrics", "/api/v1/beams", "/static/page.js", "/nothing"])
def test_every_answer_forbids_foreign_scripts_and_resources(path: str) -> None:
    with serve() as site:
        headers = site.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/table", "/help", "/what-to-do"])
def test_a_page_has_no_script_or_style_of_its_own_and_loads_only_what_is_served(path: str) -> None:
    with serve() as site:
        answer = site.get(path)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        elements = Elements(answer.text).found
        assert all(attributes.get("src") for tag, attributes in elements if tag == "script")
        assert not [tag for tag, _ in elements if tag == "style"]
        assert not [
            name for _, attributes in elements for name in attributes if name == "style" or name.startswith("on")
        ]
        loaded = [its[name] for tag, its in elements for name in ("src", "href") if its.get(name) and tag != "a"]
        assert loaded
        assert [site.get(f"/{link}").status_code for link in loaded] == [200] * len(loaded)
        followed = [str(its["href"]) for tag, its in elements if tag == "a" and not str(its["href"]).startswith("#")]
        assert [site.get(f"/{link}").status_code for link in followed] == [200] * len(followed)
        assert not [link for link in followed if link.startswith(("/", "http"))], "they work below a path, too"


@pytest.mark.parametrize("name", FILES)
def test_static_files_are_served_from_memory_with_an_etag(name: str) -> None:
    with serve() as site:
        first = site.get(f"/static/{name}")
        again = site.get(f"/static/{name}", **{"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    kind = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    assert first.headers["content-type"] == kind[name.rpartition(".")[2]]
    assert "http" not in first.text.replace("http://www.w3.org/2000/svg", ""), "nothing from elsewhere"


@pytest.mark.parametrize("name", ["", "nothing.js", "..%2Fserver.py", "%2e%2e/server.py", "page.js/"])
def test_an_unknown_static_file_is_404(name: str) -> None:
    with serve() as site:
        assert site.get(f"/static/{name}").status_code == 404


def test_the_page_has_all_labels_and_links() -> None:
    links = PageLinks("https://grafana.example/d/mqi?a=1&b=2", 'https://wiki.example/"x"/')
    with serve(links=links) as site:
        elements = Elements(site.get("/").text).found
    [settings] = [its["content"] for tag, its in elements if tag == "meta" and its.get("name") == "mqi-settings"]
    assert settings is not None
    said = json.loads(settings)
    assert said["reasons"] == {reason: REASON_TEXTS[reason] for reason in FAILURE_REASONS}
    assert said["runbooks"].keys() >= {*FAILURE_REASONS, "stalled", "waiting", "source_down", "folder_missing"}
    assert said["advice"].keys() <= said["runbooks"].keys()
    assert said["runbooks"]["output_error"] == 'https://wiki.example/"x"/MQIDoseNotWritten.md'
    assert links.grafana_url in [its.get("href") for tag, its in elements if tag == "a"]


def test_a_browser_without_scripts_is_redirected_to_the_table() -> None:
    with serve() as site:
        page = site.get("/").text
    assert re.search(r'<noscript><meta http-equiv="refresh" content="0; url=table"></noscript>', page)


def test_the_table_shows_all_beams_banners_and_ended_runs() -> None:
    snapshot = make_full_snapshot()
    run = EndedRun(BeamKey("70010001", "gone"), "local", 2, "failed", "output_error", NOW - 700, NOW - 100)
    failed = make_beam(beam_id="no dose", state=BeamState.FAILED, reason="output_error", ended_at=NOW, run_number=3)
    snapshot = replace(snapshot, beams=(*snapshot.beams, failed), ended=(run,))
    problem = SourceUnavailable("connect", "no route <to> it")
    sources = tuple(replace(each, problem=problem) if each.up is False else each for each in snapshot.sources)
    snapshot = replace(snapshot, sources=sources)
    with serve(snapshot=lambda: snapshot, links=PageLinks(runbook_url="https://wiki.example")) as site:
        page = site.get("/table").text
    elements = Elements(page)
    for beam in snapshot.beams:
        assert beam.key.beam_id in elements.text
    words = " ".join(elements.text.split())
    assert "Failed: the dose was not written; the disk may be full (what to do)" in words
    assert "hpc1 cannot be reached. Its beams show the last known values. Reason: no route <to> it." in words
    assert "its clock is 5 min 00 s behind (times shown are corrected)" in words
    assert words.count("its clock is") == 1
    assert "3 more beams are not shown" in words
    assert "5 of 18 15 min" in words
    assert "gone, run 2: the dose was not written; the disk may be full, after 10 min" in words
    assert "what-to-do#output_error" in [its.get("href") for _, its in elements.found]


def test_what_to_do_has_steps_and_a_runbook_for_every_failure_and_every_other_situation() -> None:
    with serve() as site:
        elements = Elements(site.get("/what-to-do").text)
    assert [its["id"] for tag, its in elements.found if tag == "section"] == list(WHAT_TO_DO)
    assert WHAT_TO_DO.keys() == {*FAILURE_REASONS, *SITUATIONS}
    for reason, steps in WHAT_TO_DO.items():
        assert 1 <= len(steps) <= 3, reason
        assert all(step in elements.text for step in steps)
    assert "runbooks/MQIDoseNotWritten.md" in [its.get("href") for _, its in elements.found]


def test_help_explains_every_state() -> None:
    with serve() as site:
        text = Elements(site.get("/help").text).text
    for state, word in STATE_LABELS.items():
        assert word in text
        assert STATE_MEANINGS[state][1:] in text


def test_an_unreachable_beam_has_no_time_left_and_no_expected_end_in_the_past() -> None:
    def cells(at: float) -> list[str]:
        lost = make_beam(state=BeamState.UNREACHABLE, state_since=NOW, remaining_seconds=34.0)
        with serve(snapshot=lambda: make_snapshot(lost, at=at)) as site:
            row = site.get("/table").text.partition("<tbody>")[2]
        return re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[5:7]

    assert cells(NOW + 10) == ["", clock(NOW + 34, NOW)]
    assert cells(NOW + 60) == ["", ""]


def test_the_table_names_a_folder_that_does_not_exist_at_the_source_and_at_each_waiting_beam() -> None:
    source = SourceView("hpc1", "ssh", up=True, last_poll_at=NOW, folders_missing=("/data/lgos",))
    with serve(snapshot=lambda: make_snapshot(make_waiting_beam(), make_beam(), sources=(source,))) as site:
        said = " ".join(Elements(site.get("/table").text).text.split())
        [shown] = site.get("/api/v1/sources").json()["sources"]
    assert "hpc1: the folder /data/lgos does not exist. No log can be found there" in said
    assert said.count("Waiting: no log yet; the folder /data/lgos does not exist on hpc1") == 1
    assert (shown["up"], shown["folders_missing"]) == (True, ["/data/lgos"])


def test_the_table_uses_the_singular_for_one_beam() -> None:
    with serve(snapshot=lambda: make_snapshot(make_beam(), beams_dropped=1)) as site:
        words = " ".join(Elements(site.get("/table").text).text.split())
    assert "1 more beam is not shown: max_beams is reached." in words
    assert "answers, 1 beam, last polled" in words


def test_a_table_without_beams_says_so() -> None:
    with serve(snapshot=make_snapshot) as site:
        assert "No beams are known." in site.get("/table").text


def test_hostile_ids_and_texts_are_only_text_in_the_table() -> None:
    key = BeamKey(HOSTILE, HOSTILE)
    changes: dict[str, Any] = {"source": HOSTILE, "state": BeamState.FAILED, "reason": "error", "failure_text": HOSTILE}
    beams = (make_beam(**changes)._replace(key=key), make_waiting_beam()._replace(key=replace(key, beam_id="b")))
    run = EndedRun(key, HOSTILE, 1, "succeeded", None, None, NOW)
    with serve(snapshot=lambda: make_snapshot(*beams, ended=(run,))) as site:
        page = site.get("/table").text
    elements = Elements(page).found
    assert not [tag for tag, _ in elements if tag in ("img", "script")]
    assert page.count(html.escape(HOSTILE, quote=True).replace("&quot;", "&#34;")) >= 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (599.6, "10 min"),
        (3599, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_are_formatted_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_percent_is_rounded_down_so_that_100_means_finished() -> None:
    assert [percent(ratio) for ratio in (0.0, 0.29, 0.9999, 1.0)] == ["0 %", "29 %", "99 %", "100 %"]


def test_times_of_another_day_have_a_date() -> None:
    assert re.fullmatch(r"\d\d:\d\d", clock(NOW, NOW))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", clock(NOW - 3 * 86400, NOW))
    assert clock(None, NOW) == ""


def test_the_table_has_a_clock_of_twelve_hours_if_configured() -> None:
    assert re.fullmatch(r"\d\d:\d\d [AP]M", clock(NOW, NOW, "12h"))
    with serve(links=PageLinks(time_format="12h")) as site:
        assert re.search(r"As of \d\d:\d\d [AP]M", site.get("/table").text)
