"""A log on another host, followed as the plan's in-process use does, and by the exporter as a process of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from exporter.embedding import ProgressMonitor, RemoteLogTailer
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd, keygen


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture
def client(sshd: Sshd) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.load_host_keys(str(sshd.known_hosts))
    host = sshd.host
    client.connect(
        host.host, sshd.port, host.user, key_filename=str(host.key_file), allow_agent=False, look_for_keys=False
    )
    yield client
    client.close()


def test_remote_lines_are_yielded_as_they_are_completed(client: paramiko.SSHClient, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\ntwo\nunfin")
    assert list(RemoteLogTailer(client, str(log), None, 0.01).tail(timeout=0.5)) == ["one", "two"]


def test_a_remote_log_that_never_appears_is_said_once(client: paramiko.SSHClient, tmp_path: Path) -> None:
    warnings: list[Any] = []

    class Logger:
        def info(self, message: str, context: Any) -> None: ...

        def warning(self, message: str, context: Any) -> None:
            warnings.append(context)

        def error(self, message: str, context: Any) -> None: ...

    assert list(RemoteLogTailer(client, f"{tmp_path}/none.log", Logger(), 0.01).tail(timeout=0.2)) == []
    assert len(warnings) == 1


def test_the_monitor_reports_remote_progress_from_a_thread(client: paramiko.SSHClient, tmp_path: Path) -> None:
    """The plan's section 4, phase 6: a background thread, a callback that writes progress, stop() in finally."""
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "70010001_beam_1")
    log = tmp_path / "a.log"
    seen: list[float] = []

    def update_progress(beam_id: str, progress: float) -> None:
        seen.append(progress)
        db.execute(database, "UPDATE beams SET progress = ? WHERE beam_id = ?", progress, beam_id)

    monitor = ProgressMonitor("70010001_beam_1")
    thread = threading.Thread(
        target=monitor.monitor_remote,
        args=(client, str(log), update_progress),
        kwargs={"timeout": 3600},
        daemon=True,
    )
    thread.start()
    try:
        data = (LOGS / "v2_b18.log").read_bytes()
        log.write_bytes(data[:6000])
        with log.open("ab") as file:
            file.write(data[6000:])
        wait_for(lambda: len(seen) == 18, "18 reports")
        thread.join(timeout=0.1)
    finally:
        monitor.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert round(seen[4], 2) == 27.78
    assert db.progress(database, "70010001_beam_1") == 100.0
    assert client.get_transport() is not None, "the client is the caller's"


def test_a_lost_connection_ends_nothing_but_is_said(sshd: Sshd, client: paramiko.SSHClient, tmp_path: Path) -> None:
    errors: list[str] = []

    class Logger:
        def info(self, message: str, context: Any) -> None: ...

        def warning(self, message: str, context: Any) -> None:
            errors.append(context["error"])

        def error(self, message: str, context: Any) -> None: ...

    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    tailer = RemoteLogTailer(client, str(log), Logger(), 0.01)
    lines = tailer.tail()
    assert next(lines) == "one"
    client.close()
    threading.Timer(0.3, tailer.stop).start()
    assert list(lines) == []
    assert any("SFTP session" in error for error in errors)


def test_after_a_refused_login_a_reload_tries_at_once(tmp_path: Path) -> None:
    database = db.make(tmp_path / "mqi.db")
    config = tmp_path / "exporter.yaml"
    with Sshd(tmp_path / "sshd") as server:
        host, key = server.host, keygen(tmp_path / "new_key")
        config.write_text(
            f"""
database: {{path: {database}}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}}}
web: {{listen_address: "127.0.0.1:0"}}
sources:
  - {{name: hpc1, kind: ssh, host: {host.host}, port: {host.port}, user: {host.user}, key_file: {key},
     known_hosts_file: {host.known_hosts_file}, log_path: "{tmp_path}/logs/{{beam_id}}.log"}}
""",
            encoding="utf-8",
        )
        with ExporterProcess("--config.file", config) as exporter:
            wait_for(lambda: exporter.said("cannot log in"), "the refused login")
            (server.folder / "authorized_keys").write_bytes(Path(f"{key}.pub").read_bytes())
            exporter.signal(signal.SIGHUP)
            wait_for(lambda: exporter.value("mqi_source_up", source="hpc1") == 1, "the login after the reload")
            assert exporter.value("mqi_source_errors_total", source="hpc1", error="authentication") == 1


def test_the_exporter_follows_remote_beams_through_a_loss_of_their_host(tmp_path: Path) -> None:
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "70010001_beam_1", case_id="70010001")
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "70010001_beam_1.log"
    data = (LOGS / "v2_b18.log").read_bytes()
    half = data.index(b"Generating particles for (9 of 18")
    log.write_bytes(data[:half])
    config = tmp_path / "exporter.yaml"
    with Sshd(tmp_path / "sshd") as server:
        host = server.host
        config.write_text(
            f"""
database: {{path: {database}}}
discovery: {{interval_seconds: 0.1}}
mirror: {{minimum_interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}}}
web: {{listen_address: "127.0.0.1:0"}}
sources:
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {host.key_file}
    known_hosts_file: {host.known_hosts_file}
    log_path: "{tmp_path}/logs/{{beam_id}}.log"
""",
            encoding="utf-8",
        )
        with ExporterProcess("--config.file", config) as exporter:
            wait_for(lambda: exporter.value("mqi_beam_batches_completed", source="hpc1") == 8, "eight batches")
            assert exporter.value("mqi_source_up", source="hpc1", kind="ssh") == 1
            server.kill()
            wait_for(lambda: exporter.state("70010001_beam_1") == "unreachable", "the loss of the host")
            assert exporter.value("mqi_source_up", source="hpc1") == 0
            assert exporter.value("mqi_beam_batches_completed") == 8
            log.write_bytes(data)
            server.start()
            wait_for(lambda: exporter.state("70010001_beam_1") == "succeeded", "the end, after the host came back")
            assert exporter.value("mqi_beam_batches_completed") == 18
            assert exporter.value("mqi_beam_run") == 1
            assert exporter.value("mqi_source_reconnects_total", source="hpc1") == 1
            wait_for(lambda: db.progress(database, "70010001_beam_1") == 100.0, "100 in the column")
