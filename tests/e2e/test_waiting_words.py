"""A beam without a log beside sources that answer and one that does not: what the API, the page and ``top`` say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.sshd import Sshd


def configuration(folder: Path, sshd: Sshd, database: Path) -> Path:
    (folder / "logs").mkdir()
    host = sshd.host
    path = folder / "exporter.yaml"
    path.write_text(
        f"""
sources:
  - {{name: local, kind: local, log_path: ["{folder}/logs/{{beam_id}}.log", "{folder}/logs/sim_{{beam_id}}.log"]}}
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {host.key_file}
    known_hosts_file: {host.known_hosts_file}
    log_path: "{folder}/logs/{{beam_id}}.log"
database: {{path: {database}}}
discovery: {{interval_seconds: 0.2}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.2}}}}
web: {{listen_address: "127.0.0.1:0"}}
""",
        encoding="utf-8",
    )
    return path


def test_no_log_is_claimed_only_of_sources_that_could_be_looked_at(tmp_path: Path) -> None:
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "queued", "pending")
    db.add(database, "overdue", "simulation_running")
    db.execute(database, "UPDATE beams SET updated_at = '2026-01-02 03:04:05' WHERE beam_id = 'overdue'")
    sshd = Sshd(tmp_path / "sshd")
    path = configuration(tmp_path, sshd, database)
    with ExporterProcess("--config.file", path) as exporter:

        def beams() -> dict[str, dict[str, Any]]:
            return {beam["beam_id"]: beam for beam in exporter.get("/api/v1/beams").json()["beams"]}

        def reasons() -> dict[str, str]:
            return {name: beam["waiting_reason"] for name, beam in beams().items()}

        wait_for(lambda: reasons() == {"queued": "source_down", "overdue": "source_down"}, "hpc1 is down")
        unseen = "hpc1 cannot be reached, so logs there are unknown"
        assert beams()["queued"]["waiting_text"] == f"no log yet; {unseen}"
        overdue = beams()["overdue"]["waiting_text"]
        assert overdue.startswith("MQI Communicator has said 'simulation running' since 2026-01-0")
        assert overdue.endswith(f", but no log was found at 2 places; {unseen}")
        assert (beams()["queued"]["needs_attention"], beams()["overdue"]["needs_attention"]) == (False, True)
        assert unseen in " ".join(exporter.get("/table").text.split())
        top = subprocess.run(
            [sys.executable, "-m", "exporter.cli", "top", "--once", "--url", f"http://{exporter.address}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={"COLUMNS": "400", "PYTHONPATH": str(Path(__file__).parents[2])},
        ).stdout
        assert f"no log yet; {unseen}" in top
        assert "but no log was found at 2 places" in top
        with sshd:
            wait_for(lambda: reasons() == {"queued": "no_log", "overdue": "no_log_while_running"}, "hpc1 answers")
            assert beams()["queued"]["waiting_text"] == "no log yet"
            assert beams()["overdue"]["waiting_text"].endswith("but no log was found at 3 places")
