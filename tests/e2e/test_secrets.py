"""Secrets that the exporter is given, looked for in everything that it shows or leaves behind."""

from __future__ import annotations

from pathlib import Path

from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd, keygen

PASSPHRASE, PASSWORD = "passphrase-7f3a9c", "password-51e0bd"


def secret_file(path: Path, secret: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n", encoding="utf-8")
    return path


def test_no_secret_is_in_logs_answers_files_or_the_process_list(tmp_path: Path) -> None:
    """One host that is logged in to with an encrypted key, one that refuses a password, all logged at debug level."""
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "70010001_beam_1", case_id="70010001")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "70010001_beam_1.log").write_bytes((LOGS / "v2_b2.log").read_bytes())
    state = tmp_path / "state.db"
    with Sshd(tmp_path / "sshd", extra="PasswordAuthentication yes\nMaxAuthTries 3") as server:
        key = keygen(tmp_path / "locked", passphrase=PASSPHRASE)
        (server.folder / "authorized_keys").write_bytes(Path(f"{key}.pub").read_bytes())
        host = server.host
        reach = f"kind: ssh, host: {host.host}, port: {host.port}, user: {host.user}"
        trust = f"known_hosts_file: {host.known_hosts_file}, log_path: '{tmp_path}/logs/{{beam_id}}.log'"
        passphrase = secret_file(tmp_path / "passphrase", PASSPHRASE)
        password = secret_file(tmp_path / "password", PASSWORD)
        config = tmp_path / "exporter.yaml"
        config.write_text(
            f"""
database: {{path: {database}}}
discovery: {{interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}}}
web: {{listen_address: "127.0.0.1:0"}}
state: {{file: {state}, interval_seconds: 0.1}}
log: {{level: debug}}
sources:
  - {{name: key, {reach}, {trust}, key_file: {key}, passphrase_file: {passphrase}}}
  - {{name: password, {reach}, {trust}, password_file: {password}}}
""",
            encoding="utf-8",
        )
        with ExporterProcess("--config.file", config) as exporter:
            exporter.reaches("70010001_beam_1", "succeeded")
            wait_for(lambda: exporter.said("source down"), "the refused password")
            assert exporter.value("mqi_source_up", source="password") == 0
            wait_for(state.exists, "the state file")
            assert "cannot log in" in exporter.log
            process = Path(f"/proc/{exporter.pid}")
            seen = {
                "cmdline": (process / "cmdline").read_bytes().decode(),
                "environment": (process / "environ").read_bytes().decode(),
                "state": b"".join(path.read_bytes() for path in tmp_path.glob("state.db*")).decode("latin-1"),
                **{
                    path: exporter.get(path).text
                    for path in ("/metrics", "/", "/table", "/api/v1/beams", "/api/v1/sources", "/-/ready")
                },
            }
        seen["log"] = exporter.log
    assert all(seen.values())
    private = key.read_text(encoding="ascii").splitlines()[1:-1]
    for where, text in seen.items():
        for secret in (PASSPHRASE, PASSWORD, *private):
            assert secret not in text, where
