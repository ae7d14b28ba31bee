"""An exporter beside file servers and SSH hosts whose clocks are behind or ahead: what it shows must be right."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.sshd import Sshd
from tests.support.world import captured, upto

OFFSETS = (-3600, -300, -30, -10, -3, 0, 3, 10, 300, 3600)
SOURCES = {
    f"{kind}_{'behind' if offset < 0 else 'ahead'}_{abs(offset)}": offset
    for kind in ("local", "ssh")
    for offset in OFFSETS
}
HEAD = upto("v2_b18", b"(1 of 18")
FIRST_BATCH = upto("v2_b18", b"(2 of 18")[len(HEAD) :]
FAILED = upto("v2_b18", b"(2 of 18") + b"GPUassert: out of memory f 3\n"
POLL_SECONDS = 0.2
BATCH_SECONDS = 3.0


class Site:
    """One exporter, and sources of which each dates its files by another clock."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder = folder
        self.database = db.make(folder / "mqi.db")
        host = sshd.host
        sources = []
        for name in SOURCES:
            (folder / name).mkdir()
            (folder / f"{name}.hidden").mkdir()
            kind = "kind: local"
            if name.startswith("ssh"):
                kind = (
                    f"kind: ssh, host: {host.host}, port: {host.port}, user: {host.user}, key_file: {host.key_file}, "
                    f"known_hosts_file: {host.known_hosts_file}"
                )
            sources.append(f'  - {{name: "{name}", {kind}, log_path: "{folder}/{name}/{{beam_id}}.log"}}')
        self.configuration = folder / "exporter.yaml"
        self.configuration.write_text(
            "\n".join(
                [
                    "sources:",
                    *sources,
                    f"database: {{path: {self.database}}}",
                    "discovery: {interval_seconds: 0.2}",
                    f"progress_tracking: {{monitoring: {{poll_interval_seconds: {POLL_SECONDS}}}}}",
                    'web: {listen_address: "127.0.0.1:0"}',
                    f"state: {{file: {folder}/state.db, interval_seconds: 0.2}}",
                ]
            ),
            encoding="utf-8",
        )

    def write(self, source: str, beam: str, data: bytes) -> None:
        """Append to the log of a beam, dated by the source's clock.

        A new one appears with its date: it is dated under another name.
        """
        hidden = self.folder / f"{source}.hidden" / f"{beam}.log"
        with hidden.open("ab") as file:
            file.write(data)
            file.flush()
            os.utime(file.fileno(), times=(time.time() + SOURCES[source],) * 2)
        if not self.log(source, beam).exists():
            os.link(hidden, self.log(source, beam))

    def delete(self, source: str, beam: str) -> None:
        self.log(source, beam).unlink()
        (self.folder / f"{source}.hidden" / f"{beam}.log").unlink()

    def log(self, source: str, beam: str) -> Path:
        return self.folder / source / f"{beam}.log"

    def row(self, beam: str, status: str) -> None:
        db.execute(
            self.database, "UPDATE beams SET status = ?, updated_at = CURRENT_TIMESTAMP WHERE beam_id = ?", status, beam
        )


def exporter_of(site: Site) -> ExporterProcess:
    """Run the exporter without hints, which would come before the test has dated a file that it wrote."""
    return ExporterProcess("--config.file", site.configuration, module="tests.support.without_inotify")


def beams(exporter: ExporterProcess) -> dict[str, dict[str, Any]]:
    return {beam["beam_id"]: beam for beam in exporter.get("/api/v1/beams").json()["beams"]}


def for_each_source(exporter: ExporterProcess, prefix: str, what: str, check: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the beam of every source is as it should be."""
    waiting: dict[str, object] = {}

    def all_are() -> bool:
        found = beams(exporter)
        waiting.clear()
        for source in SOURCES:
            beam = found.get(f"{prefix}{source}")
            if beam is None or not check(beam):
                waiting[source] = beam and (beam["state"], beam["run"], beam["reason"], beam["batches_completed"])
        return not waiting

    try:
        wait_for(all_are, f"{prefix} {what}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {waiting}") from None


def has_failed(run: int) -> Callable[[dict[str, Any]], bool]:
    return lambda beam: (beam["state"], beam["reason"], beam["run"]) == ("failed", "out_of_memory", run)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Sshd(tmp_path / "sshd", extra="MaxSessions 100") as sshd:
        (tmp_path / "site").mkdir()
        yield Site(tmp_path / "site", sshd)


def test_logs_dated_by_wrong_clocks_are_read_as_those_dated_by_right_ones(site: Site) -> None:
    for source in SOURCES:
        for prefix in ("runs ", "fails ", "unseen "):
            db.add(site.database, f"{prefix}{source}", "simulation_running")
        site.write(source, f"runs {source}", HEAD)
    began_at = time.time()
    with exporter_of(site) as exporter:
        for_each_source(exporter, "runs ", "has been found", lambda beam: beam["batches_total"] == 18)
        wait_for(lambda: exporter.get("/-/ready").status_code == 200, "every source was polled")

        for source in SOURCES:
            site.write(source, f"fails {source}", FAILED)
        for_each_source(exporter, "fails ", "has failed at once", has_failed(1))

        wait_for(lambda: time.time() - began_at > BATCH_SECONDS, "the first batch takes so long")
        for source in SOURCES:
            site.write(source, f"runs {source}", FIRST_BATCH)
        batch_seconds = time.time() - began_at
        for_each_source(exporter, "runs ", "has finished a batch", lambda beam: beam["batches_completed"] == 1)
        now = beams(exporter)
        for source, offset in SOURCES.items():
            # SFTP tells whole seconds.
            error = POLL_SECONDS * 3 + (1.0 if source.startswith("ssh") else 0.0)
            learned = exporter.value("mqi_source_clock_offset_seconds", source=source)
            assert learned == pytest.approx(offset, abs=error + 0.5), source
            beam = now[f"runs {source}"]
            assert beam["batch_duration_seconds"] == pytest.approx(batch_seconds, abs=error + 1.0), source
            assert beam["remaining_seconds"] == pytest.approx(17 * batch_seconds, abs=18 * (error + 1.0)), source
            warnings = [
                line for line in exporter.lines if f"source={source} " in line and "the clock that dates" in line
            ]
            assert len(warnings) == (abs(offset) > 5), source
        wait_for(lambda: time.time() - began_at > batch_seconds + 1, "the state is written")
        exporter.signal(signal.SIGKILL)
        exporter.wait()

    for source in SOURCES:
        site.write(source, f"unseen {source}", FAILED)
        site.row(f"fails {source}", "pending")
    with exporter_of(site) as exporter:
        for_each_source(exporter, "unseen ", "has failed while no exporter ran", has_failed(1))
        for_each_source(exporter, "runs ", "runs on", lambda beam: (beam["state"], beam["run"]) == ("running", 1))
        for_each_source(
            exporter, "fails ", "waits for run 2", lambda beam: (beam["state"], beam["run"]) == ("waiting", 2)
        )
        for source in SOURCES:
            site.row(f"fails {source}", "simulation_running")
        for source in SOURCES:
            site.delete(source, f"fails {source}")
            site.write(source, f"fails {source}", b"module load moqui\n" + FAILED)
        for_each_source(exporter, "fails ", "has failed again", has_failed(2))


def test_log_finished_before_the_start_is_attributed_when_the_clock_is_known(site: Site) -> None:
    """Nothing tells its age until a log of the same source grows; then it is judged by the corrected date."""
    for source, offset in SOURCES.items():
        db.add(site.database, f"over {source}", "simulation_running")
        db.execute(
            site.database,
            "UPDATE beams SET updated_at = datetime('now', '-60 seconds') WHERE beam_id = ?",
            f"over {source}",
        )
        db.add(site.database, f"old {source}", "simulation_running")
        db.add(site.database, f"runs {source}", "simulation_running")
        site.write(source, f"over {source}", FAILED)
        site.write(source, f"old {source}", captured("v2_b2"))
        at = time.time() - 60 + offset
        os.utime(site.log(source, f"old {source}"), times=(at, at))
    with exporter_of(site) as exporter:
        for_each_source(exporter, "runs ", "is known", lambda beam: beam["state"] == "waiting")
        wait_for(lambda: exporter.get("/-/ready").status_code == 200, "every source was polled")
        for data in (HEAD, FIRST_BATCH):
            for source in SOURCES:
                site.write(source, f"runs {source}", data)
            expected = data.count(b"Generating particles for")
            for_each_source(exporter, "runs ", "goes on", lambda beam: beam["batch_current"] >= expected)  # noqa: B023
        for_each_source(exporter, "over ", "is of this run", has_failed(1))
        for_each_source(exporter, "old ", "is of the run before", lambda beam: beam["state"] == "waiting")
