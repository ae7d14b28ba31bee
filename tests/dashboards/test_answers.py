"""Expressions of panels, evaluated by promtool over given series and the rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.__main__ import FILE as RULES
from tests.support.grafana import ALL as EVERY
from tests.support.grafana import interpolated

FOLDER = Path(__file__).parents[2] / "dashboards"
Chosen = dict[str, str | list[str]]
ALL: Chosen = dict.fromkeys(("job", "instance", "source", "case", "beam"), EVERY)
"""Values of the variables when the user has chosen nothing: all."""
ONE_CASE: Chosen = {**ALL, "case": "C1"}


def expression(dashboard: str, title: str, variables: Chosen) -> str:
    data = json.loads((FOLDER / f"{dashboard}.json").read_text(encoding="utf-8"))
    [target] = next(panel["targets"] for panel in data["panels"] if panel["title"] == title)
    return interpolated(target["expr"], variables)


def answers(
    folder: Path,
    expr: str,
    series: dict[str, str],
    expected: list[dict[str, Any]],
    at: str = "10m",
) -> None:
    """Check the samples of an expression at a time, over series with one sample per minute."""
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": expected}],
            }
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump(test), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


ABSENT = {"labels": '{alertname="MQIExporterAbsent", severity="critical"}', "value": 1}


@pytest.mark.parametrize("instance", [EVERY, ["a"], ["a", "b"]])
def test_the_alert_for_an_absent_exporter_is_shown(tmp_path: Path, instance: str | list[str]) -> None:
    asked = expression("mqi-beams", "What needs somebody now?", {**ALL, "instance": instance})
    answers(tmp_path, asked, {"up{job='other', instance='a'}": "1x20"}, [ABSENT])


def test_alerts_of_other_exporters_are_not_shown(tmp_path: Path) -> None:
    series = {f"up{{job='mqi-beam-exporter', instance='{instance}'}}": "0x20" for instance in ("a", "b", "ab")}
    asked = expression("mqi-beams", "What needs somebody now?", {**ALL, "instance": ["a"]})
    answers(tmp_path, asked, series, [{"labels": '{alertname="MQIExporterDown", severity="critical"}', "value": 1}])


def states(instance: str, beam: str, state: str, source: str = "local") -> dict[str, str]:
    """Return the series of a beam's state as an exporter exports them: one for each state."""
    return {
        f"mqi_beam_state{{job='j', instance='{instance}', case_id='C1', beam_id='{beam}', source='{source}',"
        f" state='{each}'}}": ("1x20" if each == state else "0x20")
        for each in ("waiting", "starting", "running", "stalled", "expired", "unreachable", "failed", "succeeded")
    }


@pytest.mark.parametrize(
    ("dashboard", "title", "count"),
    [
        ("mqi-beams", "Beams that failed", 2),
        ("mqi-case", "Beams that failed", 2),
        # one of the two exporters is a moment behind
        ("mqi-beams", "Beams running now", 1),
        ("mqi-beams", "Beams that stand still", 0),
    ],
)
def test_a_beam_that_two_exporters_follow_counts_once(tmp_path: Path, dashboard: str, title: str, count: int) -> None:
    series = {
        **states("a", "B1", "failed"),
        **states("b", "B1", "failed"),
        **states("a", "B2", "failed"),
        **states("b", "B2", "failed"),
        **states("a", "B3", "starting"),
        **states("b", "B3", "running"),
    }
    asked = expression(dashboard, title, ONE_CASE if dashboard == "mqi-case" else ALL)
    answers(tmp_path, asked, series, [{"labels": "{}", "value": count}])


def test_beams_are_counted_by_case_beam_and_source_as_in_the_table(tmp_path: Path) -> None:
    series = {**states("a", "B1", "failed"), **states("a", "B1", "failed", "hpc1"), **states("a", "B2", "failed")}
    asked = expression("mqi-beams", "Beams that failed", ALL)
    answers(tmp_path, asked, series, [{"labels": "{}", "value": 3}])


def test_a_count_without_beams_is_0(tmp_path: Path) -> None:
    answers(tmp_path, expression("mqi-beams", "Beams that failed", ALL), {}, [{"labels": "{}", "value": 0}])
