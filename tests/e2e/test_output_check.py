"""The output check with a real exporter, a real database and a real SSH host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_exporter import Site
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd

LOG = (LOGS / "v2_b18.log").read_bytes()
MIDDLE = LOG.index(b"Generating particles for (6 of 18")
BEAM, OTHER = "P(01)_beam[1]", "P01_beam1"


@pytest.fixture(params=["local", "ssh"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site whose source needs the dose file ``dose/CASE/BEAM*.dcm``."""
    site = Site(tmp_path / "site")
    site.make_database()
    output = f'output_path: "{site.folder}/dose/{{case_id}}/{{beam_id}}*.dcm", output_minimum_bytes: 100'
    old = '{name: local, kind: local, log_path: "{base_directory}/logs/sim_{beam_id}.log"}'
    if request.param == "local":
        site.configure(**{old: f"{old[:-1]}, {output}}}"})
        yield site
        return
    with Sshd(tmp_path / "sshd") as sshd:
        host = sshd.host
        new = (
            f"{{name: hpc1, kind: ssh, host: {host.host}, port: {host.port}, user: {host.user}, "
            f"key_file: {host.key_file}, known_hosts_file: {host.known_hosts_file}, "
            f'log_path: "{site.logs}/sim_{{beam_id}}.log", {output}}}'
        )
        site.configure(**{old: new})
        yield site


def dose(site: Site, beam_id: str, size: int = 4096) -> Path:
    path = site.folder / "dose" / "70010001" / f"{beam_id}_Dose.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_a_run_succeeds_with_its_dose_and_fails_without(site: Site) -> None:
    logs = {beam_id: site.add_beam(beam_id) for beam_id in (BEAM, OTHER)}
    with ExporterProcess("--config.file", site.config) as exporter:
        for beam_id in logs:
            exporter.reaches(beam_id, "waiting")
        for log in logs.values():
            log.write_bytes(LOG[:MIDDLE])
        for beam_id in logs:
            exporter.reaches(beam_id, "running")
        dose(site, OTHER)
        dose(site, BEAM, size=99)
        for log in logs.values():
            log.write_bytes(LOG)
        wait_for(lambda: exporter.state(OTHER) == "succeeded", "the run with a dose")
        assert exporter.value("mqi_beam_output_size_bytes", beam_id=OTHER) == 4096
        wait_for(lambda: site.progress(OTHER) == 100.0, "100 in its column")
        wait_for(lambda: site.progress(BEAM) == 99.0, "the column of the run without one")
        assert exporter.state(BEAM) == "running"
        assert exporter.value("mqi_beam_phase", beam_id=BEAM, phase="saving") == 1
        assert exporter.value("mqi_beam_output_size_bytes", beam_id=BEAM) is None
        wait_for(lambda: exporter.state(BEAM) == "failed", "the run without a dose", 60)
        assert exporter.value("mqi_beam_failure", beam_id=BEAM, reason="output_missing") == 1
        assert site.progress(BEAM) == 99.0
        wait_for(lambda: exporter.said("output_missing"), "its line in the log")


def test_a_dose_that_comes_a_moment_later_is_found(site: Site) -> None:
    log = site.add_beam(BEAM)
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.state(BEAM) == "waiting", "the beam")
        log.write_bytes(LOG)
        wait_for(lambda: exporter.state(BEAM) == "running", "the run that is saving")
        dose(site, BEAM)
        wait_for(lambda: exporter.state(BEAM) == "succeeded", "success")
        wait_for(lambda: exporter.said("run succeeded"), "its line in the log")
