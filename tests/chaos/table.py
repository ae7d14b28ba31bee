"""The site's database, used as the communicator does, and what is done to the file meanwhile."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from tests.support import communicator_db as db

_RETRY_SECONDS = 0.1
_COLUMNS = "beam_id, parent_case_id, beam_path, status, progress, error_message, created_at, updated_at"


class Table:
    """The table ``beams`` in a file that comes and goes.

    Args:
        path: the database.
        now: the site's clock.
    """

    def __init__(self, path: Path, now: Callable[[], float]) -> None:
        self.path = path
        self._now = now
        self._lock = threading.Lock()
        self._saved: list[tuple[object, ...]] = []
        self._stamps: dict[str, str] = {}
        self.retries = 0
        db.make(path)

    def execute(self, statement: str, *values: object, then: Callable[[], object] = lambda: None) -> None:
        """One statement, tried until it works: the communicator's own troubles are not what is tested.

        ``then`` is called when it has, before anything else can happen to the file.
        """
        while True:
            try:
                with self._lock, closing(db.connect(self.path)) as database:
                    database.execute(statement, values)
                    then()
                return
            except sqlite3.Error:
                self.retries += 1
                time.sleep(_RETRY_SECONDS)

    def add(self, beam_id: str, case_id: str) -> None:
        """A beam is known, and waits."""
        self.execute(
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status, created_at, updated_at) "
            "VALUES (?, ?, '/data', 'pending', ?, ?)",
            *(beam_id, case_id, self._stamp(), self._stamp()),
        )

    def set_status(self, beam_id: str, status: str, progress: float | None = None) -> None:
        """Another status, and perhaps progress: 0 at a retry, a coarse value at a launch."""
        stamp = self._stamp()
        self.execute(
            "UPDATE beams SET status = ?, progress = coalesce(?, progress), updated_at = ? WHERE beam_id = ?",
            *(status, progress, stamp, beam_id),
            then=lambda: self._stamps.update({beam_id: stamp}),
        )

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._now(), timezone.utc).strftime("%Y-%m-%d %H:%M:%S")

    def rows(self) -> dict[str, tuple[str, float]]:
        """Status and progress of every beam.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        with closing(db.connect(self.path)) as database:
            found = database.execute("SELECT beam_id, status, progress FROM beams").fetchall()
        return {beam_id: (status, progress) for beam_id, status, progress in found}

    def integrity(self) -> str:
        """What SQLite says of the file."""
        with closing(db.connect(self.path)) as database:
            [(answer,)] = database.execute("PRAGMA integrity_check").fetchall()
            return str(answer)

    @property
    def files(self) -> list[Path]:
        """The file and those that SQLite keeps beside it, as far as they are there."""
        names = [self.path, *(self.path.with_name(f"{self.path.name}-{end}") for end in ("wal", "shm"))]
        return [path for path in names if path.exists()]

    def delete(self) -> None:
        """The file is removed as ``clear_db.sh`` does; nobody gets at it until :meth:`recreate`."""
        self._lock.acquire()
        with closing(db.connect(self.path)) as database:
            self._saved = database.execute(f"SELECT {_COLUMNS} FROM beams").fetchall()
        for path in self.files:
            path.unlink()

    def recreate(self) -> None:
        """A new file with the same beams as the communicator has written them: what the exporter wrote is not in it.

        Progress begins at 0 again where they are not over.
        """
        db.make(self.path)
        with closing(db.connect(self.path)) as database:
            database.execute("BEGIN")
            marks = ", ".join("?" * (_COLUMNS.count(",") + 1))
            database.executemany(f"INSERT INTO beams ({_COLUMNS}) VALUES ({marks})", self._saved)
            database.executemany(
                "UPDATE beams SET progress = 0.0, updated_at = ? "
                "WHERE beam_id = ? AND status NOT IN ('completed', 'failed')",
                [(stamp, beam_id) for beam_id, stamp in self._stamps.items()],
            )
            database.execute("COMMIT")
        self._lock.release()

    def replace(self, mode: int = 0o644) -> None:
        """Another file with the same rows takes its place, as after a restore."""
        with self._lock:
            restored = self.path.with_name("restored.db")
            with closing(db.connect(self.path)) as source, closing(db.connect(restored)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = WAL")
                # What is left in the old log of writes must never be taken for the new file's.
                source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for path in self.files[1:]:
                path.unlink()
            restored.chmod(mode)
            restored.rename(self.path)

    def copy(self) -> None:
        """The communicator stops, and the file is copied; nobody gets at it until :meth:`restore`."""
        self._lock.acquire()
        shutil.copy(self.path, self._backup)

    def restore(self, *, in_place: bool, remove: bool) -> None:
        """The copy takes the place of the file, and the communicator starts again.

        Args:
            in_place: ``cp`` and not ``mv``.
            remove: all files beside it are removed; else a ``-wal`` alone, which the guide asks for.
        """
        if in_place:
            shutil.copy(self._backup, self.path)
        else:
            self._backup.rename(self.path)
        for path in self.files[1:]:
            if remove or path.name.endswith("-wal"):
                path.unlink(missing_ok=True)
        self._lock.release()

    @property
    def _backup(self) -> Path:
        return self.path.with_name("backup.db")

    def allow(self) -> None:
        """Everything may be written again."""
        for path in self.files:
            path.chmod(0o644)
