from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli import main
from tests.support import communicator_db as db
from tests.support.sshd import Sshd


def check(config: Path, text: str) -> tuple[int, str]:
    config.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, ["check-config", "--connect", "--config.file", str(config)])
    return result.exit_code, result.output


@pytest.fixture
def text(tmp_path: Path) -> str:
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "b")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.log").write_bytes(b"")
    return f"""
database: {{path: {database}}}
sources:
  - {{name: here, log_path: "{tmp_path}/logs/{{beam_id}}.log"}}
"""


def test_what_works_is_said_for_each_source_and_the_database(tmp_path: Path, text: str) -> None:
    status, output = check(tmp_path / "c.yaml", text)
    assert status == 0
    assert f"ok  source here: {tmp_path}/logs: 1 files" in output
    assert "1 beams that are not over" in output


def test_a_host_is_tried_with_its_key_its_login_and_its_folder(tmp_path: Path, text: str) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        host = sshd.host
        text += f"""
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {host.key_file}
    known_hosts_file: {host.known_hosts_file}
    log_path: "{tmp_path}/logs/{{beam_id}}.log"
"""
        status, output = check(tmp_path / "c.yaml", text)
        assert status == 0, output
        assert "ok  source hpc1: 127.0.0.1: host key known, logged in, SFTP works" in output
        assert f"ok  source hpc1: {tmp_path}/logs: 1 files" in output
        sshd.known_hosts.write_text("", encoding="utf-8")
        status, output = check(tmp_path / "c.yaml", text)
    assert status == 1
    assert "FAILED  source hpc1: refused" in output
    assert "ok  source here" in output


def test_a_database_that_is_not_there_fails(tmp_path: Path, text: str) -> None:
    (tmp_path / "mqi.db").unlink()
    status, output = check(tmp_path / "c.yaml", text)
    assert status == 1
    assert "FAILED  database: cannot read" in output
