"""Databases as the communicator makes them, and a second process that writes them as it does."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

PLAN_BEAMS = """
CREATE TABLE beams (
    beam_id TEXT PRIMARY KEY,
    parent_case_id TEXT NOT NULL,
    beam_path TEXT NOT NULL,
    status TEXT NOT NULL,
    hpc_job_id TEXT,
    error_message TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (parent_case_id) REFERENCES cases (case_id)
)
"""
"""The table of the revision that the plan describes: no column progress."""

NEWEST_BEAMS = """
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
)
"""


def make(path: Path, beams: str = NEWEST_BEAMS) -> Path:
    """A database in WAL mode without rows."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE cases (case_id TEXT PRIMARY KEY, status TEXT NOT NULL, progress REAL DEFAULT 0.0)")
    database.execute("CREATE TABLE gpu_resources (uuid TEXT PRIMARY KEY, status TEXT, assigned_case TEXT)")
    database.execute(beams)
    database.close()
    return path


def connect(path: Path) -> Connection:
    """A connection that commits each statement."""
    return sqlite3.connect(path, timeout=10, isolation_level=None)


def execute(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """One statement in a connection of its own."""
    database = connect(path)
    try:
        return database.execute(statement, values).fetchall()
    finally:
        database.close()


def add(path: Path, beam_id: object, status: object = "simulation_running", case_id: object = "c") -> None:
    """A row."""
    execute(
        path,
        "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES (?, ?, '/data', ?)",
        beam_id,
        case_id,
        status,
    )


def progress(path: Path, beam_id: str) -> object:
    """What the column holds."""
    [(value,)] = execute(path, "SELECT progress FROM beams WHERE beam_id = ?", beam_id)
    return value


_NEIGHBOUR = """
import sqlite3, sys, time
path, seconds, finds_gpus = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "True"
database = sqlite3.connect(path, timeout=5.0, isolation_level=None)
database.execute("PRAGMA foreign_keys = ON")
database.execute("INSERT OR IGNORE INTO gpu_resources VALUES ('g', 'idle', NULL)")
errors, rounds, longest = [], 0, 0.0
end = time.monotonic() + seconds
while time.monotonic() < end:
    began = time.monotonic()
    try:
        # Every call of its repositories is a deferred transaction of its own, reads too.
        database.execute("BEGIN")
        database.execute("SELECT * FROM beams").fetchall()
        database.execute("COMMIT")
        if finds_gpus:
            # This reads and then writes in one deferred transaction, which any commit in between breaks.
            database.execute("BEGIN")
            database.execute("SELECT uuid FROM gpu_resources WHERE status = 'idle'").fetchall()
            database.execute("UPDATE gpu_resources SET status = 'idle'")
            database.execute("COMMIT")
        database.execute("BEGIN")
        database.execute("UPDATE beams SET status = 'simulation_running' WHERE status = 'simulation_running'")
        database.execute("COMMIT")
    except sqlite3.Error as error:
        errors.append(str(error))
        if database.in_transaction:
            database.execute("ROLLBACK")
    rounds += 1
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.005)
print(len(errors), rounds, longest, sorted(set(errors)))
"""


class Neighbour:
    """A process that reads and writes a database for some seconds as the communicator does.

    Args:
        path: the database.
        seconds: for how long.
        finds_gpus: whether it also looks for a free GPU each time, as it does when a beam begins.
    """

    def __init__(self, path: Path, seconds: float, *, finds_gpus: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _NEIGHBOUR, str(path), str(seconds), str(finds_gpus)],
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def result(self) -> tuple[int, int, float, str]:
        """Its errors, its rounds, the longest of them in seconds, and what its errors were."""
        output, _ = self._process.communicate(timeout=60)
        errors, rounds, longest, texts = output.strip().split(" ", 3)
        return int(errors), int(rounds), float(longest), texts


_HOLDER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT * FROM beams").fetchall()
print("open", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """Another process has the database open meanwhile, so that its ``-wal`` and ``-shm`` are there."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate("go\n", timeout=30)


_LOCKER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=5.0, isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
database.execute("UPDATE cases SET progress = 1.0")
database.execute("COMMIT")
print("done", flush=True)
"""


class Locker:
    """Another process that holds the write lock until told to let go."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "locked\n"

    def release(self) -> None:
        """Commit; fails the test if the other could not."""
        output, _ = self._process.communicate("go\n", timeout=30)
        assert output == "done\n"
        assert self._process.returncode == 0


_PROGRAM = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=5.0, isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = NORMAL")
print("open", database.execute("SELECT count(*) FROM beams").fetchone()[0], flush=True)
for line in sys.stdin:
    name, first, last, status = line.split()
    database.execute("BEGIN")
    for number in range(int(first), int(last)):
        database.execute(
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES (?, 'c', '/data', ?)",
            (f"{name}{number}", status),
        )
    database.execute("COMMIT")
    print("done", flush=True)
database.close()
print("closed", flush=True)
"""


class Program:
    """A process that keeps the database open from its start to its end, as the communicator does.

    Args:
        path: the database, which must have the tables.
        as_user: its user id; ``None`` for that of the tests.
    """

    def __init__(self, path: Path, as_user: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=as_user,
        )
        assert self._answer().startswith("open ")

    def add(self, name: str, first: int, last: int, status: str = "pending") -> None:
        """Rows ``name`` + number, in one transaction."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {first} {last} {status}\n")
        self._process.stdin.flush()
        assert self._answer() == "done\n"

    def stop(self) -> None:
        """Close the database and end."""
        output, _ = self._process.communicate(timeout=30)
        assert output == "closed\n"

    def kill(self) -> None:
        """End without closing anything."""
        self._process.kill()
        self._process.communicate(timeout=30)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def beside(path: Path) -> list[str]:
    """Names of the files that SQLite keeps beside a database, as far as they are there."""
    return sorted(each.name for each in path.parent.glob(f"{path.name}-*"))


def open_files(process: int, path: Path) -> list[str]:
    """The files of a database that a process has open."""
    found = []
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith(str(path)):
            found.append(target)
    return found


def integrity(path: Path) -> object:
    """What SQLite says of the file."""
    return execute(path, "PRAGMA integrity_check")[0][0]
