"""The exporter as a user that can read logs and write what SQLite needs: what it does, and what it could not do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import communicator_db as db
from tests.support.account import ROOT, Account, changes
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
        self.data = self._folder("mqi/data", COMMUNICATOR, 0o755)
        self.doses = self._folder("mqi/data/Dose_dcm", COMMUNICATOR, 0o755)
        self.program = self._folder("mqi/mqi_communicator", COMMUNICATOR, 0o755)
        self.code = self._file(self.program / "main.py", b"import json", COMMUNICATOR, 0o644)
        self.state = self._folder("state", EXPORTER, 0o700)
        self.private = self._folder("private", 0, 0o700)
        self.database = db.make(self.data / "mqi_communicator.db")
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
state: {{file: {self.state / "state.db"}, interval_seconds: 0.2}}
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
        self._own(self.database, COMMUNICATOR, 0o644)
        self._give_rights()

    def _give_rights(self) -> None:
        """The commands of the guide, on these folders."""
        lines = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").splitlines()
        commands = [line[2:] for line in lines if re.match(r"# ch(grp|mod|own) .*/opt/mqi/data", line)]
        assert len(commands) == 3
        for command in commands:
            here = command.replace("/opt/mqi", str(self.folder / "mqi")).replace("chgrp mqi ", f"chgrp {GROUP} ")
            subprocess.run(["sh", "-euc", here], check=True, timeout=60)

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


def test_the_least_privileged_user_reads_beams_and_opens_nothing_else_for_writing(site: Site, folder: Path) -> None:
    account, trace = Account(folder / "opt", EXPORTER, GROUP), folder / "trace"
    before = site.rows()
    with ExporterProcess("--config.file", site.config, python=account.python(trace)) as exporter:
        for log in (site.log, site.remote_log):
            log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        for beam_id in (LOCAL, REMOTE):
            exporter.reaches(beam_id, "succeeded")
        wait_for(lambda: site.progress() == [100.0, 100.0], "100 in the column")
        wait_for((site.state / "state.db").exists, "the state")
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
    database, state = str(site.database), str(site.state / "state.db")
    assert {path for name, path in done if name != "execve"} <= {
        *(database, f"{database}-wal", f"{database}-shm"),
        *(f"{state}{name}" for name in ("", "-wal", "-shm", ".new", ".new-wal", ".new-shm", ".lock")),
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
        wait_for((site.state / "state.db").exists, "the state")
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
        assert not exporter.said("level=error")


_COMMUNICATOR = """
import os, sqlite3, sys
path, end = sys.argv[1:]
database = sqlite3.connect(path, timeout=10, isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("CREATE TABLE IF NOT EXISTS cases (case_id TEXT PRIMARY KEY, status TEXT)")
database.execute(
    "CREATE TABLE IF NOT EXISTS beams (beam_id TEXT PRIMARY KEY, parent_case_id TEXT, beam_path TEXT, status TEXT, "
    "progress REAL DEFAULT 0.0, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
)
database.execute(
    "INSERT OR IGNORE INTO beams (beam_id, parent_case_id, beam_path, status) "
    "VALUES ('70010001_beam_1', '70010001', '/data', 'simulation_running')"
)
database.execute("UPDATE beams SET updated_at = CURRENT_TIMESTAMP")
print("written", flush=True)
sys.stdin.readline()
if end == "killed":
    os._exit(0)
database.close()
"""


class Communicator:
    """A process with the communicator's account that makes, writes and holds the database."""

    def __init__(self, site: Site, account: Account, end: str = "stopped") -> None:
        self._process = subprocess.Popen(
            [*account.python(), "-c", _COMMUNICATOR, str(site.database), end],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "written\n"

    def end(self) -> None:
        self._process.communicate("go\n", timeout=60)
        assert self._process.returncode == 0


def test_a_new_database_of_the_communicators_is_said_to_be_read_only_and_the_communicator_goes_on(
    site: Site, folder: Path
) -> None:
    """SQLite makes the new file 0644; the exporter must not leave a ``-wal`` that the communicator may not write."""
    account, theirs = Account(folder / "opt", EXPORTER, GROUP), Account(folder / "opt", COMMUNICATOR, GROUP)
    with ExporterProcess("--config.file", site.config, python=account.python()) as exporter:
        site.log.write_bytes((LOGS / "v2_b2.log").read_bytes()[:300])
        wait_for(lambda: exporter.state(LOCAL) is not None, "the beam")
        site.database.unlink()
        Communicator(site, theirs).end()
        assert site.database.stat().st_mode & 0o777 == 0o640
        site.log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        wait_for(lambda: exporter.said("kind=read_only"), "a word about it")
        [line] = [line for line in exporter.lines if "kind=read_only" in line]
        assert f"this account may not write {site.database}; the file is new" in line
        assert "Rights that last" in line
        exporter.reaches(LOCAL, "succeeded")
        assert db.beside(site.database) == []
        for _ in range(5):
            Communicator(site, theirs).end()
        site.database.chmod(0o660)
        wait_for(lambda: db.progress(site.database, LOCAL) == 100.0, "100 in the column")


def test_a_database_file_created_beforehand_stays_writable(site: Site, folder: Path) -> None:
    """The way that docs/operations.md recommends (Rights that last), as the communicator's account would."""
    account, theirs = Account(folder / "opt", EXPORTER, GROUP), Account(folder / "opt", COMMUNICATOR, GROUP)
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [command] = re.findall(r"install -m 660 -g mqi /dev/null DB", guide)
    with ExporterProcess("--config.file", site.config, python=account.python()) as exporter:
        site.log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        for _ in range(2):
            site.database.unlink()
            here = command.replace("-g mqi", f"-g {GROUP}").replace("DB", str(site.database))
            become = ["setpriv", f"--reuid={COMMUNICATOR}", f"--regid={GROUP}", "--clear-groups"]
            subprocess.run([*become, *here.split()], check=True, timeout=60)
            communicator = Communicator(site, theirs)
            wait_for(lambda: db.progress(site.database, LOCAL) == 100.0, "100 in the column")
            communicator.end()
        assert not exporter.said("kind=read_only")


@pytest.mark.parametrize("way", ["default ACL", "set-group-id and umask"])
def test_rights_of_the_folder_do_not_reach_a_new_database_file(site: Site, folder: Path, way: str) -> None:
    """SQLite opens it with mode 0644, and the mask of the ACL is cut to that. Why the guide does not advise these."""
    if way == "default ACL":
        os.setxattr(site.data, "system.posix_acl_default", _acl(EXPORTER))
    site.database.unlink()
    Communicator(site, Account(folder / "opt", COMMUNICATOR, GROUP)).end()
    status = site.database.stat()
    assert (status.st_gid, status.st_mode & 0o777) == (GROUP, 0o640)
    probe = "import os, sys; print(os.access(sys.argv[1], os.W_OK))"
    command = [*Account(folder / "opt", EXPORTER, GROUP).python(), "-c", probe, str(site.database)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "False\n"


def _acl(user: int) -> bytes:
    """The default ACL ``u::rwx,u:USER:rwx,g::rwx,m::rwx,o::---``, as in ``linux/posix_acl_xattr.h``."""
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, user), (4, 7, nobody), (16, 7, nobody), (32, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_in_a_folder_with_the_sticky_bit_the_wal_of_a_killed_communicator_is_applied_and_stays(
    site: Site, folder: Path
) -> None:
    account, theirs = Account(folder / "opt", EXPORTER, GROUP), Account(folder / "opt", COMMUNICATOR, GROUP)
    Communicator(site, theirs, "killed").end()
    left = [f"{site.database.name}-shm", f"{site.database.name}-wal"]
    assert db.beside(site.database) == left
    with ExporterProcess("--config.file", site.config, python=account.python()) as exporter:
        site.log.write_bytes((LOGS / "v2_b2.log").read_bytes())
        exporter.reaches(LOCAL, "succeeded")
        wait_for(lambda: exporter.value("mqi_database_pending_updates") == 0.0, "everything written")
        assert db.beside(site.database) == left
        Communicator(site, theirs).end()
        wait_for(lambda: db.beside(site.database) == [], "the communicator's files removed by itself")
    assert db.progress(site.database, LOCAL) == 100.0
    assert db.integrity(site.database) == "ok"


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


def test_other_actions_of_the_least_privileged_user_are_refused(site: Site, folder: Path) -> None:
    account = Account(folder / "opt", EXPORTER, GROUP)
    changing = ("write", "truncate", "remove", "rename", "replace", "mode", "owner")
    kept = [site.log, site.config, site.known_hosts]
    forbidden = [(attempt, path) for path in kept for attempt in changing]
    program = account.packages / "structlog" / "__init__.py"
    forbidden += [(attempt, program) for attempt in ("write", "remove", "rename", "mode")]
    # Its key is its own, but what lies at its path is not for it to choose.
    forbidden += [(attempt, site.key) for attempt in ("remove", "rename", "replace")]
    forbidden += [("make", path) for path in (site.logs, site.configuration, account.packages, site.folder)]
    forbidden += [(attempt, site.code) for attempt in changing]
    forbidden += [("make", site.program), ("rename", site.program), ("rename", site.data), ("rename", site.doses)]
    forbidden += [(attempt, site.database) for attempt in ("remove", "rename", "replace", "mode", "owner")]
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
