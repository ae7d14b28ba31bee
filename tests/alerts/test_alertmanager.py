"""The example configuration of Alertmanager is valid, and each alert reaches its receiver."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.parameters import Parameters
from alerts.rules import alerts
from tests.alerts.test_rules import ROOT, run

CONFIGURATION = ROOT / "alerts" / "alertmanager.yml"
TEMPLATE = ROOT / "alerts" / "mqi.tmpl"
NAMES = {alert.name for alert in alerts(Parameters())}


def configuration() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    return data


def test_amtool_accepts_the_configuration() -> None:
    assert "SUCCESS" in run("amtool", "check-config", CONFIGURATION)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=MQIBeamStalled", "severity=warning", "case_id=C1"], "physicists"),
        (["alertname=MQIBeamFailed", "severity=warning", "case_id=C1"], "physicists"),
        (["alertname=MQIBeamStalledLong", "severity=critical", "case_id=C1"], "on-call"),
        (["alertname=MQIDoseNotWritten", "severity=critical", "case_id=C1"], "on-call"),
        (["alertname=MQISourceDown", "severity=critical", "source=hpc1"], "on-call"),
        (["alertname=MQIExporterDown", "severity=critical"], "on-call"),
        (["alertname=MQILogBlockBuffered", "severity=info", "source=hpc1"], "operators"),
        (["alertname=MQIMirrorNotWriting", "severity=warning"], "operators"),
        (["alertname=MQICertificateExpires", "severity=warning"], "operators"),
    ],
)
def test_each_alert_finds_its_receiver(labels: list[str], receiver: str) -> None:
    assert run("amtool", "config", "routes", "test", f"--config.file={CONFIGURATION}", *labels).strip() == receiver


def test_cases_of_two_sites_are_never_in_one_message() -> None:
    route = configuration()["route"]
    assert all("site" in each["group_by"] for each in (route, *route["routes"]) if "group_by" in each)


def test_the_configuration_names_only_existing_alerts() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert set(re.findall(r"MQI[A-Z]\w+", text)) <= NAMES


def inhibited(target: dict[str, str], source: dict[str, str]) -> bool:
    """Return whether the inhibition rules suppress ``target`` while ``source`` fires."""
    return any(
        matches(rule["source_matchers"], source)
        and matches(rule["target_matchers"], target)
        and all(target.get(label, "") == source.get(label, "") for label in rule.get("equal", ()))
        for rule in configuration()["inhibit_rules"]
    )


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    for matcher in matchers:
        parts = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher)
        assert parts, matcher
        value = labels.get(parts[1], "")
        same = value == parts[3] if parts[2] in ("=", "!=") else re.fullmatch(parts[3], value) is not None
        if same == parts[2].startswith("!"):
            return False
    return True


HOME = {"job": "j", "instance": "a"}
STALLED = {**HOME, "alertname": "MQIBeamStalled", "case_id": "C1", "beam_id": "B1", "source": "hpc1"}


@pytest.mark.parametrize(
    ("source", "silenced"),
    [
        ({**HOME, "alertname": "MQISourceDown", "source": "hpc1"}, True),
        ({**HOME, "alertname": "MQISourceDown", "source": "local"}, False),
        ({**HOME, "alertname": "MQIBeamFailed", "case_id": "C1", "beam_id": "B1", "source": "hpc1"}, True),
        ({**HOME, "alertname": "MQIBeamFailed", "case_id": "C1", "beam_id": "B2", "source": "hpc1"}, False),
        ({**HOME, "alertname": "MQIBeamStalledLong", "case_id": "C1", "beam_id": "B1", "source": "hpc1"}, False),
        ({**HOME, "alertname": "MQIExporterDown"}, True),
        ({"job": "j", "instance": "other", "alertname": "MQIExporterDown"}, False),
        ({"job": "j", "alertname": "MQIExporterAbsent"}, True),
        ({**HOME, "alertname": "MQIMirrorNotWriting"}, False),
    ],
)
def test_a_stall_is_inhibited_by_a_failed_source_or_exporter(source: dict[str, str], silenced: bool) -> None:
    assert inhibited(STALLED, source) is silenced


@pytest.mark.parametrize(
    ("alert", "silenced"),
    [
        ({"alertname": "MQIDoseNotWritten"}, True),
        ({"alertname": "MQINoParticles"}, True),
        ({"alertname": "MQIEmptyDose"}, True),
        ({"alertname": "MQIDoseNotWritten", "beam_id": "B2"}, False),
        ({"alertname": "MQIDoseNotWritten", "case_id": "C2"}, False),
        ({"alertname": "MQIDoseNotWritten", "instance": "other"}, False),
        # its text does not say that the row will not move
        ({"alertname": "MQIBeamFailed"}, False),
    ],
)
def test_a_missing_dose_raises_one_alert_and_no_mismatch(alert: dict[str, str], silenced: bool) -> None:
    of_beam = {**HOME, "case_id": "C1", "beam_id": "B1", "source": "hpc1"}
    mismatch = {**of_beam, "alertname": "MQIStatusMismatch"}
    told = {**of_beam, "reason": "output_error", **alert}
    assert inhibited(mismatch, told) is silenced
    assert not inhibited(told, mismatch)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_alert_inhibits_itself_and_exporter_down_inhibits_all_of_its_instance(name: str) -> None:
    alert = {**HOME, "alertname": name, "case_id": "C1", "beam_id": "B1", "source": "hpc1"}
    assert not inhibited(alert, alert)
    down = {**HOME, "alertname": "MQIExporterDown"}
    assert inhibited(alert, down) is (name not in ("MQIExporterDown", "MQIExporterAbsent"))


def rendered(name: str, data: dict[str, Any], folder: Path, kind: str = "text") -> str:
    file = folder / "data.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return run(
        *("amtool", "template", "render", f"--template.glob={TEMPLATE}", f"--template.data={file}"),
        f"--template.type={kind}",
        f'--template.text={{{{ template "{name}" . }}}}',
        TZ="Asia/Seoul",
    )


def notification(status: str, *summaries: str) -> dict[str, Any]:
    alert = {
        "status": status,
        "labels": {"alertname": "MQIBeamStalled", "severity": "warning", "case_id": "C<1>"},
        "startsAt": "2026-01-02T03:04:05Z",
        "endsAt": "2026-01-02T04:04:05Z",
    }
    texts = {"description": "It hangs.", "dashboard_url": "http://g/d/x?a=1&b=2", "runbook_url": "docs/runbooks/X.md"}
    return {
        "receiver": "physicists",
        "status": status,
        "alerts": [{**alert, "annotations": {**texts, "summary": summary}} for summary in summaries],
        "groupLabels": {"case_id": "C<1>"},
        "commonLabels": alert["labels"],
        "commonAnnotations": {},
        "externalURL": "http://am",
    }


def test_a_mail_subject_has_severity_and_summary(tmp_path: Path) -> None:
    one = rendered("mqi.subject", notification("firing", "Beam B1 of case C<1> stands still"), tmp_path)
    assert one.strip() == "WARNING: Beam B1 of case C<1> stands still"
    over = rendered("mqi.subject", notification("resolved", "Beam B1 of case C<1> stands still"), tmp_path)
    assert over.strip() == "Resolved: Beam B1 of case C<1> stands still"
    two = rendered("mqi.subject", notification("firing", "one", "two"), tmp_path)
    assert two.strip() == "WARNING: 2 alerts, case C<1>"


def test_a_notification_text_is_complete_and_has_local_times(tmp_path: Path) -> None:
    text = rendered("mqi.text", notification("firing", "Beam B1 stands still"), tmp_path)
    assert text.strip().splitlines() == [
        "[warning] Beam B1 stands still",
        "It hangs.",
        "Since 2026-01-02 12:04:05 KST",
        "Dashboard: http://g/d/x?a=1&b=2",
        "What to do: docs/runbooks/X.md",
    ]
    over = rendered("mqi.text", notification("resolved", "Beam B1 stands still"), tmp_path)
    assert "Since 2026-01-02 12:04:05 KST, over 2026-01-02 13:04:05 KST" in over
    assert over.startswith("[warning]")


def test_ids_in_notifications_are_escaped(tmp_path: Path) -> None:
    html = rendered("mqi.html", notification("firing", "Beam <script>alert(1)</script> stands still"), tmp_path, "html")
    assert "<strong>Beam &lt;script&gt;" in html
    assert "<script>" not in html


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-sites.yml"])
def test_the_example_of_prometheus_configuration_is_valid_beside_the_rules(tmp_path: Path, name: str) -> None:
    for source in (ROOT / "config" / name, ROOT / "alerts" / "mqi-rules.yml"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    run("promtool", "check", "config", tmp_path / name)
    done = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "config" / name)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"mqi-rules.yml" in done.stdout + done.stderr
