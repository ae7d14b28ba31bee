"""The database is open only during a use, and an incomplete file is not opened."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.database import files
from exporter.database.beams_table import BeamsTable
from exporter.database.database_file import QUIET_SECONDS, DatabaseFile
from exporter.database.files import FileUser
from exporter.database.table import ProgressUpdate
from exporter.database.unavailable import DatabaseUnavailable
from tests.support import communicator_db as db
from tests.support.files import open_the_way_to, unprivileged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = db.make(tmp_path / "mqi.db")
    db.add(path, "b")
    return path


class Site:
    """A table whose file only this process uses, with a manual clock."""

    def __init__(self, path: Path) -> None:
        self.at = 0.0
        self.file = DatabaseFile(path, alone_in_process=True, timer=lambda: self.at)
        self.table = BeamsTable(path, file=self.file)

    def count(self) -> int:
        return len(self.table.rows())

    def kind(self) -> str:
        """Return the error when the table is used."""
        with pytest.raises(DatabaseUnavailable) as caught:
            self.table.rows()
        with pytest.raises(DatabaseUnavailable) as also:
            self.table.write([ProgressUpdate("b", 5.0)])
        assert also.value.kind == caught.value.kind
        return caught.value.kind


@pytest.fixture
def site(path: Path) -> Site:
    return Site(path)


def backup_of(path: Path, rows: int) -> Path:
    """Another database with other beams."""
    other = db.make(path.with_name("backup.db"))
    for number in range(rows):
        db.add(other, f"restored{number}")
    return other


class TestBetweenUses:
    def test_no_file_of_the_database_is_open_or_left_behind_between_uses(self, path: Path, site: Site) -> None:
        site.table.rows()
        site.table.write([ProgressUpdate("b", 5.0)])
        assert db.open_files(os.getpid(), path) == []
        assert db.beside(path) == []

    def test_the_communicator_completes_its_file_when_it_stops(self, path: Path, site: Site) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 100)
        site.table.write([ProgressUpdate("b", 5.0)])
        assert site.count() == 101
        communicator.stop()
        assert db.beside(path) == []
        copy = shutil.copy(path, path.with_name("copy.db"))
        assert db.execute(Path(copy), "SELECT count(*), max(progress) FROM beams") == [(101, 5.0)]

    def test_the_exporter_completes_the_file_if_the_communicator_stopped_during_a_use(
        self, path: Path, site: Site
    ) -> None:
        communicator = db.Program(path)
        with site.file.use("read") as connection:
            connection.execute("SELECT * FROM beams").fetchall()
            communicator.add("new", 0, 100)
            communicator.stop()
            assert db.beside(path) != []
        assert db.beside(path) == []
        assert db.execute(path, "SELECT count(*) FROM beams") == [(101,)]

    def test_the_journal_mode_can_be_changed_and_stays_changed(self, path: Path, site: Site) -> None:
        assert site.count() == 1
        assert db.execute(path, "PRAGMA journal_mode = DELETE") == [("delete",)]
        assert site.table.write([ProgressUpdate("b", 5.0)]).written == {"b"}
        assert db.execute(path, "PRAGMA journal_mode") == [("delete",)]


class TestFindUser:
    def test_an_idle_communicator_is_a_user_until_it_stops(self, path: Path) -> None:
        assert files.find_user(path) is FileUser.NOBODY
        communicator = db.Program(path)
        assert files.find_user(path) is FileUser.OTHERS
        communicator.stop()
        assert files.find_user(path) is FileUser.NOBODY

    def test_a_killed_communicator_is_no_user(self, path: Path) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 1)
        communicator.kill()
        assert db.beside(path) == ["mqi.db-shm", "mqi.db-wal"]
        assert files.find_user(path) is FileUser.NOBODY

    def test_locks_of_this_process_are_kept_if_it_uses_the_database_itself(self, path: Path, site: Site) -> None:
        """Closing any descriptor of a file gives up all locks of a process on it: see fcntl(2)."""
        with contextlib.closing(db.connect(path)) as ours:
            ours.execute("BEGIN IMMEDIATE")
            assert site.count() == 1
            assert _try_to_write(path) == "database is locked"
            assert site.count() == 1
            assert _try_to_write(path) == "database is locked"
            ours.execute("COMMIT")


def _try_to_write(path: Path) -> str:
    script = (
        "import sqlite3, sys\ndatabase = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try: database.execute(\"UPDATE beams SET status = 'x'\")\nexcept sqlite3.Error as error: print(error, end='')"
    )
    return subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout


class TestAfterAKill:
    @pytest.fixture(autouse=True)
    def killed(self, path: Path, site: Site) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 100)
        assert site.count() == 101
        communicator.kill()

    def test_a_wal_is_applied_only_after_the_files_stop_changing(self, path: Path, site: Site) -> None:
        before = path.read_bytes()
        assert site.kind() == "unfinished"
        site.at += QUIET_SECONDS - 0.1
        assert site.kind() == "unfinished"
        assert (path.read_bytes(), db.beside(path)) == (before, ["mqi.db-shm", "mqi.db-wal"])
        site.at += 0.2
        assert site.count() == 101
        assert db.beside(path) == []
        assert db.integrity(path) == "ok"

    def test_an_old_wal_is_applied_without_waiting(self, path: Path) -> None:
        for name in (path.name, *db.beside(path)):
            os.utime(path.with_name(name), (0, 0))
        with pytest.raises(DatabaseUnavailable, match="a process that wrote it was killed"):
            BeamsTable(path, alone_in_process=True).rows()

    def test_there_is_no_wait_if_the_communicator_has_started_again(self, path: Path, site: Site) -> None:
        assert site.kind() == "unfinished"
        communicator = db.Program(path)
        assert site.count() == 101
        communicator.stop()

    @pytest.mark.parametrize("in_place", [True, False])
    def test_the_wal_of_the_previous_file_is_never_applied_to_a_restored_one(
        self, path: Path, site: Site, in_place: bool
    ) -> None:
        backup = backup_of(path, 30)
        if in_place:
            shutil.copy(backup, path)
        else:
            backup.rename(path)
        restored = path.read_bytes()
        for _ in range(3):
            assert site.kind() == "not_its_wal"
            site.at += 100.0
        assert path.read_bytes() == restored
        for name in db.beside(path):
            path.with_name(name).unlink()
        assert site.count() == 30
        assert db.integrity(path) == "ok"

    def test_a_restored_file_whose_wal_was_removed_first_is_read_at_once(self, path: Path, site: Site) -> None:
        backup = backup_of(path, 30)
        for name in db.beside(path):
            path.with_name(name).unlink()
        shutil.copy(backup, path)
        assert site.count() == 30


def test_the_files_beside_the_target_of_a_link_are_checked(tmp_path: Path, path: Path) -> None:
    """SQLite keeps them beside the link's target."""
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(path)
    site = Site(link)
    communicator = db.Program(link)
    communicator.add("new", 0, 100)
    assert files.find_user(link) is FileUser.OTHERS
    assert site.count() == 101
    communicator.kill()
    assert site.kind() == "unfinished"


class TestReplaced:
    def test_a_file_moved_over_that_of_a_running_communicator_is_not_opened_before_it_ends(self, path: Path) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 100)
        backup = backup_of(path, 30)
        restored = backup.read_bytes()
        backup.rename(path)
        for site in (Site(path), Site(path)):  # a new exporter process knows nothing of the file before
            site.at += 100.0
            assert site.kind() == "not_its_wal"
        communicator.add("more", 0, 1)
        assert site.kind() == "not_its_wal"
        communicator.stop()
        # SQLite does not remove the -wal if another database is at the path.
        assert "mqi.db-wal" in db.beside(path)
        site.at += 100.0
        assert site.kind() == "not_its_wal"
        assert path.read_bytes() == restored
        path.with_name("mqi.db-wal").unlink()
        assert site.count() == 30
        assert db.integrity(path) == "ok"

    def test_a_new_file_with_the_inode_of_the_old_one_is_detected(self, path: Path, site: Site) -> None:
        generation = site.file.generation
        path.unlink()
        db.make(path)
        assert site.file.generation == generation + 1

    def test_an_unfinished_copy_is_not_reported_as_corrupt(self, path: Path, site: Site) -> None:
        assert site.count() == 1
        whole = backup_of(path, 300).read_bytes()
        for size in (0, 100, 4096, len(whole) // 2):
            path.write_bytes(whole[:size])
            assert site.kind() == "changing"
        path.write_bytes(whole)
        assert site.count() == 300

    def test_a_copy_that_stays_unfinished_is_finally_reported_as_corrupt(self, path: Path, site: Site) -> None:
        assert site.count() == 1
        path.write_bytes(backup_of(path, 300).read_bytes()[:20_000])
        assert site.kind() == "changing"
        site.at += 100.0
        assert site.kind() == "corrupt"

    def test_rows_read_during_a_copy_are_discarded(self, path: Path, site: Site) -> None:
        backup = backup_of(path, 30)
        with pytest.raises(DatabaseUnavailable) as caught, site.file.use("read"):
            shutil.copy(backup, path)
        assert caught.value.kind == "changing"
        assert site.count() == 30

    def test_nothing_is_written_into_a_file_that_is_being_copied_over(
        self, path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backup = backup_of(path, 30)
        db.add(backup, "b")
        write_one = BeamsTable._write_one

        def copied_first(table: BeamsTable, connection: sqlite3.Connection, update: ProgressUpdate) -> bool:
            changed = write_one(table, connection, update)
            shutil.copy(backup, path)
            return changed

        with monkeypatch.context() as patched:
            patched.setattr(BeamsTable, "_write_one", copied_first)
            with pytest.raises(DatabaseUnavailable) as caught:
                site.table.write([ProgressUpdate("b", 5.0)])
        assert caught.value.kind == "changing"
        assert path.read_bytes() == backup.read_bytes()
        assert site.count() == 31


class TestReadOnlyAccount:
    @pytest.fixture(autouse=True)
    def readable(self, tmp_path: Path, path: Path) -> None:
        open_the_way_to(tmp_path)
        tmp_path.chmod(0o777)  # here SQLite would make a -wal and a -shm that nobody else may write
        path.chmod(0o644)

    def test_a_read_only_account_reads_an_unused_database_and_leaves_no_file(self, path: Path, site: Site) -> None:
        with unprivileged():
            assert site.count() == 1
        assert db.beside(path) == []

    def test_a_read_only_account_reads_beside_the_communicator(self, path: Path, site: Site) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 100)
        with unprivileged():
            assert site.count() == 101
        assert {path.with_name(name).stat().st_uid for name in db.beside(path)} == {os.getuid()}
        communicator.stop()
        assert db.beside(path) == []

    def test_a_read_only_account_creates_no_shm_for_the_wal_of_a_killed_process(self, path: Path, site: Site) -> None:
        communicator = db.Program(path)
        communicator.add("new", 0, 100)
        communicator.kill()
        path.with_name("mqi.db-shm").unlink()
        with unprivileged():
            site.file.generation  # noqa: B018 - it looks at the files
            site.at += 100.0
            with pytest.raises(DatabaseUnavailable) as caught:
                site.count()
        assert caught.value.kind == "unfinished"
        assert db.beside(path) == ["mqi.db-wal"]

    def test_the_error_names_the_file_without_write_permission_and_nothing_changes(
        self, path: Path, site: Site
    ) -> None:
        with unprivileged(), pytest.raises(DatabaseUnavailable) as caught:
            site.table.write([ProgressUpdate("b", 5.0)])
        assert caught.value.kind == "read_only"
        assert f"this account may not write {path}; let the exporter's user write" in str(caught.value)
        assert db.beside(path) == []

    def test_the_error_says_if_a_new_file_is_the_reason(self, path: Path, site: Site) -> None:
        path.chmod(0o666)
        with unprivileged():
            site.table.write([ProgressUpdate("b", 5.0)])
        path.unlink()
        db.make(path)
        with unprivileged(), pytest.raises(DatabaseUnavailable) as caught:
            site.table.write([ProgressUpdate("b", 6.0)])
        assert caught.value.kind == "read_only"
        assert "the file is new, and SQLite lets only the owner of a new file write it" in str(caught.value)
        assert "Rights that last" in str(caught.value)
