from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli.main import main
from tests.support import communicator_db as db
from tests.support.files import NOBODY, open_the_way_to, unprivileged
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


def test_each_source_and_the_database_are_reported(tmp_path: Path, text: str) -> None:
    status, output = check(tmp_path / "c.yaml", text)
    assert status == 0
    assert f"ok  source here: {tmp_path}/logs: 1 file" in output
    assert "1 beam not over" in output


def test_an_ssh_source_is_tried_with_host_key_login_and_folder(tmp_path: Path, text: str) -> None:
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
        assert f"ok  source hpc1: {tmp_path}/logs: 1 file" in output
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


@pytest.fixture
def shared(tmp_path: Path, text: str) -> Path:
    """The folder of a database that every account may write, as of a group that all are in."""
    open_the_way_to(tmp_path)
    tmp_path.chmod(0o777)
    (tmp_path / "mqi.db").chmod(0o666)
    return tmp_path


def check_as_somebody_else(folder: Path, text: str) -> tuple[int, str]:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    with unprivileged():
        result = CliRunner().invoke(main, ["check-config", "--connect", "--config.file", str(folder / "c.yaml")])
    return result.exit_code, result.output


def journals(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.glob("mqi.db-*"))


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
@pytest.mark.parametrize(("what", "rights"), [("mqi.db", 0o444), (".", 0o755)])
def test_a_database_that_cannot_be_written_fails_and_nothing_is_left_beside_it(
    shared: Path, text: str, mode: str, what: str, rights: int
) -> None:
    db.execute(shared / "mqi.db", f"PRAGMA journal_mode = {mode}")
    (shared / "c.yaml").touch(0o666)
    (shared / what).chmod(rights)
    status, output = check_as_somebody_else(shared, text)
    assert status == 1, output
    assert "FAILED  database: cannot write progress to" in output
    assert f"this account may not write {shared / what}; let the exporter's user write the file" in output
    assert "not over" not in output
    assert journals(shared) == []


def test_rights_that_end_with_the_file_are_warned_of(shared: Path, text: str) -> None:
    status, output = check_as_somebody_else(shared, text)
    assert status == 0, output
    assert f"warning  database: {shared}/mqi.db belongs to root: if the communicator creates a new database" in output
    assert "Rights that last" in output


@pytest.mark.parametrize("owner", [NOBODY, 0])
def test_rights_that_last_are_not_warned_of(shared: Path, text: str, owner: int) -> None:
    os.chown(shared / "mqi.db", owner, -1)
    status, output = check(shared / "c.yaml", text) if owner == 0 else check_as_somebody_else(shared, text)
    assert status == 0, output
    assert "belongs to" not in output


@pytest.mark.parametrize("name", ["main.py", "src", ".git"])
@pytest.mark.parametrize("arguments", [[], ["--connect"]])
def test_code_in_a_databases_folder_that_the_exporter_may_write_is_warned_of(
    shared: Path, text: str, name: str, arguments: list[str]
) -> None:
    (shared / name).mkdir() if "." not in name[1:] else (shared / name).touch()
    with unprivileged():
        (shared / "c.yaml").write_text(text, encoding="utf-8")
        result = CliRunner().invoke(main, ["check-config", *arguments, "--config.file", str(shared / "c.yaml")])
    assert result.exit_code == 0, result.output
    assert f"the database's folder {shared} holds code ({name})" in result.output
    shared.chmod(0o755)
    with unprivileged():
        result = CliRunner().invoke(main, ["check-config", "--config.file", str(shared / "c.yaml")])
    assert "holds code" not in result.output


def test_a_shm_that_cannot_be_written_fails(shared: Path, text: str) -> None:
    with contextlib.closing(db.connect(shared / "mqi.db")) as communicator:
        communicator.execute("INSERT INTO cases (case_id, status) VALUES ('c', 'processing')")
        assert journals(shared) == ["mqi.db-shm", "mqi.db-wal"]
        for name in journals(shared):
            (shared / name).chmod(0o644)
        status, output = check_as_somebody_else(shared, text)
    assert status == 1
    assert "FAILED  database: cannot write progress to" in output


def test_a_database_that_is_not_written_to_need_not_be_writable(shared: Path, text: str) -> None:
    db.execute(shared / "mqi.db", "PRAGMA journal_mode = DELETE")
    (shared / "mqi.db").chmod(0o444)
    status, output = check_as_somebody_else(shared, text + "mirror: {enabled: false}\n")
    assert status == 0, output
    assert "1 beam not over" in output


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_trying_to_write_changes_nothing(shared: Path, text: str, mode: str) -> None:
    database = shared / "mqi.db"
    db.execute(database, f"PRAGMA journal_mode = {mode}")
    before = database.read_bytes(), db.execute(database, "SELECT * FROM beams")
    status, output = check_as_somebody_else(shared, text)
    assert status == 0, output
    assert "ok  database: " in output
    assert (database.read_bytes(), db.execute(database, "SELECT * FROM beams")) == before
    assert journals(shared) == []


def test_trying_to_write_fails_no_transaction_of_the_communicator_that_has_read(shared: Path, text: str) -> None:
    with contextlib.closing(db.connect(shared / "mqi.db")) as communicator:
        communicator.execute("BEGIN")
        assert communicator.execute("SELECT count(*) FROM beams").fetchone() == (1,)
        wal = (shared / "mqi.db-wal").read_bytes()
        for name in journals(shared):
            (shared / name).chmod(0o666)
        status, output = check_as_somebody_else(shared, text)
        assert status == 0, output
        assert (shared / "mqi.db-wal").read_bytes() == wal
        communicator.execute("UPDATE beams SET status = 'completed'")
        communicator.execute("COMMIT")


def test_a_database_that_somebody_writes_all_the_time_is_a_warning(tmp_path: Path, text: str) -> None:
    locker = db.Locker(tmp_path / "mqi.db")
    status, output = check(tmp_path / "c.yaml", text.replace("mqi.db}", "mqi.db, busy_timeout_ms: 50}"))
    locker.release()
    assert status == 0, output
    assert "warning  database" in output
    assert "whether it can be written is not known" in output
    assert "ok  database" in output


def test_a_short_lock_is_waited_for(tmp_path: Path, text: str) -> None:
    locker = db.Locker(tmp_path / "mqi.db")
    release = threading.Timer(0.1, locker.release)
    release.start()
    status, output = check(tmp_path / "c.yaml", text.replace("mqi.db}", "mqi.db, busy_timeout_ms: 1000}"))
    release.join()
    assert status == 0
    assert "warning" not in output


@pytest.mark.parametrize(("migrate", "outcome"), [("true", "ok"), ("false", "warning")])
def test_a_column_that_nobody_will_add_is_warned_of(tmp_path: Path, text: str, migrate: str, outcome: str) -> None:
    (tmp_path / "mqi.db").unlink()
    db.make(tmp_path / "mqi.db", db.PLAN_BEAMS)
    status, output = check(tmp_path / "c.yaml", text.replace("mqi.db}", f"mqi.db, migrate: {migrate}}}"))
    assert status == 0
    assert f"{outcome}  database: " in output
    assert "no column progress yet (see `mqi-exporter migrate`)" in output


def test_a_misspelt_folder_on_a_host_is_warned_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "empty").mkdir()
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
    log_path: ["{tmp_path}/lgos/{{beam_id}}.log", "{tmp_path}/empty/{{case_id}}/{{beam_id}}.log"]
"""
        status, output = check(tmp_path / "c.yaml", text)
    assert status == 0, output
    assert f"warning  source hpc1: the folder {tmp_path}/lgos does not exist on the host; check log_path" in output
    assert f"ok  source hpc1: {tmp_path}/empty: no files yet" in output


def test_a_folder_without_logs_is_said_to_be_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "logs" / "b.log").unlink()
    status, output = check(tmp_path / "c.yaml", text)
    assert status == 0
    assert f"ok  source here: {tmp_path}/logs: no files yet" in output


def test_a_folder_that_nobody_has_made_yet_is_warned_of(tmp_path: Path, text: str) -> None:
    status, output = check(tmp_path / "c.yaml", text.replace("/logs/", "/lgos/today/"))
    assert status == 0
    assert f"warning  source here: {tmp_path}/lgos/today: no such folder yet, {tmp_path} is there" in output


@pytest.mark.parametrize("folder", ["mqi.db", "mqi.db/logs"])
def test_a_file_in_a_folders_place_fails(tmp_path: Path, text: str, folder: str) -> None:
    status, output = check(tmp_path / "c.yaml", text.replace("/logs/", f"/{folder}/"))
    assert status == 1
    assert f"FAILED  source here: {tmp_path}/{folder} is not a folder, or is below a file; check log_path" in output


@pytest.mark.parametrize(
    ("folder", "outcome", "says"),
    [
        ("dose", "ok", "is there"),
        ("dsoe", "warning", "does not exist; check output_path"),
        ("logs/b.log", "warning", "does not exist; check output_path"),
    ],
)
def test_the_folder_of_dose_files_is_looked_for_here_and_on_a_host(
    tmp_path: Path, text: str, folder: str, outcome: str, says: str
) -> None:
    (tmp_path / "dose").mkdir()
    output = f'output_path: "{tmp_path}/{folder}/{{case_id}}/*"'
    with Sshd(tmp_path / "sshd") as sshd:
        host = sshd.host
        text = f"""{text.rstrip()[:-1]}, {output}}}
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {host.key_file}
    known_hosts_file: {host.known_hosts_file}
    log_path: "{tmp_path}/logs/{{beam_id}}.log"
    {output}
"""
        status, said = check(tmp_path / "c.yaml", text)
    assert status == 0, said
    for source in ("here", "hpc1"):
        lines = [line for line in said.splitlines() if f"source {source}: output_path: " in line]
        assert len(lines) == 1, said
        assert lines[0].startswith(outcome)
        assert f"{tmp_path}/{folder}" in lines[0]
        assert says in lines[0]
