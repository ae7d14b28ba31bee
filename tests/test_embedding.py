"""The code of docs/embedding.md, as it stands there, in a state machine like the plan's."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.support import communicator_db as db
from tests.support.process import wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd

DOCUMENT = Path(__file__).parents[1] / "docs" / "embedding.md"
BEAM = "70010001_beam_1"
LOG = (LOGS / "v2_b18.log").read_bytes()
SIXTH_BATCH = LOG.index(b"Generating particles for (6 of 18")


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """Everything that the document's code defines."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    names: dict[str, Any] = {"__name__": "embedding"}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    return names


@dataclass
class Answer:
    """What the communicator's handler says of a command or a job."""

    success: bool = True
    error: str = ""
    job_id: str = "1"


@dataclass
class Handler:
    """Runs a simulation: ``simulate`` is what it does meanwhile."""

    simulate: Callable[[], Answer]
    ssh_client: paramiko.SSHClient | None = None
    submitted: bool = True

    def execute_command(self, command: str) -> Answer:
        assert "tps_env" in command
        return self.simulate()

    def submit_simulation_job(self, **given: str) -> Answer:
        assert given["remote_log_path"].endswith(".log")
        return Answer(self.submitted, "" if self.submitted else "queue is closed")

    def wait_for_job_completion(self, job_id: str) -> Answer:
        assert job_id == "1"
        return self.simulate()


@dataclass
class Logger:
    errors: list[tuple[str, Any]] = field(default_factory=list)

    def info(self, message: str, context: Any) -> None: ...

    def warning(self, message: str, context: Any) -> None: ...

    def error(self, message: str, context: Any) -> None:
        self.errors.append((message, context))


@dataclass
class Context:
    """The workflow's context, its settings and its repository in one."""

    folder: Path
    mode: str
    logger: Logger = field(default_factory=Logger)
    id: str = BEAM
    parent_case_id: str = "70010001"

    @property
    def settings(self) -> Context:
        return self

    @property
    def case_repo(self) -> Context:
        return self

    @property
    def log(self) -> Path:
        return self.folder / f"{BEAM}.log"

    @property
    def database(self) -> Path:
        return self.folder / "mqi_communicator.db"

    def get_beam(self, beam_id: str) -> Context:
        assert beam_id == BEAM
        return self

    def get_handler_mode(self, handler_name: str) -> str:
        assert handler_name == "HpcJobSubmitter"
        return self.mode

    def get_path(self, name: str, **given: str) -> str:
        return str({"remote_log_path": self.log, "database_path": self.database}[name])

    def get_command(self, name: str, **given: str) -> str:
        return f"./tps_env > {self.log} 2>&1"

    def get_processing_config(self) -> dict[str, int]:
        return {"hpc_job_timeout_seconds": 600}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    found = Context(tmp_path, "local")
    db.make(found.database)
    db.add(found.database, BEAM, case_id="70010001")
    return found


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture
def client(shown: dict[str, Any], sshd: Sshd) -> Iterator[paramiko.SSHClient]:
    host = sshd.host
    client: paramiko.SSHClient = shown["connected"](
        host.host, sshd.port, host.user, str(host.key_file), str(sshd.known_hosts)
    )
    yield client
    client.close()


def reached(context: Context, percent: float) -> None:
    wait_for(
        lambda: db.progress(context.database, BEAM) == pytest.approx(percent, abs=0.01), f"{percent} % in the column"
    )


def a_good_run(context: Context) -> Callable[[], Answer]:
    def simulate() -> Answer:
        context.log.write_bytes(LOG[:SIXTH_BATCH])
        reached(context, 100 * 5 / 18)
        with context.log.open("ab") as file:
            file.write(LOG[SIXTH_BATCH:])
        reached(context, 100.0)
        return Answer()

    return simulate


def nothing_is_left_behind() -> bool:
    return not any(thread.name == f"progress {BEAM}" for thread in threading.enumerate())


def test_a_local_simulation_is_followed_into_the_column(shown: dict[str, Any], context: Context) -> None:
    state = shown["HpcExecutionState"](Handler(a_good_run(context)))
    assert state.execute(context) == "download"
    assert nothing_is_left_behind()
    assert context.logger.errors == []


def test_one_on_a_host_is_followed_over_ssh(
    shown: dict[str, Any], context: Context, client: paramiko.SSHClient
) -> None:
    context.mode = "remote"
    state = shown["HpcExecutionState"](Handler(a_good_run(context), client))
    assert state.execute(context) == "download"
    assert nothing_is_left_behind()
    transport = client.get_transport()
    assert transport is not None
    assert transport.is_active(), "the client is the caller's"


def test_a_failed_simulation_leaves_no_thread_and_keeps_its_progress(shown: dict[str, Any], context: Context) -> None:
    def simulate() -> Answer:
        context.log.write_bytes(LOG[:SIXTH_BATCH])
        reached(context, 100 * 5 / 18)
        return Answer(success=False, error="exit code 137")

    with pytest.raises(RuntimeError, match="exit code 137"):
        shown["HpcExecutionState"](Handler(simulate)).execute(context)
    assert nothing_is_left_behind()
    assert db.progress(context.database, BEAM) == pytest.approx(27.78, abs=0.01)


def test_a_job_that_is_not_submitted_starts_no_thread(shown: dict[str, Any], context: Context) -> None:
    context.mode = "remote"
    with pytest.raises(RuntimeError, match="queue is closed"):
        shown["HpcExecutionState"](Handler(Answer, submitted=False)).execute(context)
    assert nothing_is_left_behind()


def test_a_database_that_is_locked_is_logged_and_does_not_end_the_simulation(
    shown: dict[str, Any], context: Context
) -> None:
    def simulate() -> Answer:
        locker = db.Locker(context.database)
        context.log.write_bytes(LOG[:SIXTH_BATCH])
        wait_for(lambda: len(context.logger.errors) >= 5, "five batches that could not be written")
        locker.release()
        with context.log.open("ab") as file:
            file.write(LOG[SIXTH_BATCH:])
        reached(context, 100.0)
        return Answer()

    assert shown["HpcExecutionState"](Handler(simulate)).execute(context) == "download"
    [*_, (message, about)] = context.logger.errors
    assert message == "Progress callback failed"
    assert about["beam_id"] == BEAM


def test_lines_and_numbers_alone(shown: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes((LOGS / "v2_b2.log").read_bytes())
    assert list(shown["percentages"](log, 0.5)) == [(1, 2, 50.0), (2, 2, 100.0)]
