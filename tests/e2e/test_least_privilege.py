"""The exporter as a user that can read logs and write what SQLite needs: what it does, and what it could not do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import communicator_db as db
from tests.support.account import Account, changes
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd

EXPORTER, COMMUNICATOR, GROUP = 10813, 10814, 10815
LOCAL, REMOTE = "70010001_beam_1", "70010001_beam_2"


class Site:
    """Logs, database, configuration and state with the owners and modes of docs/operations.md."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder = folder
        self.logs = self._folder("logs", COMMUNICATOR, 0o750)
        self.remote_logs = self._folder("host", 0, 0o700)
        self.configuration = self._folder("etc", 0, 0o750)
        self.data = self._folder("data", COMMUNICATOR, 0o770)
        self.state = self._folder("state", EXPORTER, 0o700)
        self.private = self._folder("private", 0, 0o700)
        self.database = db.make(self.data / "mqi.db")
        for beam_id in (LOCAL, REMOTE):
            db.add(self.database, beam_id, case_id="70010001")
        db.execute(self.database, "INSERT INTO cases (case_id, status) VALUES ('70010001', 'running')")
        self.log = self._file(self.logs / f"{LOCAL}.log", b"", COMMUNICATOR, 0o640)
        self.remote_log = self._file(self.remote_logs / f"{REMOTE}.log", b"", 0, 0o600)
        self.others_log = self._file(self.logs / "other.log", b"not for the group", COMMUNICATOR, 0o600)
        self.plan = self._file(self.private / "plan.dcm", b"somebody's plan", 0, 0o644)
        host = sshd.host
        self.key = self._file(self.configuration / "key", sshd.client_key.read_bytes(), EXPORTER, 0o600)
        self.known_hosts = self._file(self.configuration / "known_hosts", sshd.known_hosts.read_bytes(), 0, 0o644)
        text = f"""
database: {{path: {self.database}}}
discovery: {{interval_seconds: 0.1}}
mirror: {{minimum_interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}}}
web: {{listen_address: "127.0.0.1:0"}}
state: {{file: {self.state / "state.json"}, interval_seconds: 0.2}}
sources:
  - {{name: local, kind: local, log_path: "{self.logs}/{{beam_id}}.log"}}
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {self.key}
    known_hosts_file: {self.known_hosts}
    log_path: "{self.remote_logs}/{{beam_id}}.log"
"""
        self.config = self._file(self.configuration / "exporter.yaml", text.encode(), 0, 0o640)
        for path in self.data.iterdir():
            self._own(path, COMMUNICATOR, 0o660)

    def _folder(self, name: str, owner: int, mode: int) -> Path:
        path = self.folder / name
        path.mkdir(parents=True)
        return self._own(path, owner, mode)

    def _file(self, path: Path, data: bytes, owner: int, mode: int) -> Path:
        path.write_bytes(data)
        return self._own(path, owner, mode)

    def _own(self, path: Path, owner: int, mode: int) -> Path:
        os.chown(path, owner, GROUP)
        path.chmod(mode)
        return path

    def progress(self) -> list[object]:
        """What the mirror has written."""
        return [db.progress(self.database, beam_id) for beam_id in (LOCAL, REMOTE)]

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """Everything in the database but what the mirror may write."""
        columns = "beam_id, parent_case_id, beam_path, status, hpc_job_id, error_message, created_at"
        return {
            "beams": db.execute(self.database, f"SELECT {columns} FROM beams ORDER BY beam_id"),
            "cases": db.execute(self.database, "SELECT * FROM cases"),
            "gpu_resources": db.execute(self.database, "SELECT * FROM gpu_resources"),
            "schema": db.execute(self.database, "SELECT name, sql FROM sqlite_master ORDER BY name"),
        }


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can reach; other runs of pytest close the one above ``tmp_path`` when they start."""
    with tempfile.TemporaryDirectory(prefix="mqi-exporter-") as temporary:
        folder = Path(temporary).resolve()
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Sshd(folder / "sshd") as sshd:
        yield Site(folder / "site", sshd)


def test_it_follows_beams_to_their_ends_and_opens_nothing_else_for_writing(site: Site, folder: Path) -> None:
    account, trace = Account(folder / "opt", EXPORTER, GROUP), folder / "trace"
    before = site.rows()
    with ExporterProcess("--config.file", site.config, python=account.python(trace)) as exporter:
        for log in (site.log, site.remote_log):
            log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        for beam_id in (LOCAL, REMOTE):
            exporter.reaches(beam_id, "succeeded")
        wait_for(lambda: site.progress() == [100.0, 100.0], "100 in the column")
        wait_for((site.state / "state.json").exists, "the state")
        process = Path(f"/proc/{exporter.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text("ascii").splitlines())
        assert (process / "environ").stat().st_uid == 0, "nobody but root looks into its memory"
        # The communicator goes on writing beside it, to what it has made as well.
        as_communicator = Account(folder / "opt", COMMUNICATOR, GROUP).python()
        update = f"import sqlite3; d = sqlite3.connect({str(site.database)!r}, timeout=10)\nwith d: d.execute(\n"
        update += "\"UPDATE beams SET error_message = 'seen'\")"
        subprocess.run([*as_communicator, "-c", update], check=True, timeout=60)
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
        assert not exporter.said("level=error")
    assert status["Uid"].split() == [str(EXPORTER)] * 4
    assert status["Gid"].split() == [str(GROUP)] * 4
    assert (status["Groups"].strip(), status["NoNewPrivs"].strip()) == ("", "1")
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}

    ended = re.compile(rf"^{exporter.pid} +\+\+\+ exited", re.MULTILINE)
    wait_for(lambda: ended.search(trace.read_text(encoding="utf-8")) is not None, "the end of the trace")
    done = set(changes(trace))
    [(python, _)] = [(path, name) for name, path in done if name == "execve" and "/python/" in path]
    assert {path for name, path in done if name == "execve"} <= {python, shutil.which("setpriv")}
    database, state = str(site.database), str(site.state / "state.json")
    assert {path for name, path in done if name != "execve"} <= {
        *(database, f"{database}-wal", f"{database}-shm"),
        *(state, f"{state}.new", f"{state}.lock"),
    }
    assert {database, state} <= {path for _, path in done}
    after = site.rows()
    assert [row[5] for row in after["beams"]] == ["seen", "seen"]
    after["beams"] = [(*row[:5], None, *row[6:]) for row in after["beams"]]
    assert after == before


def test_it_follows_and_writes_where_other_users_have_no_names(site: Site, folder: Path) -> None:
    """As the unit's ``PrivateUsers=yes`` has it: logs and database belong to nobody there, rights are as before."""
    account = Account(folder / "opt", EXPORTER, GROUP, private_users=True)
    who = subprocess.run(
        [*account.python(), "-c", f"import os; print(os.stat({str(site.log)!r}).st_uid)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(who.stdout) == 65534
    with ExporterProcess("--config.file", site.config, python=account.python()) as exporter:
        for log in (site.log, site.remote_log):
            log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        for beam_id in (LOCAL, REMOTE):
            exporter.reaches(beam_id, "succeeded")
        wait_for(lambda: site.progress() == [100.0, 100.0], "100 in the column")
        wait_for((site.state / "state.json").exists, "the state")
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
        assert not exporter.said("level=error")


_PROBE = """
import json, os, sys

def write(path): open(path, "ab").close()
def replace(path):
    beside = os.path.join(sys.argv[1], "mine")
    open(beside, "w").close()
    os.replace(beside, path)

attempts = {
    "read": lambda path: open(path, "rb").read(), "write": write, "truncate": lambda path: os.truncate(path, 0),
    "remove": os.remove, "rename": lambda path: os.rename(path, path + ".old"), "replace": replace, "list": os.listdir,
    "mode": lambda path: os.chmod(path, 0o777), "owner": lambda path: os.chown(path, os.getuid(), -1),
    "make": lambda path: open(os.path.join(path, "new"), "x"), "link": lambda path: os.link(path, path + ".2"),
    "become root": lambda path: os.setuid(0), "trace": lambda path: os.readlink(f"/proc/{os.getppid()}/exe"),
}
answers = {}
for attempt, path in json.load(sys.stdin):
    try:
        attempts[attempt](path)
        answers[f"{attempt} {path}"] = "done"
    except OSError as error:
        answers[f"{attempt} {path}"] = "refused" if isinstance(error, PermissionError) else str(error)
json.dump(answers, sys.stdout)
"""


def test_what_such_a_user_tries_beyond_that_is_refused(site: Site, folder: Path) -> None:
    account = Account(folder / "opt", EXPORTER, GROUP)
    changing = ("write", "truncate", "remove", "rename", "replace", "mode", "owner")
    kept = [site.log, site.config, site.known_hosts]
    forbidden = [(attempt, path) for path in kept for attempt in changing]
    program = account.packages / "structlog" / "__init__.py"
    forbidden += [(attempt, program) for attempt in ("write", "remove", "rename", "mode")]
    # Its key is its own, but what lies at its path is not for it to choose.
    forbidden += [(attempt, site.key) for attempt in ("remove", "rename", "replace")]
    forbidden += [("make", path) for path in (site.logs, site.configuration, account.packages, site.folder)]
    forbidden += [("read", site.others_log), ("list", site.private), ("read", site.plan), ("list", site.remote_logs)]
    forbidden += [("become root", site.folder), ("trace", site.folder)]
    allowed = [("read", site.log), ("read", site.config), ("read", site.key), ("write", site.database)]
    allowed += [("make", site.data), ("make", site.state)]
    attempts = [(attempt, str(path)) for attempt, path in forbidden + allowed]
    done = subprocess.run(
        [*account.python(), "-c", _PROBE, str(site.state)],
        input=json.dumps(attempts),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert {f"{attempt} {path}": "refused" for attempt, path in forbidden} == {
        each: answer for each, answer in answers.items() if answer != "done"
    }
    assert {answers[f"{attempt} {path}"] for attempt, path in allowed} == {"done"}
