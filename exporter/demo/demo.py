"""The demo: an embedded database and simulated beams; plays the part of the communicator.

The ids are invented. :mod:`.simulator` writes the logs. The database has the newest communicator's schema. Unlike the
real communicator, beams run at the same time, and a retry resets only its beam instead of the whole case.
"""

from __future__ import annotations

import heapq
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from exporter.database.database_file import SQLITE_LOCK
from exporter.demo.host import DemoHost
from exporter.demo.simulator import Player, Simulation, simulate

_SCHEMA = """
CREATE TABLE cases (
    case_id TEXT PRIMARY KEY,
    case_path TEXT NOT NULL,
    status TEXT NOT NULL,
    progress REAL DEFAULT 0.0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    error_message TEXT,
    failure_category TEXT,
    failure_phase TEXT,
    failure_details TEXT,
    assigned_gpu TEXT,
    interpreter_completed BOOLEAN DEFAULT 0,
    retry_count INTEGER DEFAULT 0,
    ptn_checker_run_count INTEGER DEFAULT 0,
    ptn_checker_last_run_at TIMESTAMP,
    ptn_checker_status TEXT
);
CREATE TABLE beams (
    beam_id TEXT PRIMARY KEY,
    parent_case_id TEXT NOT NULL,
    beam_path TEXT NOT NULL,
    beam_number INTEGER,
    status TEXT NOT NULL,
    progress REAL DEFAULT 0.0,
    hpc_job_id TEXT,
    error_message TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (parent_case_id) REFERENCES cases (case_id)
);
CREATE INDEX idx_cases_status ON cases (status);
CREATE INDEX idx_cases_updated ON cases (updated_at);
CREATE INDEX idx_beams_parent_case ON beams (parent_case_id);
"""

_DATABASE_NAME = "mqi_demo.db"
_LOG_TEMPLATE = "{base_directory}/logs/sim_{beam_id}.log"
_DOSE_TEMPLATE = "{base_directory}/dose/{beam_id}.raw"
_DOSE_BYTES = 250_000
_REMOTE_CASE = "DEMO0003"
_STEP_SECONDS = 1.0
"""Duration of each short status before and after a simulation, so that it can be seen."""
_RETRY_AFTER_SECONDS = 6.0
_LOCKED_AT_MOST_SECONDS = 60.0
"""The communicator gives up after 5 s. The demo waits longer, so that people can try a locked database."""
_LONGEST_SLEEP_SECONDS = 3600.0

_Scene = Generator[float, float, None]
"""A part of the demo. It yields when to continue, and is sent that time; ``-inf`` means at the start."""


@dataclass(frozen=True, slots=True)
class DemoBeam:
    """One beam of the demo.

    Args:
        case_id, beam_id: as in the database. The beam's number is the ``beam_number`` of its simulations.
        start_seconds: start of its first run, seconds after the start of the demo.
        runs: its runs; each failed run is followed by the next.
    """

    case_id: str
    beam_id: str
    start_seconds: float
    runs: tuple[Simulation, ...]


def demo_simulations(*, remote: bool = False) -> list[DemoBeam]:
    """Return the beams of the demo, which show every outcome. All but the stalled one end within three minutes.

    Args:
        remote: add a third case, whose beam runs on another host.
    """
    clinic = Simulation(plan_beams=3, loading_seconds=6.0, saving_seconds=3.0, generation_share=0.3, gpu=True)
    normal = replace(clinic, batches=(12,), histories=118_400_000, batch_seconds=6.0)
    slow = replace(clinic, gpu=False, batches=(16,), histories=160_000_000, batch_seconds=9.0)
    retried = replace(clinic, batches=(15,), histories=150_000_000, batch_seconds=4.0)
    killed = replace(retried, failure="killed", at_batch=5)
    faulty = replace(clinic, batches=(24,), histories=233_000_000, batch_seconds=3.0, failure="cuda", at_batch=10)
    stalled = replace(clinic, batches=(20,), histories=197_500_000, batch_seconds=4.0, failure="hang", at_batch=7)
    # About 250 bytes for each batch into a buffer of 4096 bytes: the log grows every half minute only.
    buffered = replace(clinic, dialect="moqui", batches=(72,), histories=71_500_000, batch_seconds=1.8)

    def beam(case_id: str, number: int, start_seconds: float, *runs: Simulation) -> DemoBeam:
        simulations = tuple(
            replace(
                run,
                beam_number=number,
                case_directory=f"/data/demo/{case_id}/Log_csv",
                output_directory=f"/data/demo/{case_id}/Dose",
                seed=run.seed + number,
            )
            for run in runs
        )
        return DemoBeam(case_id, f"{case_id}_beam_{number}", start_seconds, simulations)

    elsewhere = [beam(_REMOTE_CASE, 1, 9.0, replace(normal, plan_beams=1))] if remote else []
    return [
        beam("DEMO0001", 1, 5.0, normal),
        beam("DEMO0001", 2, 8.0, slow),
        beam("DEMO0001", 3, 11.0, killed, retried),
        beam("DEMO0002", 1, 7.0, faulty),
        beam("DEMO0002", 2, 10.0, stalled),
        beam("DEMO0002", 3, 13.0, buffered),
        *elsewhere,
    ]


class DemoCommunicator:
    """Plays the communicator in one thread: rows, statuses, logs and dose files.

    Like the communicator, it writes ``progress`` only to reset it.

    Args:
        folder: for database, logs and dose files; created if missing.
        speed: how many times faster than real; it also shortens the limits in :meth:`configuration`.
        host: runs the beam of a third case; ``None`` leaves that case out.

    Raises:
        ValueError: ``speed`` is not positive.
    """

    def __init__(self, folder: Path, *, speed: float = 1.0, host: DemoHost | None = None) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.base_directory = folder.absolute()
        self.database_path = self.base_directory / _DATABASE_NAME
        self._speed = speed
        self._host = host
        self._beams = demo_simulations(remote=host is not None)
        self._scenes: list[tuple[float, int, _Scene]] | None = None

    def log_path(self, beam_id: str) -> Path:
        """Return the path of a beam's log."""
        return self._path(_LOG_TEMPLATE, beam_id)

    def dose_path(self, beam_id: str) -> Path:
        """Return the path of a beam's dose file."""
        return self._path(_DOSE_TEMPLATE, beam_id)

    def _path(self, template: str, beam_id: str) -> Path:
        remote = self._host is not None and beam_id.startswith(_REMOTE_CASE)
        base = self._host.folder if self._host is not None and remote else self.base_directory
        return Path(template.format(base_directory=base, beam_id=beam_id))

    def configuration(self, listen_address: str) -> str:
        """Return the exporter's configuration for this demo, as YAML. Its limits are short, so that a stall shows.

        Args:
            listen_address: ``host:port`` of the web server.
        """
        sources: list[dict[str, object]] = [
            {"name": "local", "kind": "local", "log_path": [_LOG_TEMPLATE], "output_path": [_DOSE_TEMPLATE]}
        ]
        if self._host is not None:
            log, dose = (
                template.replace("{base_directory}", str(self._host.folder))
                for template in (_LOG_TEMPLATE, _DOSE_TEMPLATE)
            )
            sources.append({**self._host.source(), "log_path": [log], "output_path": [dose]})
        return yaml.safe_dump(
            {
                "progress_tracking": {
                    "monitoring": {"poll_interval_seconds": 0.5},
                    "stall": {
                        "factor": 3,
                        "minimum_seconds": 15 / self._speed,
                        "first_batch_seconds": 60 / self._speed,
                        "buffered_seconds": 120 / self._speed,
                    },
                },
                "sources": sources,
                "base_directory": str(self.base_directory),
                "discovery": {"kind": "database", "interval_seconds": 1},
                "database": {"path": str(self.database_path)},
                "mirror": {"enabled": True},
                "web": {"listen_address": listen_address},
            },
            sort_keys=False,
            allow_unicode=True,
        )

    def prepare(self) -> None:
        """Create the folder and an empty database; remove files of an earlier demo.

        Raises:
            OSError: the folder cannot be used.
            sqlite3.Error: the database cannot be created.
        """
        self.close()
        self.base_directory.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            self.database_path.with_name(_DATABASE_NAME + suffix).unlink(missing_ok=True)
        for beam in self._beams:
            for path in (self.log_path(beam.beam_id), self.dose_path(beam.beam_id)):
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
        with self._database() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)
        self._scenes = []
        for case_id in sorted({beam.case_id for beam in self._beams}):
            self._open(self._play_case(case_id))
        for beam in self._beams:
            self._open(self._play_beam(beam))

    def run(self, stop: threading.Event, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Play until all beams ended or ``stop`` is set (the stalled beam never ends).

        Raises:
            OSError: a log cannot be written.
            sqlite3.Error: the database cannot be written, or was locked for a minute.
            RuntimeError: :meth:`prepare` was not called.
        """
        try:
            while not stop.is_set():
                now = clock()
                due = self.step(now)
                if due is None:
                    return
                stop.wait(min(due - now, _LONGEST_SLEEP_SECONDS))
        finally:
            self.close()

    def step(self, at: float) -> float | None:
        """Do everything that is due; the first call starts the demo.

        Args:
            at: the caller's clock, seconds.

        Returns:
            When to call again (``inf``: only hanging simulations are left); ``None`` after all beams ended.
        """
        if self._scenes is None:
            raise RuntimeError("prepare() the demo first")
        while self._scenes and self._scenes[0][0] <= at:
            due, order, scene = self._scenes[0]
            try:
                # A late call must not change the order, so a scene continues at the time that it asked for.
                due = scene.send(at if due == -math.inf else due)
            except StopIteration:
                heapq.heappop(self._scenes)
            else:
                heapq.heapreplace(self._scenes, (due, order, scene))
        return self._scenes[0][0] if self._scenes else None

    def close(self) -> None:
        """Stop all simulations."""
        for _, _, scene in self._scenes or ():
            scene.close()
        self._scenes = None

    def _open(self, scene: _Scene) -> None:
        assert self._scenes is not None
        self._scenes.append((next(scene), len(self._scenes), scene))

    def _play_case(self, case_id: str) -> _Scene:
        """Play a case until its beams may be simulated: all its beams get the same statuses."""
        step = _STEP_SECONDS / self._speed
        at = yield -math.inf
        with self._database() as database:
            database.execute(
                "INSERT INTO cases (case_id, case_path, status) VALUES (?, ?, 'pending')",
                (case_id, f"/data/demo/{case_id}"),
            )
            for beam in self._beams:
                if beam.case_id == case_id:
                    number = beam.runs[0].beam_number
                    database.execute(
                        "INSERT INTO beams (beam_id, parent_case_id, beam_path, beam_number, status, progress)"
                        " VALUES (?, ?, ?, ?, 'pending', 0.0)",
                        (beam.beam_id, case_id, f"/data/demo/{case_id}/field_{number}", number),
                    )
        for case_status, beam_status in (
            ("csv_interpreting", "csv_interpreting"),
            ("processing", "tps_generation"),
            ("processing", "pending"),
        ):
            at = yield at + step
            with self._database() as database:
                self._set_case_status(database, case_id, case_status)
                database.execute(
                    "UPDATE beams SET status = ?, updated_at = CURRENT_TIMESTAMP WHERE parent_case_id = ?",
                    (beam_status, case_id),
                )

    def _play_beam(self, beam: DemoBeam) -> _Scene:
        """Play a beam from its first start to its end, with retries."""
        step = _STEP_SECONDS / self._speed
        at = yield -math.inf
        at = yield at + beam.start_seconds / self._speed
        for number, simulation in enumerate(beam.runs):
            if number:
                at = yield at + _RETRY_AFTER_SECONDS / self._speed
                self._reset_for_retry(beam)
                at = yield at + step
            self._set_beam_status(beam, "simulation_running")
            # In this order, as the communicator does: for a moment the old log is there while the row says running.
            log = self.log_path(beam.beam_id)
            log.unlink(missing_ok=True)
            with Player(simulate(simulation), log, started_at=at, speed=self._speed) as player:
                while (due := player.step(at)) is not None:
                    at = yield due
            if player.exit_code == 0:
                self.dose_path(beam.beam_id).write_bytes(bytes(_DOSE_BYTES))
                self._set_beam_status(beam, "postprocessing")
                at = yield at + step
                self._set_beam_status(beam, "completed")
                break
            self._set_beam_status(beam, "failed", f"Simulation failed with exit code {player.exit_code}")
        self._end_case(beam.case_id)

    def _set_beam_status(self, beam: DemoBeam, status: str, error_message: str | None = None) -> None:
        with self._database() as database:
            database.execute(
                "UPDATE beams SET status = ?, error_message = COALESCE(?, error_message),"
                " updated_at = CURRENT_TIMESTAMP WHERE beam_id = ?",
                (status, error_message, beam.beam_id),
            )

    def _reset_for_retry(self, beam: DemoBeam) -> None:
        with self._database() as database:
            database.execute(
                "UPDATE beams SET status = 'pending', progress = 0.0, error_message = '',"
                " updated_at = CURRENT_TIMESTAMP WHERE beam_id = ?",
                (beam.beam_id,),
            )
            database.execute("UPDATE cases SET retry_count = retry_count + 1 WHERE case_id = ?", (beam.case_id,))

    def _end_case(self, case_id: str) -> None:
        """End a case when all its beams ended; it failed if one of them did."""
        with self._database() as database:
            rows = database.execute("SELECT status FROM beams WHERE parent_case_id = ?", (case_id,))
            statuses = {status for (status,) in rows}
            if statuses <= {"completed", "failed"}:
                self._set_case_status(database, case_id, "failed" if "failed" in statuses else "completed")

    def _set_case_status(self, database: sqlite3.Connection, case_id: str, status: str) -> None:
        database.execute(
            "UPDATE cases SET status = ?, updated_at = CURRENT_TIMESTAMP WHERE case_id = ?", (status, case_id)
        )

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one short transaction."""
        # The demo's exporter runs in this process, too, and must not check the file's locks meanwhile.
        with SQLITE_LOCK, closing(sqlite3.connect(self.database_path, timeout=_LOCKED_AT_MOST_SECONDS)) as database:
            database.execute("PRAGMA foreign_keys=ON")
            with database:
                yield database
