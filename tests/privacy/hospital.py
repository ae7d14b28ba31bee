"""A hospital whose ids and names can be told from everything else, and all that its exporter lets out.

Every secret stands where one could at a real site: in ids, paths, rows, lines of logs, names of files, messages of
SQLite and of the SSH host, exceptions.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
from click.testing import CliRunner

from exporter.cli.main import main
from tests.support import communicator_db as db
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for
from tests.support.sshd import Sshd

RUNNING = ("MRN-4711^KIM", "MRN-4711^KIM_빔 1")
INSIDE_ANOTHER = ("MRN-4711", "MRN-4711^KIM_빔 10")
HANGUL = ("환자 홍길동", "홍길동_beam_2")
REGULAR = ("zq.*[x](y)$", "zq.*[x](y)$_3+")
UNIVERSAL = ("1.2.840.113619.2.55.3.60468", "1.2.840.113619.2.55.3.60468.971")
REMOTE = ("Müller, Jörg", "Müller, Jörg <beam> & 4")
KEYS = (RUNNING, INSIDE_ANOTHER, HANGUL, REGULAR, UNIVERSAL, REMOTE)
REFUSED = "quux/../Featherstonehaugh"

SAID = {
    "a line of a log": "Kowalczyk^Zdzislawa",
    "a failure": "Oyelaran",
    "a status": "Thorvaldsdottir",
    "a path of a row": "Ivanauskas",
    "a job": "Haraldsson",
    "a message of SQLite": "Wolfeschlegel",
    "a folder of a log": "Papadopoulos",
    "a dose file": "Bhattacharya",
    "a dose file that was found": "Abernathy",
}
NEVER_SHOWN = ("Featherstonehaugh", "Csikszentmihalyi")
"""In a refused id, and in a column that is not read."""
IDS = tuple(dict.fromkeys(identifier for key in KEYS for identifier in key))
SECRETS = (*IDS, *SAID.values(), *NEVER_SHOWN)

_HEAD = b"Running simulations with 18 batches\n"


def _batch(number: int) -> bytes:
    return b"Generating particles for (%d of 18 batches) in CPU ..\nParticle generation complete!\n" % number


class Hospital:
    """Database, logs here and on a host, and the exporter's configuration.

    Args:
        folder: for all of it.
        sshd: the host.
        privacy: that section of the configuration, as YAML.
    """

    def __init__(self, folder: Path, sshd: Sshd, privacy: str) -> None:
        self.folder = folder
        self.sshd = sshd
        self.logs, self.remote, self.var = folder / "logs", folder / "remote", folder / "var"
        for each in (self.logs, self.remote, self.var):
            each.mkdir(parents=True)
        self.database = db.make(folder / "mqi.db")
        self.config = folder / "exporter.yaml"
        host = sshd.host
        self.config.write_text(
            f"""
sources:
  - name: local
    log_path: ["{self.logs}/{{case_id}}/{{beam_id}}.log", "{self.logs}/{{beam_path}}/run.log",
               "{self.logs}/{{hpc_job_id}}.log"]
    output_path: "{folder}/doses/{{case_id}}/*"
  - {{name: hpc1, kind: ssh, host: {host.host}, port: {host.port}, user: {host.user}, key_file: {host.key_file},
      known_hosts_file: {host.known_hosts_file}, operation_timeout_seconds: 2, connect_timeout_seconds: 2,
      log_path: "{self.remote}/{{case_id}}/{{beam_id}}.log"}}
database: {{path: {self.database}}}
discovery: {{interval_seconds: 0.1}}
mirror: {{minimum_interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}}}
completion_markers: {{failure_patterns: "cannot read the plan", success_patterns: "this beam is done"}}
web: {{listen_address: "127.0.0.1:0"}}
state: {{file: {self.var}/state.db, interval_seconds: 0.1}}
log: {{level: debug}}
privacy: {privacy}
""",
            encoding="utf-8",
        )
        self._fill()

    def _fill(self) -> None:
        for number, (case_id, beam_id) in enumerate(KEYS):
            db.add(self.database, beam_id, case_id=case_id)
            # A folder of its own, since a folder may be a patient's.
            db.execute(
                self.database,
                "UPDATE beams SET beam_path = ?, hpc_job_id = ?, error_message = ? WHERE beam_id = ?",
                f"{SAID['a path of a row']}/{number}",
                f"../{SAID['a job']}" if number % 2 else SAID["a job"],
                f"{NEVER_SHOWN[1]} is not well",
                beam_id,
            )
        db.add(self.database, REFUSED, case_id=REFUSED)
        db.execute(
            self.database, "UPDATE beams SET status = ? WHERE beam_id = ?", f"for {SAID['a status']}", UNIVERSAL[1]
        )
        self.write(RUNNING, _HEAD + _batch(1) + f"Patient: {SAID['a line of a log']}\n".encode())
        failure = f"cannot read the plan /data/{SAID['a failure']}/plan.dcm\n".encode()
        self.write(INSIDE_ANOTHER, _HEAD + _batch(1) + failure)
        dose = f"Successfully wrote DICOM RT Dose file: ../data/Dose_dcm/{SAID['a dose file']}/1G000_Dose.dcm\n"
        file = self.folder / "doses" / HANGUL[0] / f"{SAID['a dose file that was found']}.dcm"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"dose")
        self.write(HANGUL, _HEAD + _batch(2) + f"{dose}this beam is done\n".encode())
        self.write(REMOTE, _HEAD + _batch(3), self.remote)
        # What is no log where one should be: it cannot be read, and that is said with its path.
        folder = self.logs / SAID["a path of a row"] / "3" / "run.log" / SAID["a folder of a log"]
        folder.mkdir(parents=True)

    def write(self, key: tuple[str, str], data: bytes, folder: Path | None = None) -> None:
        """Append to a beam's log."""
        case_id, beam_id = key
        log = (folder or self.logs) / case_id / f"{beam_id}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            file.write(data)

    def everything(self) -> dict[str, str]:
        """All that a running exporter and the commands let out, by where it was found."""
        said = {}
        with ExporterProcess("run", "--config.file", self.config, module="tests.privacy.faulty") as exporter:
            said["check-config"] = self.command("check-config", "--connect")
            self._wait_for_beams(exporter)
            db.execute(
                self.database,
                "CREATE TRIGGER refuse BEFORE UPDATE OF progress ON beams BEGIN "
                f"INSERT INTO {SAID['a message of SQLite']} VALUES (1); END",
            )
            self.write(RUNNING, _batch(2) + _batch(3))
            wait_for(lambda: exporter.said("kind=no_table"), "the mirror to be refused")
            said |= dict(self._answers(exporter))
            address = f"http://{exporter.address}"
            for name, origin in (("top", ("--url", address)), ("top of the table", ("--database",))):
                said[name] = self.command("top", "--once", *origin)
                said[f"{name}, JSON"] = self.command("top", "--once", "--json", *origin)
            for number, beam in enumerate(exporter.get("/api/v1/beams").json()["beams"]):
                name = f"{beam['case_id']}/{beam['beam_id']}"
                said[f"explain {number}"] = self.command("explain", name, "--url", address)
                said[f"explain {number}, JSON"] = self.command("explain", name, "--json", "--url", address)
            said["explain of a beam that is not there"] = self.command("explain", "none", "--url", address)
            wait_for(lambda: exporter.said("msg=decision"), "decisions in the log")
            self.sshd.kill()
            wait_for(lambda: exporter.said("source down"), "the host to be missed")
            said["check-config without the host"] = self.command("check-config", "--connect")
            said["page without the host"] = exporter.get("/table").text
            process = Path(f"/proc/{exporter.pid}")
            said["cmdline"] = (process / "cmdline").read_text(encoding="utf-8", errors="replace")
            threads = process.glob("task/*/comm")
            said["threads"] = "\n".join(each.read_text(encoding="utf-8", errors="replace") for each in threads)
        said["log"] = exporter.log
        for path in self.var.rglob("*"):
            said[f"file {path.name}"] = path.name + path.read_text(encoding="utf-8", errors="replace")
        return said

    def _wait_for_beams(self, exporter: ExporterProcess) -> None:
        def all_known() -> bool:
            answer = exporter.get("/api/v1/beams")
            states = sorted(beam["state"] for beam in answer.json()["beams"])
            return states == ["failed", "running", "running", "succeeded", "waiting", "waiting"]

        wait_for(all_known, "every beam in its state")
        # Where an exception was met, it is answered once with an error.
        for path in ("/metrics", "/api/v1/cases"):
            wait_for(lambda path=path: exporter.get(path).status_code == 200, path)  # type: ignore[misc]
        for fault in ("unexpected error, going on", "cannot render the metrics", "cannot answer a request"):
            wait_for(lambda fault=fault: exporter.said(fault), fault)  # type: ignore[misc]
        wait_for(lambda: exporter.said("log cannot be read"), "the folder in a log's place")
        wait_for(lambda: exporter.said("log path refused"), "the path that leads out")
        wait_for((self.var / "state.db").exists, "the state file")

    def _answers(self, exporter: ExporterProcess) -> Iterator[tuple[str, str]]:
        yield "OpenMetrics", self._get(exporter, "/metrics", accept="application/openmetrics-text")
        paths = ["/metrics", "/", "/table", "/api/v1/beams", "/api/v1/cases", "/api/v1/sources", "/api/v1/names"]
        paths += ["/api/v1/runs", "/api/v1/openapi.json", "/-/healthy", "/-/ready", "/nothing"]
        for beam in exporter.get("/api/v1/beams").json()["beams"]:
            path = f"/api/v1/beams/{quote(beam['case_id'], safe='')}/{quote(beam['beam_id'], safe='')}"
            paths += [path, f"{path}/explain"]
        for path in paths:
            yield path, self._get(exporter, path)
        with httpx.stream("GET", f"http://{exporter.address}/api/v1/events", timeout=PATIENCE_SECONDS) as events:
            lines = []
            for line in events.iter_lines():
                lines.append(line)
                if line.startswith("data: "):
                    break
        yield "events", "\n".join(lines)

    @staticmethod
    def _get(exporter: ExporterProcess, path: str, accept: str = "*/*") -> str:
        answer = httpx.get(f"http://{exporter.address}{path}", headers={"accept": accept}, timeout=PATIENCE_SECONDS)
        return f"{answer.headers}\n{answer.text}"

    def command(self, *arguments: str) -> str:
        """What a command writes, and its exit status."""
        done = CliRunner(env={"COLUMNS": "400"}).invoke(main, [*arguments, "--config.file", str(self.config)])
        return f"{done.output}\n{done.exception!r}\n{done.exit_code}"


def spellings(secret: str) -> set[str]:
    """How a text may be written by what lets it out."""
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        html.escape(secret),
        quote(secret, safe=""),
        quote(secret),
        secret.encode("utf-8", "replace").decode("latin-1"),
        base64.b64encode(secret.encode()).decode().rstrip("=")[:-1],
    }


def found(secrets: tuple[str, ...], said: dict[str, str]) -> dict[str, list[str]]:
    """Which secrets stand where, in any spelling and in any case of letters."""
    folded = {where: text.casefold() for where, text in said.items()}
    return {
        secret: where
        for secret in secrets
        if (
            where := [
                name
                for name, text in folded.items()
                if any(spelling.casefold() in text for spelling in spellings(secret))
            ]
        )
    }
