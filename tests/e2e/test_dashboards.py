"""Every expression of every dashboard against a real Prometheus that scrapes the exporter on simulated beams.

The beams have every fate: fine, slow, stalled, failed, tried again, block-buffered and on another host.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alerts.parameters import Parameters
from alerts.rules import rule_file
from tests.support import secured
from tests.support.certificates import Authority
from tests.support.grafana import ALL, interpolated
from tests.support.process import ExporterProcess, wait_for
from tests.support.servers import Prometheus, edit_yaml
from tests.support.stack import ROOT, prepare

DASHBOARDS = sorted((ROOT / "dashboards").glob("*.json"))
pytestmark = pytest.mark.timeout(400)  # the first test waits for the demo
SPEED = 4
INTERVAL_SECONDS = 1.0
CASES = ("DEMO0001", "DEMO0002", "DEMO0003")
VARIABLES: dict[str, str | list[str]] = dict.fromkeys(("job", "instance", "source", "beam"), ALL)
NOTHING_IS_GOOD = {
    ("mqi-exporter", "Which connections broke?", "B"),
    ("mqi-exporter", "What in the logs did not fit?", "A"),
}
"""What a demo without a broken connection and without odd logs cannot show; these panels say "None" and "Nothing"."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped the demo from its start until every beam has met its fate, and an idle, protected exporter."""
    folder = tmp_path_factory.mktemp("stack")
    authority = Authority(folder)
    authority.issue("server")
    key_file = folder / "pseudonyms.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(b"correct horse battery staple, and some more\n")
    pseudonyms = f"privacy: {{identifiers: pseudonym, key_file: {key_file}}}\n"
    with (
        ExporterProcess("demo", "--speed", str(SPEED), "--web.listen-address", "127.0.0.1:0") as exporter,
        secured.exporter(folder, {"tls_server_config": secured.TLS}, further=pseudonyms) as protected,
    ):
        prepare(folder, exporter=exporter.address, alertmanager="127.0.0.1:9", interval="1s")
        trust = {"tls_config": {"ca_file": str(authority.file)}}
        edit_yaml(
            folder / "prometheus.yml",
            folder / "prometheus.yml",
            lambda configuration: configuration["scrape_configs"].append(secured.job("protected", protected, **trust)),
        )
        rules = rule_file(Parameters(stall_for_seconds=1, usual_every_seconds=1, buffered_for_seconds=1))
        (folder / "mqi-rules.yml").write_text(rules, encoding="utf-8")
        server = Prometheus(folder)
        with server:
            for beam, state in (
                ("DEMO0002_beam_1", "failed"),
                ("DEMO0002_beam_2", "stalled"),
                ("DEMO0003_beam_1", "succeeded"),
                ("DEMO0001_beam_3", "succeeded"),
            ):
                exporter.reaches(beam, state, 90)
            wait_for(lambda: ("MQIBeamStalled", "DEMO0002_beam_2", "local") in server.alerts(), "the stall's alert", 60)
            wait_for(lambda: bool(server.query("mqi_beam:slowness_ratio")), "the slowness", 30)
            yield server


def filled(expression: str, case: str) -> str:
    """The expression as Grafana sends it with these choices."""
    filled = interpolated(expression.replace("$__rate_interval", "10s"), {**VARIABLES, "case": case})
    assert "$" not in filled, filled
    return filled


def queries() -> Iterator[Any]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield pytest.param(path.stem, panel, target, id=f"{path.stem}: {panel['title']} {target['refId']}")


@pytest.mark.parametrize(("dashboard", "panel", "target"), list(queries()))
def test_an_expression_returns_what_its_panel_promises(
    prometheus: Prometheus, dashboard: str, panel: dict[str, Any], target: dict[str, Any]
) -> None:
    found = [
        series
        for case in (CASES if dashboard == "mqi-case" else [ALL])
        for series in prometheus.query_range(filled(target["expr"], case), 180, INTERVAL_SECONDS)
    ]
    if (dashboard, panel["title"], target["refId"]) in NOTHING_IS_GOOD:
        assert panel["fieldConfig"]["defaults"]["noValue"] in ("None", "Nothing")
    else:
        assert found, target["expr"]
    for series in found:
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in series["metric"]
        assert any(value != "NaN" for _, value in series["values"]), series["metric"]


def variable_queries() -> Iterator[Any]:
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
            if variable["type"] == "query":
                yield pytest.param(variable, id=f"{path.stem}: {variable['name']}")


@pytest.mark.parametrize("variable", list(variable_queries()))
def test_a_variable_has_values(prometheus: Prometheus, variable: dict[str, Any]) -> None:
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
    assert match
    case = CASES[0] if "case_id=`" in match[1] else ALL
    assert prometheus.label_values(match[2], filled(match[1], case))


def panel(dashboard: str, title: str) -> list[str]:
    [found] = [
        each
        for each in json.loads((ROOT / "dashboards" / f"{dashboard}.json").read_text(encoding="utf-8"))["panels"]
        if each["title"] == title
    ]
    return [target["expr"] for target in found["targets"]]


def test_stalled_failed_and_remote_beams_are_in_their_panels(prometheus: Prometheus) -> None:
    def now(dashboard: str, title: str, number: int = 0, case: str = ALL) -> list[tuple[dict[str, str], float]]:
        return prometheus.query(filled(panel(dashboard, title)[number], case))

    assert [value for _, value in now("mqi-beams", "Beams that stand still")] == [1]
    assert [value for _, value in now("mqi-beams", "Beams that failed")] == [1]
    assert [value for _, value in now("mqi-beams", "Beams out of sight")] == [0]
    alerts = {
        (labels["alertname"], labels.get("beam_id")) for labels, _ in now("mqi-beams", "What needs somebody now?")
    }
    assert {("MQIBeamStalled", "DEMO0002_beam_2"), ("MQIBeamFailed", "DEMO0002_beam_1")} <= alerts
    ended = {labels["beam_id"]: labels for labels, _ in now("mqi-beams", "What ended lately, and how?")}
    assert ended["DEMO0003_beam_1"]["source"] == "hpc1"
    assert "DEMO0002_beam_2" not in ended
    why = now("mqi-beams", "What ended lately, and how?", -1)
    assert [(labels["beam_id"], labels["reason"]) for labels, _ in why] == [("DEMO0002_beam_1", "cuda")]
    states = {labels["beam_id"]: value for labels, value in now("mqi-case", "What was each beam doing?", 0, "DEMO0002")}
    assert states["DEMO0002_beam_1"] == 6
    assert states["DEMO0002_beam_2"] == 3


def test_a_stalled_beam_has_no_expected_end(prometheus: Prometheus) -> None:
    exprs = [expr for expr in panel("mqi-beams", "How far is each beam, and when is it done?") if "remaining" in expr]
    assert len(exprs) == 2
    for expr in exprs:
        assert "DEMO0002_beam_2" not in {labels["beam_id"] for labels, _ in prometheus.query(filled(expr, ALL))}


def test_failures_and_stalls_are_marked_at_the_moment_they_began(prometheus: Prometheus) -> None:
    for path in DASHBOARDS:
        for annotation in json.loads(path.read_text(encoding="utf-8"))["annotations"]["list"]:
            # the beams that failed and stalled are of this case
            found = prometheus.query(filled(annotation["target"]["expr"], "DEMO0002"))
            assert found, annotation["name"]
            assert all(time.time() - 600 < milliseconds / 1000 <= time.time() for _, milliseconds in found)


def test_no_query_is_too_large_for_a_small_prometheus(prometheus: Prometheus) -> None:
    assert all(len(filled(each.values[2]["expr"], "DEMO0002")) < 4000 for each in queries())


def test_the_rules_are_all_evaluated_without_an_error(prometheus: Prometheus) -> None:
    groups = prometheus.rule_groups()
    assert {group["name"] for group in groups} == {"mqi-usual", "mqi-beams", "mqi-sources", "mqi-exporters"}
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def test_the_test_stack_uses_the_files_of_a_site(tmp_path: Path) -> None:
    prepare(tmp_path, exporter="127.0.0.1:1", alertmanager="127.0.0.1:2")
    assert {path.name for path in tmp_path.iterdir()} == {
        "prometheus.yml",
        "mqi-rules.yml",
        "alertmanager.yml",
        "mqi.tmpl",
    }
