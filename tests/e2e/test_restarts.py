"""An exporter that is killed again and again beside one that never dies: at the end both say the same."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.demo.simulator import Simulation, play, simulate
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.sshd import Sshd
from tests.support.state import written

LOCAL, FAILING, RETRIED, REMOTE = (f"70010001_beam_{number}" for number in (1, 2, 3, 4))


class Site:
    """A database, logs here and on another host, and one configuration for each exporter."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder = folder
        self.sshd = sshd
        for name in ("logs", "host"):
            (folder / name).mkdir(parents=True)
        self.database = db.make(folder / "mqi.db")
        self.state = folder / "state.db"

    def configuration(self, name: str, *, state: Path | None = None, mirror: bool = False, stall: str = "") -> Path:
        path = self.folder / f"{name}.yaml"
        host = self.sshd.host
        path.write_text(
            f"""
base_directory: {self.folder}
sources:
  - {{name: local, kind: local, log_path: "{{base_directory}}/logs/sim_{{beam_id}}.log"}}
  - name: hpc1
    kind: ssh
    host: {host.host}
    port: {host.port}
    user: {host.user}
    key_file: {host.key_file}
    known_hosts_file: {host.known_hosts_file}
    log_path: "{self.folder}/host/sim_{{beam_id}}.log"
database: {{path: {self.database}}}
discovery: {{interval_seconds: 0.1}}
mirror: {{enabled: {str(mirror).lower()}, minimum_interval_seconds: 0.1}}
progress_tracking: {{monitoring: {{poll_interval_seconds: 0.1}}{stall}}}
web: {{listen_address: "127.0.0.1:0"}}
{f"state: {{file: {state}, interval_seconds: 0.3}}" if state is not None else ""}
""",
            encoding="utf-8",
        )
        return path

    def log(self, beam_id: str) -> Path:
        return self.folder / ("host" if beam_id == REMOTE else "logs") / f"sim_{beam_id}.log"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Sshd(tmp_path / "sshd") as sshd:
        yield Site(tmp_path / "site", sshd)


def runs(exporter: ExporterProcess) -> dict[tuple[str, str, str], float]:
    """Runs counted, where there were any."""
    return {
        (its["source"], its["outcome"], its["reason"]): value
        for (name, labels), value in exporter.metrics().items()
        if name == "mqi_beam_runs_total" and value
        for its in [dict(labels)]
    }


def beams(exporter: ExporterProcess) -> dict[str, tuple[object, ...]]:
    """What must be the same however often an exporter died."""
    names = ("state", "run", "batches_total", "batches_completed", "progress_ratio", "reason", "dialect", "particles")
    return {
        beam["beam_id"]: tuple(beam[name] for name in names) for beam in exporter.get("/api/v1/beams").json()["beams"]
    }


def test_killed_at_random_moments_it_says_what_one_that_never_died_says(site: Site) -> None:
    chance = random.Random(7)
    scripts = {
        LOCAL: simulate(Simulation(batches=(14,), batch_seconds=0.7)),
        FAILING: simulate(Simulation(batches=(12,), batch_seconds=0.7, gpu=True, failure="cuda", at_batch=9)),
        RETRIED: simulate(Simulation(batches=(4,), batch_seconds=0.4, failure="output_error")),
        REMOTE: simulate(Simulation(batches=(12, 3), batch_seconds=0.7)),
    }
    for beam in scripts:
        db.add(site.database, beam)
    stop, retried_is_kept = threading.Event(), threading.Event()
    retry = simulate(Simulation(batches=(5,), batch_seconds=0.4))

    def write(beam: str) -> None:
        play(scripts[beam], site.log(beam), wait=stop.wait)
        if beam == RETRIED:
            # Nobody knows of a run that began and ended and was written over while nobody looked.
            retried_is_kept.wait(60.0)
            play(retry, site.log(beam), wait=stop.wait)

    writers = [threading.Thread(target=write, args=(beam,)) for beam in scripts]
    configuration = site.configuration("mortal", state=site.state, mirror=True)
    counted: list[dict[tuple[str, str, str], float]] = []
    kills = 0
    with ExporterProcess("--config.file", site.configuration("immortal")) as immortal:
        wait_for(lambda: len(beams(immortal)) == 4, "the beams")
        with ExporterProcess("--config.file", configuration):
            wait_for(site.state.exists, "a first state")
        try:
            for writer in writers:
                writer.start()
            while any(writer.is_alive() for writer in writers):
                with ExporterProcess("--config.file", configuration) as mortal:
                    if chance.random() < 0.7:
                        wait_for(lambda: mortal.get("/-/ready").status_code == 200, "readiness")
                        counted.append(runs(mortal))
                        stop.wait(chance.uniform(0.0, 1.5))
                        counted.append(runs(mortal))
                        if ("local", "failed", "output_error") in counted[-1]:
                            retried_is_kept.set()  # what is shown of it is in the file
                    else:
                        stop.wait(chance.uniform(0.0, 1.0))
                    mortal.signal(signal.SIGKILL)
                    mortal.wait()
                    kills += 1
                    assert not mortal.said("cannot be used"), mortal.log
                stop.wait(chance.uniform(0.0, 0.3))
        finally:
            stop.set()
            retried_is_kept.set()
            for writer in writers:
                writer.join()
        with ExporterProcess("--config.file", configuration) as mortal:
            total = {
                ("local", "succeeded", ""): 2.0,
                ("local", "failed", "cuda"): 1.0,
                ("local", "failed", "output_error"): 1.0,
                ("hpc1", "succeeded", ""): 1.0,
            }
            wait_for(lambda: runs(immortal) == total, "every run counted by the one that never died")
            wait_for(lambda: runs(mortal) == total, f"every run counted once by the one that died {kills} times")
            assert beams(mortal) == beams(immortal)
            for beam in scripts:
                # A batch that had begun while nobody looked is not known to be as far as it was.
                estimates = [one.value("mqi_beam_progress_estimated_ratio", beam_id=beam) for one in (mortal, immortal)]
                assert estimates[0] == pytest.approx(estimates[1], abs=1 / 12)
            assert {beam[0] for beam in beams(mortal).values()} == {"succeeded", "failed"}
            wait_for(lambda: db.progress(site.database, LOCAL) == 100.0, "100 in the column")
            errors = [
                value for (name, _), value in mortal.metrics().items() if name == "mqi_exporter_errors_total" and value
            ]
            assert errors == []
    assert kills > 2
    counted.append(total)
    for earlier, later in itertools.pairwise(counted):
        assert all(later.get(key, 0) >= value for key, value in earlier.items()), "a counter stepped back"


def test_the_remaining_time_is_known_again_at_the_first_poll_and_a_stall_stays_one(site: Site) -> None:
    whole = simulate(Simulation(batches=(6,), batch_seconds=1.0)).data
    marks = [whole.index(b"Generating particles for (%d of 6" % number) for number in range(1, 7)]
    configuration = site.configuration(
        "mortal", state=site.state, stall=", stall: {factor: 1, minimum_seconds: 4, first_batch_seconds: 900}"
    )
    for beam in (LOCAL, REMOTE):
        db.add(site.database, beam)
        site.log(beam).write_bytes(whole[: marks[0]])
    with ExporterProcess("--config.file", configuration) as exporter:
        for number, mark in enumerate(marks[1:4], 1):
            for beam in (LOCAL, REMOTE):
                wait_for(lambda: exporter.state(beam) in ("starting", "running"), "the log")  # noqa: B023
                with site.log(beam).open("ab") as file:
                    file.write(whole[marks[number - 1] : mark])
                wait_for(
                    lambda: exporter.value("mqi_beam_batches_completed", beam_id=beam) == number,  # noqa: B023
                    "the batch",
                )
        before = {
            name: {beam: exporter.value(name, beam_id=beam) for beam in (LOCAL, REMOTE)}
            for name in ("mqi_beam_stall_threshold_seconds", "mqi_beam_batch_duration_seconds")
        }
        assert all(value is not None for values in before.values() for value in values.values())
        stamp = written(site.state)
        wait_for(lambda: written(site.state) != stamp, "a state that holds this")
        later = written(site.state)
        wait_for(lambda: written(site.state) != later, "a state that holds this")
        exporter.signal(signal.SIGKILL)
        exporter.wait()
    with ExporterProcess("--config.file", configuration) as exporter:
        wait_for(lambda: exporter.get("/-/ready").status_code == 200, "one look at everything")
        for beam in (LOCAL, REMOTE):
            # Where it has come to its threshold meanwhile, there is none to be told.
            remaining = exporter.value("mqi_beam_remaining_seconds", beam_id=beam)
            assert remaining is not None or exporter.state(beam) == "stalled"
            for name, values in before.items():
                assert exporter.value(name, beam_id=beam) == values[beam]
            exporter.reaches(beam, "stalled")
        # It was not killed this time: its last words are in the file, too.
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
    with ExporterProcess("--config.file", configuration) as exporter:
        for beam in (LOCAL, REMOTE):
            exporter.reaches(beam, "stalled")
        assert not exporter.said("beam stalled"), "it was said by the process before"


def test_a_damaged_state_is_set_aside_and_all_logs_are_read_again(site: Site) -> None:
    db.add(site.database, LOCAL)
    site.log(LOCAL).write_bytes(simulate(Simulation(batches=(6,))).data)
    configuration = site.configuration("mortal", state=site.state)
    with ExporterProcess("--config.file", configuration) as exporter:
        exporter.reaches(LOCAL, "succeeded")
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
    site.state.write_bytes(site.state.read_bytes()[:5000])
    with ExporterProcess("--config.file", configuration) as exporter:
        exporter.reaches(LOCAL, "succeeded")
        assert [line for line in exporter.lines if "level=warning" in line] == [
            line for line in exporter.lines if "is damaged" in line and "state.db.set-aside" in line
        ]
        assert exporter.value("mqi_exporter_errors_total", where="state") == 1
        wait_for(site.state.exists, "a new state")


def test_without_a_database_it_goes_on_too(site: Site) -> None:
    whole = simulate(Simulation(batches=(4,))).data
    half = whole.index(b"Generating particles for (3 of 4")
    configuration = site.configuration("mortal", state=site.state)
    text = configuration.read_text(encoding="utf-8").replace("discovery: {", "discovery: {kind: directory, ")
    configuration.write_text(text.replace(f"database: {{path: {site.database}}}", ""), encoding="utf-8")
    site.log(LOCAL).write_bytes(whole[:half])
    with ExporterProcess("--config.file", configuration) as exporter:
        wait_for(lambda: exporter.value("mqi_beam_batches_completed", beam_id=LOCAL) == 2, "two batches")
        exporter.signal(signal.SIGTERM)
        assert exporter.wait() == 0
    with site.log(LOCAL).open("ab") as file:
        file.write(whole[half:])
    with ExporterProcess("--config.file", configuration) as exporter:
        exporter.reaches(LOCAL, "succeeded")
        wait_for(lambda: runs(exporter) == {("local", "succeeded", ""): 1.0}, "the run that ended meanwhile")
        read = exporter.value("mqi_source_read_bytes_total", source="local")
        assert read == len(whole) - half, "nothing was read twice"


def test_a_reload_says_that_the_state_file_takes_a_restart(site: Site) -> None:
    configuration = site.configuration("mortal", state=site.state)
    with ExporterProcess("--config.file", configuration) as exporter:
        wait_for(site.state.exists, "the state")
        site.configuration("mortal", state=site.folder / "other.json")
        exporter.signal(signal.SIGHUP)
        said = 'msg="settings of the state file take effect at the next start only" keys=state.file'
        wait_for(lambda: exporter.said(said), "the warning")
        assert not exporter.said("settings of the web server")
        assert not (site.folder / "other.json").exists()


def test_a_second_exporter_with_the_same_state_is_refused(site: Site) -> None:
    configuration = site.configuration("mortal", state=site.state)
    with ExporterProcess("--config.file", configuration) as first:
        wait_for(site.state.exists, "the first one's state")
        with ExporterProcess("--config.file", configuration) as second:
            assert second.wait() == 1
        [line] = second.lines
        assert f"{site.state}: another exporter (process {first.pid}) uses this state file" in line
        assert first.get("/-/healthy").status_code == 200
