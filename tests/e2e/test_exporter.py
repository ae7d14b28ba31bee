"""The exporter as a process of its own, beside a database like the communicator's and logs that grow."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from exporter.demo.simulator import Simulation, play, read_growth, replay_growth, simulate
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE beams (
    beam_id TEXT PRIMARY KEY, parent_case_id TEXT NOT NULL, beam_path TEXT NOT NULL, beam_number INTEGER,
    status TEXT NOT NULL, progress REAL DEFAULT 0.0, hpc_job_id TEXT, error_message TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
"""


class Site:
    """A site's folder: database, logs, configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.database = folder / "mqi_communicator.db"
        self.config = folder / "exporter.yaml"
        self.configure()

    def make_database(self) -> None:
        with sqlite3.connect(self.database) as database:
            database.executescript(SCHEMA)
        database.close()

    def configure(self, **replaced: str) -> None:
        text = f"""
base_directory: {self.folder}
sources:
  - {{name: local, kind: local, log_path: "{{base_directory}}/logs/sim_{{beam_id}}.log"}}
database: {{path: {self.database}}}
discovery: {{interval_seconds: 0.1}}
mirror: {{minimum_interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.05}}}}
web: {{listen_address: "127.0.0.1:0", enable_lifecycle: true}}
"""
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        self.config.write_text(text, encoding="utf-8")

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        database = sqlite3.connect(self.database, timeout=10)
        try:
            with database:
                return database.execute(statement, values).fetchall()
        finally:
            database.close()

    def add_beam(self, beam_id: str, case_id: str = "70010001", status: str = "simulation_running") -> Path:
        self.execute(
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES (?, ?, '/data', ?)",
            beam_id,
            case_id,
            status,
        )
        return self.logs / f"sim_{beam_id}.log"

    def progress(self, beam_id: str) -> object:
        return self.execute("SELECT progress FROM beams WHERE beam_id = ?", beam_id)[0][0]

    def set_status(self, beam_id: str, status: str) -> None:
        self.execute("UPDATE beams SET status = ?, updated_at = CURRENT_TIMESTAMP WHERE beam_id = ?", status, beam_id)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.make_database()
    return site


def test_a_real_log_that_grows_shows_the_same_progress_in_metrics_and_column(site: Site) -> None:
    log = (LOGS / "v2_b18.log").read_bytes()
    fifth = log.index(b"Generating particles for (5 of 18 batches)")
    until_fifth = log.index(b"\n", log.index(b"Particle generation complete!", fifth)) + 1
    target = site.add_beam("70010001_beam_1")
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.state("70010001_beam_1") == "waiting", "the beam on /metrics")
        target.write_bytes(log[:until_fifth])
        wait_for(
            lambda: round(100 * (exporter.value("mqi_beam_progress_ratio") or 0), 2) == 27.78, "27.78 % on /metrics"
        )
        wait_for(lambda: site.progress("70010001_beam_1") == 27.78, "27.78 in the column")
        assert exporter.value("mqi_beam_batch_current") == 5
        assert exporter.value("mqi_beam_batches_total") == 18
        assert exporter.value("mqi_beam_batches_completed") == 4
        estimated = exporter.value("mqi_beam_progress_estimated_ratio")
        assert estimated is not None
        assert round(4 / 18, 6) <= estimated < 5 / 18
        with target.open("ab") as file:
            file.write(log[until_fifth:])
        wait_for(lambda: exporter.state("70010001_beam_1") == "succeeded", "the run's end")
        wait_for(lambda: site.progress("70010001_beam_1") == 100.0, "100 in the column")
        assert exporter.value("mqi_beam_progress_estimated_ratio") == 1.0
        wait_for(
            lambda: exporter.value("mqi_beam_runs_total", source="local", outcome="succeeded") == 1, "the run counted"
        )


def test_a_log_re_grown_in_its_own_rhythm_is_followed_to_its_end(site: Site) -> None:
    target = site.add_beam("70010001_beam_1")
    script = replay_growth((LOGS / "v2_b18.log").read_bytes(), read_growth(LOGS / "v2_b18.growth.csv"))
    seen: list[float] = []
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.state("70010001_beam_1") == "waiting", "the beam on /metrics")
        stop = threading.Event()
        writer = threading.Thread(target=lambda: play(script, target, speed=5, wait=stop.wait))
        writer.start()
        try:
            while exporter.state("70010001_beam_1") != "succeeded":
                seen.append(exporter.value("mqi_beam_progress_estimated_ratio") or 0.0)
                wait_for(lambda: True, "")
        finally:
            stop.set()
            writer.join()
    assert seen == sorted(seen)
    assert all(0 <= ratio < 1 for ratio in seen[:-1])
    assert len({round(ratio, 2) for ratio in seen}) > 4, "it moved while it was watched, however slow the machine"


def test_stalled_failed_retried_and_no_particles_beams_are_told_apart(site: Site) -> None:
    beams = {
        "a_failed": Simulation(batches=(4,), batch_seconds=0.1, gpu=True, failure="cuda", at_batch=2),
        "a_output": Simulation(batches=(2,), batch_seconds=0.1, failure="output_error"),
        "a_empty": Simulation(batches=(2,), batch_seconds=0.1, failure="no_particles"),
        "a_hanging": Simulation(batches=(4,), batch_seconds=0.1, failure="hang", at_batch=3),
    }
    site.configure(
        **{"poll_interval_seconds: 0.05}": "poll_interval_seconds: 0.05}, stall: {minimum_seconds: 1, factor: 1}"}
    )
    stop = threading.Event()
    writers = []
    with ExporterProcess("--config.file", site.config) as exporter:
        targets = {beam_id: site.add_beam(beam_id, "a") for beam_id in beams}
        # What stands in a log at its first look tells no durations, and a stall is told by those.
        for beam_id in beams:
            exporter.reaches(beam_id, "waiting")
        for beam_id, simulation in beams.items():
            script = simulate(simulation)
            writers.append(threading.Thread(target=play, args=(script, targets[beam_id]), kwargs={"wait": stop.wait}))
            writers[-1].start()
        try:
            for beam_id, reason in (("a_failed", "cuda"), ("a_output", "output_error"), ("a_empty", "no_particles")):
                exporter.reaches(beam_id, "failed")
                assert exporter.value("mqi_beam_failure", beam_id=beam_id, reason=reason) == 1
            wait_for(lambda: exporter.state("a_hanging") == "stalled", "the stall")
            assert exporter.value("mqi_beam_status_mismatch", beam_id="a_output") == 0
            site.set_status("a_failed", "failed")
            site.execute("UPDATE beams SET status = 'pending', progress = 0.0 WHERE beam_id = 'a_failed'")
            (site.logs / "sim_a_failed.log").write_bytes((LOGS / "v2gpu_b2.log").read_bytes())
            wait_for(lambda: exporter.state("a_failed") == "succeeded", "the retry's end")
            assert exporter.value("mqi_beam_run", beam_id="a_failed") == 2
            assert exporter.value("mqi_beam_failure", beam_id="a_failed") is None
        finally:
            stop.set()
            for writer in writers:
                writer.join()


def test_a_database_that_is_missing_then_locked_then_replaced_loses_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    log = (LOGS / "v2_b18.log").read_bytes()
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.said("database unavailable"), "the missing database in the log")
        assert exporter.value("mqi_database_up") == 0
        assert exporter.get("/-/healthy").status_code == 200
        site.make_database()
        target = site.add_beam("70010001_beam_1")
        target.write_bytes(log[: log.index(b"Transporting")])
        wait_for(lambda: site.progress("70010001_beam_1") == 5.56, "5.56 in the new database")
        locker = sqlite3.connect(site.database, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        target.write_bytes(log)
        wait_for(lambda: exporter.state("70010001_beam_1") == "succeeded", "the end although the database is locked")
        wait_for(lambda: (exporter.value("mqi_database_pending_updates") or 0) == 1, "the update that waits")
        locker.execute("COMMIT")
        locker.close()
        wait_for(lambda: site.progress("70010001_beam_1") == 100.0, "100 after the lock")
        copy = site.folder / "copy.db"
        site.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy.write_bytes(site.database.read_bytes())
        with sqlite3.connect(copy) as database:
            database.execute("UPDATE beams SET progress = 0.0")
        database.close()
        for suffix in ("-wal", "-shm"):
            site.database.with_name(site.database.name + suffix).unlink(missing_ok=True)
        os.replace(copy, site.database)
        wait_for(lambda: site.progress("70010001_beam_1") == 100.0, "100 in the database that took its place")
        errors = {
            labels: value for (name, labels), value in exporter.metrics().items() if name == "mqi_exporter_errors_total"
        }
        assert not any(errors.values()), f"{errors}\n{exporter.log}"


def test_a_reload_keeps_beams_and_offsets_and_a_bad_one_keeps_the_old(site: Site) -> None:
    log = (LOGS / "v2_b18.log").read_bytes()
    half = log.index(b"Generating particles for (9 of 18")
    target = site.add_beam("70010001_beam_1")
    with ExporterProcess("--config.file", site.config) as exporter:
        target.write_bytes(log[:half])
        wait_for(lambda: exporter.value("mqi_beam_batches_completed") == 8, "eight batches")
        read = exporter.value("mqi_source_read_bytes_total", source="local")
        site.configure(**{"interval_seconds: 0.1": "interval_seconds: oops"})
        exporter.signal(signal.SIGHUP)
        wait_for(lambda: exporter.value("mqi_exporter_config_last_reload_successful") == 0, "the refusal")
        assert exporter.said("discovery.interval_seconds")
        assert exporter.value("mqi_beam_batches_completed") == 8
        site.configure()
        exporter.signal(signal.SIGHUP)
        wait_for(lambda: exporter.value("mqi_exporter_config_last_reload_successful") == 1, "the reload")
        with target.open("ab") as file:
            file.write(log[half:])
        wait_for(lambda: exporter.state("70010001_beam_1") == "succeeded", "the end")
        assert exporter.value("mqi_beam_batches_completed") == 18
        assert exporter.value("mqi_beam_run") == 1
        assert read is not None
        after = exporter.value("mqi_source_read_bytes_total", source="local")
        assert after is not None
        assert after == len(log), "nothing was read twice"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_asked_to(site: Site, number: signal.Signals) -> None:
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.get("/-/ready").status_code == 200, "readiness")
        exporter.signal(number)
        assert exporter.wait() == 0
    assert exporter.said("exporter stopped")
    assert not exporter.said("Traceback")


def test_a_taken_port_is_one_clear_error(site: Site) -> None:
    with ExporterProcess("--config.file", site.config) as first:
        with ExporterProcess("--config.file", site.config, "--web.listen-address", first.address) as second:
            assert second.wait() == 1
        assert second.lines == [line for line in second.lines if "cannot listen on" in line]


def test_beams_are_found_by_file_names_without_a_database(site: Site) -> None:
    site.configure(
        **{
            f"database: {{path: {site.database}}}": "",
            "discovery: {interval_seconds: 0.1}": "discovery: {kind: directory, interval_seconds: 0.1}",
            "sim_{beam_id}.log": "{case_id}_{beam_id}.log",
        }
    )
    log = (LOGS / "v2_b2.log").read_bytes()
    for name in ("01234_01234_beam 1.log", "환자.1_빔_2.log", "sim_70010001_beam_10.log", "notes.txt"):
        (site.logs / name).write_bytes(log)
    with ExporterProcess("--config.file", site.config) as exporter:
        wait_for(lambda: exporter.state("01234_beam 1") == "succeeded", "the doubled form")
        beams = {
            (dict(labels)["case_id"], dict(labels)["beam_id"])
            for name, labels in exporter.metrics()
            if name == "mqi_beam_batches_total"
        }
        assert beams == {("01234", "01234_beam 1"), ("환자.1", "빔_2"), ("70010001", "70010001_beam_10")}
        assert exporter.value("mqi_database_up") is None


def test_the_demo_plays_every_story(tmp_path: Path) -> None:
    with ExporterProcess("--web.listen-address", "127.0.0.1:0", "demo", "--folder", tmp_path, "--speed", "15") as demo:
        states = {
            "DEMO0001_beam_1": "succeeded",
            "DEMO0001_beam_2": "succeeded",
            "DEMO0001_beam_3": "succeeded",
            "DEMO0002_beam_1": "failed",
            "DEMO0002_beam_2": "stalled",
            "DEMO0002_beam_3": "succeeded",
            "DEMO0003_beam_1": "succeeded",
        }
        for beam_id, state in states.items():
            demo.reaches(beam_id, state, 60)
        assert demo.value("mqi_beam_run", beam_id="DEMO0001_beam_3") == 2
        assert demo.value("mqi_beam_batches_completed", beam_id="DEMO0003_beam_1", source="hpc1") == 12
        assert demo.value("mqi_beam_failure", beam_id="DEMO0002_beam_1", reason="cuda") == 1
        database = sqlite3.connect(tmp_path / "mqi_demo.db")

        def column() -> dict[str, float]:
            return dict(database.execute("SELECT beam_id, progress FROM beams").fetchall())

        wait_for(lambda: sum(value == 100.0 for value in column().values()) == 5, "100 for each beam that succeeded")
        database.close()
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
