"""The code and the configuration of docs/embedding.md, as they stand there, in a stand-in for the communicator."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
import yaml

from exporter import embedding
from exporter.embedding import BeamsTable
from tests.support import communicator_db as db
from tests.support.plan_communicator import Context, Settings, execution_state
from tests.support.process import wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd

DOCUMENT = Path(__file__).parents[1] / "docs" / "embedding.md"
PLAN_CONFIG = Path(__file__).parent / "data" / "communicator" / "plan.config.yaml"
CASE = "70010001"
BEAM = "70010001_2025042401440800"
LOG = (LOGS / "v2_b18.log").read_bytes()
SIXTH_BATCH = LOG.index(b"Generating particles for (6 of 18")

ENGINE = """#!/bin/sh
cat first_half
while [ ! -e go_on ]; do sleep 0.05; done
cat second_half
exit "$(cat exit_code)"
"""


def blocks(language: str) -> list[str]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """Everything that the document's code defines."""
    found = blocks("python")
    assert len(found) == 3
    names: dict[str, Any] = {"__name__": "embedding"}
    for block in found:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    return names


def merged(into: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    for key, value in other.items():
        into[key] = merged(into.get(key, {}), value) if isinstance(value, dict) else value
    return into


class Site:
    """A communicator of the plan's revision with an engine, configured as the document says.

    Args:
        folder: for everything.
        shown: the document's code.
        sshd: the host that simulates in remote mode; ``None`` for local mode.
    """

    def __init__(self, folder: Path, shown: dict[str, Any], sshd: Sshd | None = None) -> None:
        self.folder = folder
        self.engine = folder / "tps_env"
        self.engine.mkdir()
        self.database = db.make(folder / "mqi_communicator.db", db.PLAN_BEAMS)
        db.add(self.database, BEAM, "csv_interpreting", CASE)
        self.write("tps_env", ENGINE.encode()).chmod(0o755)
        self.write("first_half", LOG[:SIXTH_BATCH])
        self.write("second_half", LOG[SIXTH_BATCH:])
        self.write("exit_code", b"0")
        self.log = self.engine / "logs" / f"{CASE}_{BEAM}.log"
        config = yaml.safe_load(PLAN_CONFIG.read_text(encoding="utf-8"))
        # The real revision has none.
        del config["paths"]["remote"]["mqi_run_dir"]
        config["paths"]["remote"]["remote_log_path"] = "{base_directory}/tps_env/logs/{case_id}_{beam_id}.log"
        config["paths"]["remote"]["tps_input_file"] = config["paths"]["local"]["tps_input_file"]
        config["paths"]["base_directory"] = str(folder)
        config["paths"]["local"]["database_path"] = str(self.database)
        local, remote = (yaml.safe_load(block) for block in blocks("yaml"))
        merged(config, copy.deepcopy(local))
        if sshd is not None:
            merged(config, copy.deepcopy(remote))
            assert set(config["hpc"]) == {"host", "user", "ssh_key_path", "port"}
            host = sshd.host
            config["hpc"] = {
                "host": host.host,
                "user": host.user,
                "ssh_key_path": str(host.key_file),
                "port": sshd.port,
            }
        self.config = config
        self._shown = shown

    def write(self, name: str, data: bytes) -> Path:
        path = self.engine / name
        path.write_bytes(data)
        return path

    def context(self) -> Context:
        return Context(BEAM, Settings(self.config))

    def run(self, meanwhile: Callable[[Context], None]) -> tuple[str, Context]:
        """Run the simulation, and ``meanwhile`` when it has written its first half."""
        context = self.context()
        outcome: list[str] = []
        state = execution_state(self._shown["followed"])
        simulation = threading.Thread(target=lambda: outcome.append(state.execute(context)))
        simulation.start()
        try:
            meanwhile(context)
        finally:
            self.write("go_on", b"")
            simulation.join(60)
            context.execution_handler.close()
        assert not simulation.is_alive()
        assert not any(thread.name == f"progress {BEAM}" for thread in threading.enumerate())
        return outcome[0], context

    def reached(self, percent: float) -> None:
        wait_for(
            lambda: db.progress(self.database, BEAM) == pytest.approx(percent, abs=0.01), f"{percent} % in the column"
        )

    def row(self) -> tuple[object, ...]:
        [row] = db.execute(self.database, "SELECT status, error_message FROM beams WHERE beam_id = ?", BEAM)
        return row


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A host for commands and SFTP."""
    folder = tmp_path_factory.mktemp("host") / "sshd"
    with Sshd(folder, sftp=False, extra="Subsystem sftp internal-sftp") as server:
        yield server


@pytest.fixture(params=["local", "remote"])
def site(request: pytest.FixtureRequest, tmp_path: Path, shown: dict[str, Any], sshd: Sshd) -> Site:
    found = Site(tmp_path, shown, sshd if request.param == "remote" else None)
    assert BeamsTable(found.database).migrate()
    return found


def test_a_simulation_is_followed_into_the_column_in_both_modes(site: Site) -> None:
    outcome, context = site.run(lambda _: site.reached(100 * 5 / 18))
    assert outcome == "download"
    assert db.progress(site.database, BEAM) == 100.0
    assert context.logger.said == []


def test_a_failed_simulation_keeps_its_progress_and_an_error_message_with_the_logs_last_lines(site: Site) -> None:
    site.write("second_half", b"GPU assert: out of memory\n")
    site.write("exit_code", b"3")
    outcome, _ = site.run(lambda _: site.reached(100 * 5 / 18))
    assert outcome == "failed"
    status, message = site.row()
    assert status == "failed"
    assert "GPU assert: out of memory" in str(message)
    assert db.progress(site.database, BEAM) == pytest.approx(27.78, abs=0.01)


def test_the_finished_log_of_an_earlier_run_is_not_reported_for_the_next(site: Site) -> None:
    site.log.parent.mkdir()
    site.log.write_bytes(LOG)
    site.write("first_half", LOG[: LOG.index(b"Generating particles for (2 of 18")])
    written: list[object] = []

    def meanwhile(_: Context) -> None:
        def first_value() -> bool:
            value = db.progress(site.database, BEAM)
            written.append(value)
            return value != 0.0

        wait_for(first_value, "the first value")

    assert site.run(meanwhile)[0] == "download"
    assert written[-1] == pytest.approx(100 / 18, abs=0.01), "not the 100 of the run before"


def test_a_locked_database_is_logged_once_and_does_not_fail_the_beam(site: Site) -> None:
    def locked_at_the_first_batches(context: Context) -> None:
        locker = db.Locker(site.database)
        site.write("go_on", b"")
        wait_for(lambda: context.logger.about("Progress callback failed") != [], "a batch that could not be written")
        locker.release()

    site.write("first_half", b"")
    site.write("second_half", LOG)
    outcome, context = site.run(locked_at_the_first_batches)
    assert outcome == "download"
    [about] = context.logger.about("Progress callback failed")
    assert about["beam_id"] == BEAM
    assert "locked" in about["error"]
    assert db.progress(site.database, BEAM) == 100.0


@pytest.mark.parametrize("missing", ["remote_log_path", "database_path"])
def test_a_path_that_the_configuration_lacks_is_logged_and_the_simulation_runs(
    tmp_path: Path, shown: dict[str, Any], missing: str
) -> None:
    site = Site(tmp_path, shown)
    context = site.context()
    config = copy.deepcopy(site.config)
    del config["paths"]["local"][missing]
    context.settings = Settings(config)
    ran: list[str] = []

    def execute(state: object, context: Context) -> str:
        ran.append(context.id)
        return "download"

    class State:
        _injected_handler = None

    assert shown["followed"](execute)(State(), context) == "download"
    assert ran == [BEAM]
    [about] = context.logger.about("Progress is not followed")
    assert missing in about["error"]


def test_remote_mode_as_it_is_shipped_fails_whether_it_is_followed_or_not(
    tmp_path: Path, shown: dict[str, Any]
) -> None:
    """The document says that configuration is needed; this shows what happens without it."""
    site = Site(tmp_path, shown)
    site.config["ExecutionHandler"]["HpcJobSubmitter"] = "remote"
    for decorate in (shown["followed"], lambda execute: execute):
        assert execution_state(decorate).execute(site.context()) == "failed"
        assert "mqi_run_dir" in str(site.row()[1])


def test_a_client_of_the_document_refuses_a_host_it_does_not_know(shown: dict[str, Any], sshd: Sshd) -> None:
    host = sshd.host
    given = (host.host, sshd.port, host.user, str(host.key_file))
    client: paramiko.SSHClient = shown["connected"](*given, str(sshd.known_hosts))
    client.close()
    nobody = sshd.folder / "no_known_hosts"
    nobody.touch()
    with pytest.raises(paramiko.SSHException, match="not found in known_hosts"):
        shown["connected"](*given, str(nobody))


def test_lines_and_numbers_alone(shown: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes((LOGS / "v2_b2.log").read_bytes())
    assert list(shown["percentages"](log, 0.5)) == [(1, 2, 50.0), (2, 2, 100.0)]


def test_the_plans_names_are_in_one_module_and_their_old_places() -> None:
    from exporter.database import beams_table
    from exporter.logs import parser
    from exporter.polling.poller import ProgressMonitor
    from exporter.sources import line_follower

    assert embedding.ProgressMonitor is ProgressMonitor
    assert embedding.TpsLogParser is parser.TpsLogParser
    assert embedding.LocalLogTailer is line_follower.LocalLogTailer
    assert embedding.RemoteLogTailer is line_follower.RemoteLogTailer
    assert embedding.BeamsTable is beams_table.BeamsTable
    for name in embedding.__all__:
        assert hasattr(embedding, name)


def test_importing_the_plans_names_does_not_load_the_ssh_library() -> None:
    import subprocess
    import sys

    program = "import sys, exporter.embedding; sys.exit('paramiko' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
