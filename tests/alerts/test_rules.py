"""The rules: the committed file is up to date and valid, and each alert has unit tests and a runbook."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from alerts.__main__ import FILE
from alerts.parameters import GRAFANA_URL, RUNBOOK_URL, Parameters, duration
from alerts.rules import alerts, groups, rule_file
from exporter.cli import export as cli_files
from exporter.logs.events import FAILURE_REASONS, INTERRUPTIONS
from exporter.metrics.definitions import GROUPS
from tests.dashboards.test_dashboards import sample_names
from tests.support.client_encoder import empty_family

ROOT = Path(__file__).parents[2]
UNIT_TESTS = sorted((ROOT / "alerts" / "tests").glob("*.yml"))
ALERTS = alerts(Parameters())
BEAM_LABELS = {
    "site",
    "job",
    "instance",
    "case_id",
    "beam_id",
    "source",
    "reason",
    "status",
    "state",
    "where",
    "severity",
}

every_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(each) for each in command],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unit_tests() -> list[dict[str, Any]]:
    return [test for path in UNIT_TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def test_rule_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == rule_file(Parameters())


def test_promtool_accepts_the_rules() -> None:
    assert f"{len(ALERTS) + 6} rules found" in run("promtool", "check", "rules", FILE)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_of_the_rules_pass(path: Path) -> None:
    run("promtool", "test", "rules", path)


def test_a_failing_unit_test_is_reported(tmp_path: Path) -> None:
    text = UNIT_TESTS[0].read_text(encoding="utf-8").replace("../mqi-rules.yml", str(FILE))
    assert "value: 1" in text
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace("value: 1", "value: 2"), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(broken)], capture_output=True, timeout=100, check=False)
    assert done.returncode == 1


@every_alert
def test_an_alert_has_unit_tests_for_its_text_and_for_when_it_must_not_fire(alert: Any) -> None:
    told = [
        each for test in unit_tests() for each in test.get("alert_rule_test", ()) if each["alertname"] == alert.name
    ]
    assert any(each["exp_alerts"] for each in told)
    silent = [
        (test["name"], each["eval_time"])
        for test in unit_tests()
        if alert.name in str(test)
        for each in test["promql_expr_test"]
        if f'"{alert.name}"' not in str(each.get("exp_samples", ""))
    ]
    assert len(silent) > 1, "before it fires, and after it has ended"


@every_alert
def test_an_alert_has_a_runbook_that_says_what_to_do(alert: Any) -> None:
    text = (ROOT / "docs" / "runbooks" / f"{alert.name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {alert.name}\n\nSeverity: {alert.severity}.\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "How to check", "What to do"]


def test_there_is_no_runbook_without_an_alert() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == {alert.name for alert in ALERTS}


@every_alert
def test_alert_texts_contain_only_labels_and_values_of_metrics(alert: Any) -> None:
    rule = alert.rule(Parameters())
    text = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= BEAM_LABELS
    assert "$externalLabels" not in text
    if alert.about == "beam":
        assert "$labels.case_id" in rule["annotations"]["summary"]
        assert "$labels.beam_id" in rule["annotations"]["summary"]
        assert "$labels.case_id | urlquery" in rule["annotations"]["dashboard_url"]


def test_rules_use_only_existing_metrics() -> None:
    known = {name for _, table in GROUPS for metric in table for name in sample_names(empty_family(metric))}
    rules = [rule for group in groups(Parameters())["groups"] for rule in group["rules"]]
    known |= {rule["record"] for rule in rules if "record" in rule}
    known |= {"up", "scrape_duration_seconds", "process_start_time_seconds"}
    for rule in rules:
        promql.parse(rule["expr"])
        names = set(re.findall(r"\b(mqi_[a-z_:]+|up|scrape_\w+|process_\w+)\b", rule["expr"]))
        assert names <= known, rule
        queried = re.findall(r"`(?:sum\()?([a-z_:]+)\{", " ".join(rule.get("annotations", {}).values()))
        assert set(queried) <= known, rule


def test_every_time_and_threshold_comes_from_a_parameter() -> None:
    numbers = {
        name: 7777 + index
        for index, (name, value) in enumerate((name, getattr(Parameters(), name)) for name in Parameters.__slots__)
        if isinstance(value, int | float)
    }
    built = rule_file(Parameters(**numbers))  # type: ignore[arg-type]
    for name, number in numbers.items():
        assert re.search(rf"\b({number}|{duration(number)})\b", built), name


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (45, "45s"), (60, "1m"), (90, "90s"), (7200, "2h"), (86400, "1d"), (604800, "1w")]
)
def test_durations_are_written_as_prometheus_does(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_the_export_replaces_the_addresses_that_the_rules_are_built_with() -> None:
    assert (cli_files.GRAFANA_URL, cli_files.RUNBOOK_URL) == (GRAFANA_URL, RUNBOOK_URL)


OUTLASTS_A_GAP = {
    *("MQIExporterDown", "MQIExporterAbsent", "MQIScrapeSlow"),  # of Prometheus' own series, which have no gap
    *("MQIFailedLogins", "MQINamesRefused"),  # counted over minutes
}


@every_alert
def test_an_alert_keeps_firing_until_mqi_exporter_down_inhibits_it(alert: Any) -> None:
    two_evaluations = 30
    if alert.name in OUTLASTS_A_GAP:
        assert not alert.kept_seconds
    else:
        assert alert.kept_seconds >= Parameters().exporter_down_for_seconds + two_evaluations


def test_the_source_alert_ends_before_a_stall_that_was_kept_during_it() -> None:
    assert Parameters().source_kept_seconds <= Parameters().kept_seconds - 30
    assert {alert.kept_seconds for alert in ALERTS if alert.about == "source"} == {Parameters().source_kept_seconds}


@every_alert
def test_an_alert_is_in_the_document(alert: Any) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} |" in text


@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_every_failure_reason_has_exactly_one_alert(reason: str) -> None:
    selectors = [
        (alert.name, operator, values)
        for alert in ALERTS
        if alert.name != "MQIStatusMismatch"
        for operator, values in re.findall(r'mqi_beam_failure\{reason(=~|!~|=)"([^"]+)"\}', alert.expression)
    ]
    told = [name for name, operator, values in selectors if (reason in values.split("|")) is (operator != "!~")]
    assert len(told) == 1
    assert (told == ["MQIBeamInterrupted"]) is (reason in INTERRUPTIONS)
