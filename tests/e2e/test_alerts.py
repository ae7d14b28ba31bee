"""The stories an operator is woken by, from a beam's log to a message, through real Prometheus and Alertmanager.

Rules, Alertmanager's configuration and texts are the shipped ones; only their times and addresses are a test's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.parameters import Parameters
from alerts.rules import rule_file
from exporter.demo.simulator import Simulation, simulate
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.receivers import MailServer, Webhook
from tests.support.servers import Alertmanager, Prometheus, edit_yaml
from tests.support.sshd import Sshd
from tests.support.stack import prepare

pytestmark = pytest.mark.timeout(400)

CASES = tuple(f"7001000{number}" for number in range(1, 6))
"""One for each beam: what happens to two beams of a case at once is one message about both."""
HANGING, FAILING, EMPTY, FINE, REMOTE = (f"{case}_beam_1" for case in CASES)
SHORT = Parameters(
    source_silent_seconds=5,
    stall_for_seconds=1,
    kept_seconds=8,
    source_kept_seconds=6,
    stalled_long_seconds=12,
    slow_for_seconds=60,
    usual_every_seconds=5,
    waiting_for_seconds=30,
    source_down_for_seconds=2,
    exporter_down_for_seconds=4,
    exporter_absent_for_seconds=30,
)


def case_of(beam_id: str) -> str:
    [case] = [each for each in CASES if beam_id.startswith(each)]
    return case


class Site:
    """A database, a local folder of logs and one on another host, the exporter, Prometheus, Alertmanager, receivers.

    Args:
        first_batch_seconds: how long a first batch may take, and every one while no duration is known.
    """

    def __init__(
        self, folder: Path, sshd: Sshd, webhook: Webhook, mail: MailServer, first_batch_seconds: float = 60
    ) -> None:
        self.folder = folder
        self.sshd = sshd
        self.webhook = webhook
        self.mail = mail
        self.database = folder / "mqi_communicator.db"
        self.prometheus: Prometheus
        for name in ("logs", "remote"):
            (folder / name).mkdir()
        db.make(self.database)
        configuration = {
            "base_directory": str(folder),
            "sources": [
                {"name": "local", "kind": "local", "log_path": f"{folder}/logs/sim_{{beam_id}}.log"},
                {
                    "name": "hpc1",
                    "kind": "ssh",
                    "host": "127.0.0.1",
                    "port": sshd.port,
                    "user": sshd.host.user,
                    "key_file": str(sshd.client_key),
                    "known_hosts_file": str(sshd.known_hosts),
                    "log_path": f"{folder}/remote/sim_{{beam_id}}.log",
                },
            ],
            "database": {"path": str(self.database)},
            "discovery": {"interval_seconds": 0.2},
            "progress_tracking": {
                "monitoring": {"poll_interval_seconds": 0.1},
                # The fine beam's batches come every second or so; a machine that is busy must not make it stall.
                "stall": {"factor": 1, "minimum_seconds": 6, "first_batch_seconds": first_batch_seconds},
            },
            "web": {"listen_address": "127.0.0.1:0"},
        }
        self.configuration = folder / "exporter.yaml"
        self.configuration.write_text(yaml.safe_dump(configuration), encoding="utf-8")

    def log(self, beam_id: str) -> Path:
        return self.folder / ("remote" if beam_id == REMOTE else "logs") / f"sim_{beam_id}.log"

    def add(self, beam_id: str) -> None:
        db.execute(
            self.database,
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES (?, ?, '/', 'simulation_running')",
            beam_id,
            case_of(beam_id),
        )

    def set_status(self, beam_id: str, status: str, progress: float | None = None) -> None:
        db.execute(
            self.database,
            "UPDATE beams SET status = ?, progress = COALESCE(?, progress), updated_at = CURRENT_TIMESTAMP"
            " WHERE beam_id = ?",
            status,
            progress,
            beam_id,
        )

    def told(self, status: str, alert: str, about: str) -> None:
        """Wait until a receiver was told of it."""
        wait_for(
            lambda: (status, alert, about) in {each[1:] for each in self.webhook.told()},
            f"{alert} of {about} {status}; so far: {self.webhook.told()}, firing: {self.prometheus.alerts()}",
            90,
        )


def shortened(configuration: dict[str, Any], webhook: Webhook, mail: MailServer) -> None:
    configuration["global"]["smtp_smarthost"] = mail.address
    configuration["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in configuration["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook.url}/{receiver['name']}", "send_resolved": True}]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Sshd(tmp_path / "sshd") as sshd, Webhook() as webhook, MailServer() as mail:
        yield Site(tmp_path, sshd, webhook, mail)


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Site]:
    """A restarted exporter knows no durations: here its stalls are none the later for it."""
    with Sshd(tmp_path / "sshd") as sshd, Webhook() as webhook, MailServer() as mail:
        yield Site(tmp_path, sshd, webhook, mail, first_batch_seconds=6)


@contextmanager
def watched(site: Site, exporter: ExporterProcess) -> Iterator[None]:
    """Prometheus and Alertmanager with the shipped files and short times."""
    folder = site.folder / "stack"
    alertmanager = Alertmanager(folder)
    prepare(folder, exporter=exporter.address, alertmanager=alertmanager.address, interval="1s")
    (folder / "mqi-rules.yml").write_text(rule_file(SHORT), encoding="utf-8")
    path = folder / "alertmanager.yml"
    edit_yaml(path, path, lambda configuration: shortened(configuration, site.webhook, site.mail))
    site.prometheus = Prometheus(folder)
    with alertmanager, site.prometheus:
        yield


def upto(data: bytes, mark: bytes) -> bytes:
    return data[: data.index(b"\n", data.index(mark)) + 1]


def test_a_stall_two_failures_and_a_failed_host_notify_only_their_receivers(
    site: Site,
) -> None:
    whole = simulate(Simulation(batches=(6,))).data
    half = upto(whole, b"Generating particles for (3 of 6")
    with ExporterProcess("--config.file", site.configuration) as exporter, watched(site, exporter):
        for beam in (HANGING, FAILING, EMPTY, FINE, REMOTE):
            site.add(beam)
            site.log(beam).write_bytes(upto(whole, b"Generating particles for (1 of 6"))
        for beam in (HANGING, FAILING, FINE, REMOTE):
            wait_for(lambda beam=beam: exporter.state(beam) == "running", f"{beam} running")  # type: ignore[misc]
        site.log(FINE).write_bytes(whole)
        site.set_status(FINE, "completed")
        site.log(HANGING).write_bytes(half)
        site.log(REMOTE).write_bytes(half)
        failed = simulate(Simulation(batches=(6,), gpu=True, failure="cuda", at_batch=3)).data
        site.log(FAILING).write_bytes(failed)
        site.set_status(FAILING, "failed")
        empty = simulate(Simulation(batches=(6,), failure="no_particles")).data
        site.log(EMPTY).write_bytes(empty)
        # The host goes down before its beam is silent for long: that is no stall of the beam.
        site.sshd.kill()
        site.told("firing", "MQIBeamFailed", FAILING)
        site.told("firing", "MQINoParticles", EMPTY)
        site.told("firing", "MQISourceDown", "hpc1")
        site.told("firing", "MQIBeamStalled", HANGING)
        site.told("firing", "MQIBeamStalledLong", HANGING)

        # All is mended: the host is back, the beams are tried again, the hanging one goes on.
        site.sshd.start()
        site.log(REMOTE).write_bytes(whole)
        site.set_status(REMOTE, "completed")
        site.log(HANGING).write_bytes(whole)
        site.set_status(HANGING, "completed")
        for beam in (FAILING, EMPTY):
            site.set_status(beam, "pending", 0.0)
            wait_for(lambda beam=beam: exporter.state(beam) == "waiting", f"{beam} reset")  # type: ignore[misc]
            site.set_status(beam, "simulation_running")
            site.log(beam).write_bytes(whole)
            exporter.reaches(beam, "succeeded")
            site.set_status(beam, "completed")
        site.told("resolved", "MQISourceDown", "hpc1")
        site.told("resolved", "MQIBeamFailed", FAILING)
        site.told("resolved", "MQINoParticles", EMPTY)
        site.told("resolved", "MQIBeamStalledLong", HANGING)
        site.told("resolved", "MQIBeamStalled", HANGING)
        wait_for(lambda: not site.prometheus.alerts() - {("MQIStatusMismatch", EMPTY, "local")}, "no alert fires")
        assert site.webhook.told() == {
            (receiver, status, alert, about)
            for receiver, alert, about in (
                ("physicists", "MQIBeamFailed", FAILING),
                ("on-call", "MQINoParticles", EMPTY),
                ("on-call", "MQISourceDown", "hpc1"),
                ("physicists", "MQIBeamStalled", HANGING),
                ("on-call", "MQIBeamStalledLong", HANGING),
            )
            for status in ("firing", "resolved")
        }
    check_mails(site.mail.mails)


def check_mails(mails: list[EmailMessage]) -> None:
    """What arrived can be read: the subject says what happened, the text what it means and where to look."""
    subjects = [str(mail["Subject"]) for mail in mails]
    assert f"WARNING: Beam {FAILING} of case {case_of(FAILING)} failed: cuda" in subjects
    assert "CRITICAL: Logs on hpc1 cannot be read" in subjects
    assert "Resolved: Logs on hpc1 cannot be read" in subjects
    [stalled] = [
        mail for mail in mails if mail["Subject"] == f"WARNING: Beam {HANGING} of case {case_of(HANGING)} stands still"
    ][:1]
    assert stalled["To"] == "physicists@example.org"
    body = stalled.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert f"Beam {HANGING} of case {case_of(HANGING)} on local has made no progress for " in text
    assert "at batch 3 of 6" in text
    assert f"Dashboard: http://localhost:3000/d/mqi-case?var-case={case_of(HANGING)}&var-beam={HANGING}" in text
    assert "What to do: docs/runbooks/MQIBeamStalled.md" in text
    html = stalled.get_body(("html",))
    assert html is not None
    assert f"<strong>Beam {HANGING} of case {case_of(HANGING)} stands still</strong>" in html.get_content()


def test_an_exporter_that_is_down_sends_one_message_and_does_not_resolve_stalls(quick: Site) -> None:
    site, whole = quick, simulate(Simulation(batches=(6,))).data
    site.add(HANGING)
    with ExporterProcess("--config.file", site.configuration) as exporter:
        address = exporter.address
        with watched(site, exporter):
            # Not before: Prometheus may take longer to start than the beam's first batch.
            site.log(HANGING).write_bytes(upto(whole, b"Generating particles for (1 of 6"))
            wait_for(lambda: exporter.state(HANGING) == "running", "the beam running")
            site.log(HANGING).write_bytes(upto(whole, b"Generating particles for (3 of 6"))
            site.told("firing", "MQIBeamStalled", HANGING)
            exporter.__exit__(None, None, None)
            site.told("firing", "MQIExporterDown", "")
            with ExporterProcess("--config.file", site.configuration, "--web.listen-address", address):
                site.told("resolved", "MQIExporterDown", "")
                site.told("firing", "MQIBeamStalledLong", HANGING)
                assert ("resolved", "MQIBeamStalled", HANGING) not in {each[1:] for each in site.webhook.told()}
                assert {each[2] for each in site.webhook.told()} == {
                    "MQIBeamStalled",
                    "MQIBeamStalledLong",
                    "MQIExporterDown",
                }
