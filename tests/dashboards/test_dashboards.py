"""The dashboards: the committed files are up to date and follow the rules of good dashboards.

The rules are those of Grafana's dashboard linter and of grafanalib's traps: each test says one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
from prometheus_client.core import Metric

from alerts.parameters import Parameters
from alerts.rules import groups
from dashboards.__main__ import built
from exporter.metrics.definitions import GROUPS
from tests.support.client_encoder import empty_family

Json = dict[str, Any]
FOLDER = Path(__file__).parents[2] / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
GAUGES_NAMED_LIKE_COUNTERS = {"mqi_beam_batches_total"}
MAGIC = {"__rate_interval": "5m", "__interval": "1m", "__range": "1h"}
UNITS = {
    *("none", "short", "string", "percentunit", "s", "dtdurations", "bytes", "binBps", "cps"),
    "dateTimeAsIsoNoDateIfToday",
}
"""Those in use, all known to Grafana 12 (``valueFormats`` of @grafana/data); a new one is looked up there first."""
KNOWN_PANELS = {"row", "stat", "table", "timeseries", "bargauge", "state-timeline"}

_OF_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
_OF_PROMETHEUS = {"up", "scrape_duration_seconds", "ALERTS"}


def dashboard(path: Path) -> Json:
    data: Json = json.loads(path.read_text(encoding="utf-8"))
    return data


def panels(path: Path) -> list[Json]:
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def expressions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each expression with its place in the dashboard."""
    for panel in panels(path):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard(path)["annotations"]["list"]:
        yield annotation["name"], annotation["target"]["expr"]


def variables(path: Path) -> dict[str, Json]:
    return {each["name"]: each for each in dashboard(path)["templating"]["list"]}


def parsed(expression: str) -> Any:
    filled = re.sub(r"\$(\w+)(?=[^\"]*(?:\"[^\"]*\"[^\"]*)*$)", lambda name: MAGIC.get(name[1], name[0]), expression)
    return promql.parse(filled)


def walk(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield every part of an expression with the parts around it."""
    yield node, above
    match node:
        case promql.Call():
            below = list(node.args)
        case promql.BinaryExpr():
            below = [node.lhs, node.rhs]
        case promql.AggregateExpr():
            below = [node.expr]
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            below = [node.expr]
        case promql.MatrixSelector():
            below = [node.vector_selector]
        case _:
            below = []
    for each in below:
        yield from walk(each, (*above, node))


def selectors(expression: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    for node, above in walk(parsed(expression)):
        if isinstance(node, promql.VectorSelector):
            yield node, above


every_dashboard = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_expression = pytest.mark.parametrize(
    ("path", "where", "expression"),
    [pytest.param(path, *each, id=f"{path.stem}: {each[0]}") for path in FILES for each in expressions(path)],
)


def test_dashboard_files_are_up_to_date() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == {
        path.name: text for path, text in built()
    }


@every_dashboard
def test_a_dashboard_has_a_uid_and_is_not_editable(path: Path) -> None:
    data = dashboard(path)
    assert data["uid"] == path.stem
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", data["uid"])
    assert data["title"]
    assert data["description"]
    assert data["id"] is None
    assert data["editable"] is False
    assert data["schemaVersion"] >= 41


def test_no_two_dashboards_share_uid_or_title() -> None:
    for key in ("uid", "title"):
        assert len({dashboard(path)[key] for path in FILES}) == len(FILES)


@every_dashboard
def test_the_data_source_is_a_variable_everywhere(path: Path) -> None:
    data = dashboard(path)
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    source = variables(path)["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")
    for panel in panels(path):
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    assert all(annotation["datasource"] == chosen for annotation in data["annotations"]["list"])
    assert all(each["datasource"] == chosen for each in variables(path).values() if each["type"] == "query")


@every_dashboard
@pytest.mark.parametrize("name", ["job", "instance"])
def test_job_and_instance_are_variables(path: Path, name: str) -> None:
    variable = variables(path)[name]
    assert variable["type"] == "query"
    assert variable["multi"] is True
    assert variable["includeAll"] is True
    assert variable["allValue"] == ".+"
    assert variable["label"] == name.title()


@every_dashboard
def test_variables_are_valid_and_refresh_with_the_time_range(path: Path) -> None:
    for variable in variables(path).values():
        if variable["type"] == "query":
            assert variable["refresh"] == 2
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert match, variable["query"]
            promql.parse(match[1])
            if variable["multi"]:
                assert variable["current"] == {"text": "All", "value": ["$__all"]}


@every_dashboard
def test_a_dashboard_has_its_expected_variables(path: Path) -> None:
    wanted = {"mqi-beams": {"source", "case", "beam"}, "mqi-case": {"case", "beam"}, "mqi-exporter": {"source"}}
    shown = {name for name, variable in variables(path).items() if variable["hide"] == 0}
    assert wanted[path.stem] | {"datasource"} <= shown


@every_dashboard
def test_only_variables_that_are_defined_are_used(path: Path) -> None:
    text = json.dumps(dashboard(path)["panels"])
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used <= variables(path).keys() | MAGIC.keys() | {"__data", "__url_time_range"}


@every_dashboard
def test_every_panel_has_a_title_and_a_description(path: Path) -> None:
    titles = [panel["title"] for panel in panels(path)]
    assert len(set(titles)) == len(titles)
    for panel in panels(path):
        assert panel["type"] in KNOWN_PANELS
        assert len(panel["title"].split()) > 1, "a statement or a question, not a word"
        assert len(panel["description"]) > 20
        assert panel["description"].endswith(".")


@every_dashboard
def test_every_panel_has_a_unit_that_grafana_knows(path: Path) -> None:
    for panel in panels(path):
        field = panel["fieldConfig"]["defaults"]
        assert field.get("unit") in UNITS or field.get("mappings"), panel["title"]
        for override in panel["fieldConfig"].get("overrides", ()):
            for each in override["properties"]:
                assert each["id"] != "unit" or each["value"] in UNITS


@every_dashboard
def test_an_id_that_looks_like_a_number_is_shown_unchanged(path: Path) -> None:
    """04010004 would be shown as 4010004 and 7.1 as 7.10, and a click on it would lead there."""
    for panel in panels(path):
        for override in panel["fieldConfig"].get("overrides", ()) if panel["type"] == "table" else ():
            if override["matcher"]["options"] in ("Case", "Beam", "Source"):
                assert {"id": "unit", "value": "string"} in override["properties"], panel["title"]


@every_dashboard
def test_thresholds_have_a_lowest_step_and_rise(path: Path) -> None:
    for panel in panels(path):
        steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
        if steps:
            assert steps[0]["value"] is None
            values = [step["value"] for step in steps[1:]]
            assert values == sorted(values)
        assert panel["type"] not in ("stat", "bargauge") or steps


@every_dashboard
def test_panels_have_no_overlaps_and_no_gaps(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    rows = {y for _, y in taken}
    assert rows == set(range(max(rows) + 1))
    assert {x for x, _ in taken} == set(range(24))


@every_dashboard
def test_ids_are_unique(path: Path) -> None:
    ids = [panel["id"] for panel in dashboard(path)["panels"]]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    for panel in panels(path):
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)


@every_dashboard
def test_settings_for_old_grafana_versions_are_removed(path: Path) -> None:
    data = dashboard(path)
    assert not {"__inputs", "rows", "hideControls", "sharedCrosshair", "style"} & data.keys()
    for panel in panels(path):
        assert "maxDataPoints" not in panel
        assert "fieldOptions" not in panel["options"]
        assert "displayMode" not in panel["fieldConfig"]["defaults"].get("custom", {})
        assert all(target["intervalFactor"] == 1 for target in panel["targets"])
        assert all(target["legendFormat"] for target in panel["targets"])
        if panel["type"] in ("stat", "bargauge"):
            assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
    assert '"value": "null"' not in json.dumps(data)


@every_dashboard
def test_tables_join_their_queries_by_labels_that_all_have(path: Path) -> None:
    for panel in panels(path):
        if panel["type"] == "table":
            kinds = [each["id"] for each in panel["transformations"]]
            assert kinds == ["merge", "organize", "sortBy"]
            assert all(target["format"] == "table" and target["instant"] for target in panel["targets"])
            hidden = panel["transformations"][1]["options"]["excludeByName"]
            assert hidden["Time"]
            for target in panel["targets"]:
                assert re.search(r"(max|sum|count) by \(", target["expr"]), (
                    "its name and the exporter's labels are gone"
                )


@every_dashboard
def test_a_beam_links_to_its_case_dashboard(path: Path) -> None:
    for panel in panels(path):
        overrides = panel["fieldConfig"].get("overrides", ())
        beams = [each for each in overrides if each["matcher"]["options"] == "Beam"]
        if path.stem == "mqi-beams" and beams:
            [link] = next(each["value"] for each in beams[0]["properties"] if each["id"] == "links")
            assert link["url"].startswith("/d/mqi-case?")


@every_dashboard
def test_failures_and_stalls_are_marked(path: Path) -> None:
    annotations = dashboard(path)["annotations"]["list"]
    assert {each["name"] for each in annotations if each["enable"]} == {"Failures", "Stalls"}


@every_expression
def test_an_expression_is_valid_and_selects_only_the_chosen_exporters(path: Path, where: str, expression: str) -> None:
    found = list(selectors(expression))
    assert found
    for selector, _ in found:
        matchers = {(each.name, str(each.op), each.value) for each in selector.matchers.matchers}
        for label in ("job", "instance"):
            # an alert about no exporter at all is of no instance
            of_none = {f"${label}|"} if (selector.name, label) == ("ALERTS", "instance") else set()
            wanted = {f"${label}"} | of_none
            assert any(name == label and value in wanted for name, _, value in matchers), selector.name


@every_expression
def test_an_expression_uses_only_existing_metrics(path: Path, where: str, expression: str) -> None:
    families = [empty_family(metric) for _, table in GROUPS for metric in table]
    known = {name for family in families for name in sample_names(family)}
    recorded = {
        rule["record"] for group in groups(Parameters())["groups"] for rule in group["rules"] if "record" in rule
    }
    for selector, _ in selectors(expression):
        assert selector.name in known | recorded | _OF_CLIENT | _OF_PROMETHEUS


def sample_names(family: Metric) -> set[str]:
    suffixes = {
        "counter": ("_total",),
        "summary": ("_sum", "_count"),
        "histogram": ("_sum", "_count", "_bucket"),
    }
    return {family.name + suffix for suffix in suffixes.get(family.type, ("",))}


@every_expression
def test_counters_are_read_as_rates_over_a_suitable_window(path: Path, where: str, expression: str) -> None:
    for selector, above in selectors(expression):
        calls = [each.func.name for each in above if isinstance(each, promql.Call)]
        counter = selector.name.endswith(("_total", "_sum", "_count", "_bucket"))
        if counter and selector.name not in GAUGES_NAMED_LIKE_COUNTERS and "0 *" not in expression:
            assert {"rate", "irate", "increase"} & set(calls), selector.name
    for window in re.findall(r"\b(?:i?rate)\([^()]*(?:\{[^}]*\})?\[([^]]+)\]", expression):
        assert window == "$__rate_interval"
