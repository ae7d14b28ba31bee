"""Messages from a running exporter to a real webhook and a real mail server."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli.main import main
from tests.support.process import ExporterProcess, wait_for
from tests.support.receivers import MailServer, Webhook
from tests.support.replay import LOGS

pytestmark = pytest.mark.timeout(240)
SECONDS = 60.0


def configuration(folder: Path, urls: str) -> Path:
    (folder / "logs").mkdir()
    secret = folder / "urls"
    secret.write_text(urls, encoding="utf-8")
    secret.chmod(0o600)
    path = folder / "exporter.yaml"
    path.write_text(
        f"""
base_directory: {folder}
sources: [{{name: local, kind: local, log_path: "{folder}/logs/{{case_id}}_{{beam_id}}.log"}}]
discovery: {{kind: directory, interval_seconds: 0.2}}
mirror: {{enabled: false}}
state: {{file: {folder}/state.db, interval_seconds: 0.3}}
web: {{listen_address: "127.0.0.1:0"}}
notifications: [{{name: physics, url_file: {secret}, on: [beam_failed, case_failed]}}]
""",
        encoding="utf-8",
    )
    return path


def destinations(store: Path) -> int:
    """How many destinations the store knows."""
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as database:
            [(count,)] = database.execute("SELECT count(DISTINCT destination) FROM notifications").fetchall()
    except sqlite3.OperationalError:
        return 0
    return int(count)


def sent(exporter: ExporterProcess) -> float:
    return exporter.metrics()["mqi_notifications_total", frozenset({("name", "physics"), ("outcome", "sent")})]


def test_a_failed_beam_is_told_once_by_webhook_and_mail_also_over_a_restart(tmp_path: Path) -> None:
    with Webhook() as webhook, MailServer() as mail:
        path = configuration(
            tmp_path, f"json://{webhook.address}/beams\nmailto://{mail.address}?from=mqi@a.example&to=b@a.example\n"
        )
        with ExporterProcess("--config.file", path) as exporter:
            wait_for(lambda: destinations(tmp_path / "state.db") == 2, "what is there already is known")
            assert sent(exporter) == 0
            shutil.copy(LOGS / "mgh_sigkill.log", tmp_path / "logs" / "A12_b1.log")
            wait_for(lambda: len(mail.mails) == 1 and len(webhook.received) == 1, "the beam's message", SECONDS)
            wait_for(lambda: len(mail.mails) == 2 and len(webhook.received) == 2, "the case's message", SECONDS)
            assert sent(exporter) == 4
        [failed, case] = [payload for _, payload in webhook.received]
        assert failed["title"] == "Case A12, beam b1 failed"
        assert "killed" in failed["message"]
        assert case["title"] == "Case A12 ended with failures"
        with ExporterProcess("--config.file", path) as exporter:
            shutil.copy(LOGS / "mgh_sigkill.log", tmp_path / "logs" / "A13_b1.log")
            wait_for(lambda: len(webhook.received) >= 3, "the next beam's message", SECONDS)
        assert [payload["title"] for _, payload in webhook.received[2:]] == ["Case A13, beam b1 failed"]


def test_the_command_tries_an_entry_and_says_what_the_service_answers(tmp_path: Path) -> None:
    with Webhook() as webhook:
        path = configuration(tmp_path, f"json://{webhook.address}/beams\n")
        result = CliRunner().invoke(main, ["--config.file", str(path), "notify", "test", "physics"])
        assert (result.exit_code, result.output) == (0, "physics, URL 1 (json): accepted\n")
        assert webhook.received[0][1]["title"] == "Test message of the beam exporter"
    result = CliRunner().invoke(main, ["--config.file", str(path), "notify", "test", "physics"])
    assert result.exit_code == 1
    assert "not accepted" in result.output
    result = CliRunner().invoke(main, ["--config.file", str(path), "notify", "test", "nobody"])
    assert result.exit_code == 1
    assert "has no entry 'nobody'; there is: physics" in result.output


def test_a_file_of_urls_that_cannot_be_used_keeps_the_exporter_from_starting_with_key_and_line(tmp_path: Path) -> None:
    path = configuration(tmp_path, "nonsense\n")
    with ExporterProcess("--config.file", path) as exporter:
        assert exporter.wait() == 1
        assert "notifications[0].url_file" in exporter.log
        assert "line 1: is not a URL that Apprise can send to" in exporter.log
