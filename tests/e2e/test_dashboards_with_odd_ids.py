"""Every expression of every dashboard, in a real Prometheus, for cases and beams whose ids are no plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.beams.snapshot import BeamState
from exporter.metrics.collectors import StoreCollector
from exporter.metrics.encoder import MetricsEncoder
from exporter.privacy.identifiers import PlainIdentifiers
from tests.support.grafana import ALL, interpolated, link
from tests.support.process import wait_for
from tests.support.servers import Prometheus
from tests.support.stack import ROOT
from tests.web.site import serve
from tests.web.store_snapshots import NOW, make_beam, make_snapshot

pytestmark = pytest.mark.timeout(120)

CASES = [
    "P(01)",
    "7.1",
    "781",
    "a+b",
    "한글 01",
    'x"y',
    "back\\slash",
    "O'Neil",
    "c|d",
    "c",
    "$1^",
    "[ab]",
    "a",
    "50%2B",
]
BEAMS = ("G 90 (1)", 'b"\\1.+')
DASHBOARDS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "dashboards").glob("mqi-*.json"))
}
ANY: dict[str, str | list[str]] = {"job": ALL, "instance": ALL, "source": ALL}


def ratio(case_id: str) -> float:
    """A progress of its own for each case."""
    return (CASES.index(case_id) + 1) / 100


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    failed: dict[str, Any] = {"state": BeamState.FAILED, "reason": "cuda", "ended_at": NOW}
    snapshot = make_snapshot(
        *(
            make_beam(case_id, beam_id, estimated_ratio=ratio(case_id), **(failed if beam_id == BEAMS[1] else {}))
            for case_id in CASES
            for beam_id in BEAMS
        )
    )
    groups = StoreCollector(lambda: snapshot, identifiers=PlainIdentifiers())
    with serve(encoder=MetricsEncoder(groups)) as site:
        scraped = {"job_name": "mqi-beam-exporter", "static_configs": [{"targets": [site.server.address]}]}
        configuration = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}
        (folder / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
        server = Prometheus(folder)
        with server:
            wait_for(lambda: bool(server.query("mqi_beam_state")), "a scrape", 60)
            yield server


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["target"]["expr"] for each in dashboard["annotations"]["list"])


def answers(prometheus: Prometheus, dashboard: str, chosen: dict[str, str | list[str]]) -> set[tuple[str, str]]:
    """Cases and beams in the answers to all of a dashboard's expressions; each must be accepted."""
    found = set()
    for expression in expressions(DASHBOARDS[dashboard]):
        asked = interpolated(expression.replace("$__rate_interval", "1m"), {**ANY, **chosen})
        for labels, _ in prometheus.query(asked):
            if "beam_id" in labels:
                found.add((labels["case_id"], labels["beam_id"]))
            elif "case_id" in labels:
                found |= {(labels["case_id"], beam_id) for beam_id in BEAMS}
    return found


@pytest.mark.parametrize("case_id", CASES)
def test_the_dashboard_of_a_case_shows_this_case_and_no_other(prometheus: Prometheus, case_id: str) -> None:
    shown = answers(prometheus, "mqi-case", {"case": case_id, "beam": ALL})
    assert shown == {(case_id, beam_id) for beam_id in BEAMS}
    [title] = [panel for panel in DASHBOARDS["mqi-case"]["panels"] if panel["title"] == "How far is the case?"]
    asked = interpolated(title["targets"][0]["expr"], {**ANY, "case": case_id, "beam": ALL})
    [(_, value)] = prometheus.query(asked)
    assert value == pytest.approx(ratio(case_id))


@pytest.mark.parametrize("beam_id", BEAMS)
@pytest.mark.parametrize("case_id", CASES)
def test_one_chosen_beam_of_a_case_is_shown_alone(prometheus: Prometheus, case_id: str, beam_id: str) -> None:
    assert answers(prometheus, "mqi-case", {"case": case_id, "beam": [beam_id]}) == {(case_id, beam_id)}


@pytest.mark.parametrize("chosen", [[each] for each in CASES] + [CASES[:3], CASES[3:8], CASES])
def test_the_dashboard_of_all_beams_shows_the_chosen_cases_and_no_others(
    prometheus: Prometheus, chosen: list[str]
) -> None:
    shown = answers(prometheus, "mqi-beams", {"case": chosen, "beam": ALL})
    assert shown == {(case_id, beam_id) for case_id in chosen for beam_id in BEAMS}


@pytest.mark.parametrize("dashboard", ["mqi-beams", "mqi-case"])
@pytest.mark.parametrize("case_id", CASES)
def test_the_beams_of_a_chosen_case_can_be_chosen(prometheus: Prometheus, dashboard: str, case_id: str) -> None:
    chosen: dict[str, str | list[str]] = {**ANY, "case": case_id if dashboard == "mqi-case" else [case_id]}
    queries = {each["name"]: each["query"] for each in DASHBOARDS[dashboard]["templating"]["list"]}
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", interpolated(queries["beam"], chosen))
    assert match is not None
    assert sorted(prometheus.label_values(match[2], match[1])) == sorted(BEAMS)
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", interpolated(queries["case"], chosen))
    assert match is not None
    assert sorted(prometheus.label_values(match[2], match[1])) == sorted(CASES)


def links(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for each in override["properties"]:
                yield from (one["url"] for one in each["value"]) if each["id"] == "links" else ()


@pytest.mark.parametrize("case_id", [*CASES, "a&b=c", "#1", "x?y", "50 %"])
def test_a_click_on_a_beam_opens_this_beam(case_id: str) -> None:
    found = list(links(DASHBOARDS["mqi-beams"]))
    assert len(found) == 3
    for url in found:
        asked = parse_qs(urlsplit(link(url, {"Case": case_id, "Beam": f"{case_id}_1"})).query, strict_parsing=True)
        assert (asked["var-case"], asked["var-beam"]) == ([case_id], [f"{case_id}_1"])


def uses(dashboard: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each matcher with a variable in it, and the variables by name."""
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    texts = [*expressions(dashboard), *(str(each["query"]) for each in variables.values())]
    for text in texts:
        for matcher in re.findall(r"\w+(?:=~|!~|!=|=)(?:\"[^\"]*\"|`[^`]*`)", text):
            if "$" in matcher:
                yield matcher, variables


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_variable_with_one_value_is_never_used_as_a_regular_expression(name: str) -> None:
    found = list(uses(DASHBOARDS[name]))
    assert found
    for matcher, variables in found:
        [variable] = re.findall(r"\$\{?(\w+)", matcher)
        several = variables[variable]["multi"] or variables[variable]["includeAll"]
        assert ("=~" in matcher) == bool(several), matcher
