"""What an operator may do to the communicator's database while the exporter runs: docs/operations.md, Backup.

A real exporter looks at the database many times a second and mirrors the progress of a beam into it, whose log grows
all the time. Whatever is done, the file is whole afterwards, the exporter shows what is in it and writes into it, and
no process keeps anything of it open.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for

ROWS = 100
BACKUP_ROWS = 300
BATCHES = 100_000


class Site:
    """A communicator with a running beam, and an exporter beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = db.make(folder / "mqi_communicator.db")
        self.log = folder / "running.log"
        self.log.write_bytes(b"Generating particles for (1 of %d batches) in CPU ..\n" % BATCHES)
        self._batch = 1
        self._ended = threading.Event()
        self._engine = threading.Thread(target=self._compute)
        db.add(self.path, "running")
        self.communicator = db.Program(self.path)
        config = folder / "exporter.yaml"
        config.write_text(
            f"base_directory: {folder}\n"
            f"sources: [{{name: local, log_path: '{folder}/{{beam_id}}.log'}}]\n"
            f"database: {{path: {self.path}}}\n"
            "discovery: {interval_seconds: 0.1}\n"
            "mirror: {minimum_interval_seconds: 0.1}\n"
            "progress_tracking: {monitoring: {poll_interval_seconds: 0.1, update_throttle_percent: 0}}\n"
            "web: {listen_address: '127.0.0.1:0'}\n",
            encoding="utf-8",
        )
        self.exporter = ExporterProcess("--config.file", config)

    def __enter__(self) -> Site:
        self._engine.start()
        self.communicator.add("old", 0, ROWS)
        self.shows("old", ROWS)
        self.is_mirrored()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._engine.join()
        self.communicator.kill()
        self.exporter.__exit__(None, None, None)

    def _compute(self) -> None:
        """The engine lives on whatever becomes of the communicator."""
        while not self._ended.wait(0.05):
            self._batch += 50
            with self.log.open("ab") as log:
                log.write(b"Generating particles for (%d of %d batches) in CPU ..\n" % (self._batch, BATCHES))

    def make_backup(self) -> Path:
        """Another database: other beams, and the running one as it was once."""
        backup = db.make(self.folder / "backup.db")
        with closing(db.connect(backup)) as database:
            database.execute("BEGIN")
            beams = [("running", "simulation_running"), *((f"restored{n}", "pending") for n in range(BACKUP_ROWS))]
            database.executemany(
                "INSERT INTO beams (beam_id, parent_case_id, beam_path, status, updated_at) "
                "VALUES (?, 'c', '/data', ?, '2020-01-01 00:00:00')",
                beams,
            )
            database.execute("COMMIT")
        return backup

    def start_communicator(self) -> None:
        self.communicator = db.Program(self.path)

    def shows(self, name: str, rows: int) -> None:
        """Wait until the exporter shows so many beams of a name."""

        def shown() -> bool:
            found = [dict(labels)["beam_id"] for metric, labels in self.exporter.metrics() if metric == "mqi_beam_info"]
            return len([beam_id for beam_id in found if beam_id.startswith(name)]) == rows

        wait_for(shown, f"{rows} beams {name}")

    def is_mirrored(self) -> None:
        """Wait until the exporter has written into the file that is there now."""
        before = db.progress(self.path, "running") or 0.0
        wait_for(lambda: (db.progress(self.path, "running") or 0.0) > before, "progress in the column")  # type: ignore[operator]

    def is_whole(self, name: str, rows: int) -> None:
        """The file holds what it should, the exporter shows it and goes on, and keeps nothing open."""
        assert db.integrity(self.path) == "ok"
        [(found,)] = db.execute(self.path, "SELECT count(*) FROM beams WHERE beam_id LIKE ?", f"{name}%")
        assert found == rows
        self.shows(name, rows)
        self.is_mirrored()
        assert db.integrity(self.path) == "ok"
        open_at = [bool(db.open_files(self.exporter.pid, self.path)) for _ in _moments(50)]
        assert not all(open_at), "it has the database open all the time"
        assert open_at.count(False) > len(open_at) / 2, "it has the database open most of the time"


def _moments(number: int) -> Iterator[int]:
    for each in range(number):
        time.sleep(0.013)
        yield each


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def remove_beside(site: Site) -> None:
    for name in db.beside(site.path):
        site.path.with_name(name).unlink(missing_ok=True)


def keep_beside(_: Site) -> None:
    pass


def copy_over(backup: Path, path: Path) -> None:
    subprocess.run(["cp", str(backup), str(path)], check=True, timeout=60)


def move_over(backup: Path, path: Path) -> None:
    subprocess.run(["mv", str(backup), str(path)], check=True, timeout=60)


Way = Callable[[Path, Path], None]
Beside = Callable[[Site], None]


@pytest.mark.parametrize("times", [3])
def test_a_copy_of_the_file_alone_is_complete_when_the_communicator_has_stopped(site: Site, times: int) -> None:
    for number in range(times):
        site.communicator.add(f"more{number}x", 0, ROWS)
        site.communicator.stop()
        # The exporter may have been reading at that moment: then it is the one that completes the file.
        wait_for(lambda: db.beside(site.path) == [], "no -wal", 1.0)
        copy = Path(shutil.copy(site.path, site.folder / f"copy{number}.db"))
        assert db.integrity(copy) == "ok"
        assert db.execute(copy, "SELECT count(*) FROM beams") == [(1 + (2 + number) * ROWS,)]
        site.start_communicator()
    site.is_whole("more0x", ROWS)


@pytest.mark.parametrize("beside", [remove_beside, keep_beside])
@pytest.mark.parametrize("way", [copy_over, move_over])
def test_a_backup_may_take_the_place_of_the_file_when_the_communicator_has_stopped(
    site: Site, way: Way, beside: Beside
) -> None:
    backup = site.make_backup()
    site.communicator.stop()
    way(backup, site.path)
    beside(site)
    site.is_whole("restored", BACKUP_ROWS)
    site.start_communicator()
    site.communicator.add("later", 0, 5)
    site.is_whole("restored", BACKUP_ROWS)


@pytest.mark.parametrize("way", [copy_over, move_over])
@pytest.mark.parametrize("pause_seconds", [0.0, 1.0])
def test_a_backup_may_take_its_place_after_a_kill_where_wal_and_shm_are_removed_then(
    site: Site, way: Way, pause_seconds: float
) -> None:
    backup = site.make_backup()
    site.communicator.add("lost", 0, ROWS)
    site.communicator.kill()
    way(backup, site.path)
    # However often the exporter looks meanwhile, it must not apply the -wal of the file before.
    time.sleep(pause_seconds)
    remove_beside(site)
    site.is_whole("restored", BACKUP_ROWS)


def test_what_a_killed_communicator_had_committed_is_in_the_file_soon(site: Site) -> None:
    site.communicator.add("last", 0, ROWS)
    site.communicator.kill()
    wait_for(lambda: db.beside(site.path) == [], "the -wal taken in")
    site.is_whole("last", ROWS)


def test_sqlites_own_backup_is_complete_while_everything_runs(site: Site) -> None:
    target = site.folder / "backup.db"
    subprocess.run(["sqlite3", str(site.path), f".backup '{target}'"], check=True, timeout=60)
    assert db.integrity(target) == "ok"
    assert db.execute(target, "SELECT count(*) FROM beams") == [(1 + ROWS,)]
    site.is_whole("old", ROWS)


def test_vacuum_into_is_complete_while_everything_runs(site: Site) -> None:
    target = site.folder / "backup.db"
    db.execute(site.path, f"VACUUM INTO '{target}'")
    assert db.integrity(target) == "ok"
    assert db.execute(target, "SELECT count(*) FROM beams") == [(1 + ROWS,)]
    site.is_whole("old", ROWS)


@pytest.mark.parametrize("times", [3])
def test_the_database_may_be_deleted_and_made_anew(site: Site, times: int) -> None:
    """As the communicator's ``clear_db.sh`` does."""
    for number in range(times):
        site.communicator.stop()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{site.path}{suffix}").unlink(missing_ok=True)
        db.make(site.path)
        db.add(site.path, "running")
        site.start_communicator()
        site.communicator.add(f"new{number}x", 0, 10)
    site.is_whole(f"new{times - 1}x", 10)


def test_the_journal_mode_may_be_changed_when_the_communicator_has_stopped(site: Site) -> None:
    site.communicator.stop()

    def changed() -> bool:
        # The shell waits for nobody; the exporter may be reading at the very moment.
        said = subprocess.run(
            ["sqlite3", str(site.path), "PRAGMA journal_mode = DELETE"], capture_output=True, text=True, check=False
        )
        return said.stdout.strip() == "delete"

    wait_for(changed, "another journal mode", 2.0)
    site.is_whole("old", ROWS)
    assert db.execute(site.path, "PRAGMA journal_mode") == [("delete",)]


def test_a_file_moved_over_that_of_a_running_communicator_is_left_alone_until_it_has_ended(site: Site) -> None:
    backup = site.make_backup()
    restored = backup.read_bytes()
    move_over(backup, site.path)
    wait_for(lambda: site.exporter.said("kind=not_its_wal"), "a word about it")
    site.communicator.add("unseen", 0, 10)
    assert site.path.read_bytes() == restored
    site.communicator.stop()
    remove_beside(site)
    site.is_whole("restored", BACKUP_ROWS)


def test_nothing_is_opened_while_nothing_changes(site: Site) -> None:
    site._ended.set()
    site._engine.join()

    def is_left_alone() -> bool:
        return not any(db.open_files(site.exporter.pid, site.path) for _ in _moments(50))

    wait_for(is_left_alone, "a second without a look into the database")
    site.communicator.add("news", 0, 10)
    site.shows("news", 10)


def test_a_connection_of_the_communicator_is_closed_as_without_us(site: Site) -> None:
    site.communicator.stop()
    wait_for(lambda: db.beside(site.path) == [], "no -wal and no -shm")
    with closing(sqlite3.connect(f"file:{site.path}?mode=ro&immutable=1", uri=True)) as file_alone:
        assert file_alone.execute("SELECT count(*) FROM beams").fetchone() == (1 + ROWS,)
