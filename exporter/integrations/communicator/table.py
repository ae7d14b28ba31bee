"""Inspects the communicator's table ``beams``: it shows the revision, which the configuration does not.

The database may be in use. It is never opened: the file and its ``-wal`` are copied to a private temporary folder, and
the copy is read. So no lock is taken, and no ``-wal`` or ``-shm`` is created beside the original.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_LARGEST_BYTES = 1 << 30
_COPIES = 5
"""Number of attempts to copy a file that changes meanwhile."""
_ROWS = 500
"""Number of rows that are read, those updated last."""
_STATUSES = 20


class TableState(Enum):
    """Whether the table could be read."""

    READ = "read"
    MISSING = "missing"  # there is no such file
    UNUSABLE = "unusable"  # it cannot be read, or is no such database


@dataclass(frozen=True, slots=True)
class CommunicatorTable:
    """What was found in the table.

    Attributes:
        path: path of the database.
        state: whether it could be read.
        problem: why not.
        has_progress: whether there is a column ``progress``.
        rows: number of rows.
        values: distinct values of ``progress`` in the rows updated last.
        statuses: distinct statuses.
        job_ids: number of rows with a ``hpc_job_id``.
    """

    path: str
    state: TableState
    problem: str = ""
    has_progress: bool = False
    rows: int = 0
    values: tuple[float, ...] = ()
    statuses: tuple[str, ...] = ()
    job_ids: int = 0


def inspect_table(path: Path) -> CommunicatorTable:
    """Inspect the table ``beams`` of a database that may be in use.

    Args:
        path: the database file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return CommunicatorTable(str(path), TableState.UNUSABLE, "it is not a file")
        with tempfile.TemporaryDirectory(prefix="mqi-exporter-init-") as folder:
            copy = Path(folder) / "copy.db"
            _copy(path, copy)
            return _read(str(path), copy)
    except FileNotFoundError:
        return CommunicatorTable(str(path), TableState.MISSING, "there is no such file")
    except OSError as error:
        return CommunicatorTable(str(path), TableState.UNUSABLE, error.strerror or "it cannot be read")
    except (sqlite3.Error, ValueError) as error:
        return CommunicatorTable(str(path), TableState.UNUSABLE, str(error))


def _copy(path: Path, copy: Path) -> None:
    """Copy a database and its ``-wal`` consistently.

    Raises:
        OSError: they cannot be read, or are too large.
        ValueError: they change all the time.
    """
    files = [(Path(f"{path}{suffix}"), Path(f"{copy}{suffix}")) for suffix in ("", "-wal")]
    for _ in range(_COPIES):
        before = [_stamp(source) for source, _ in files]
        if sum(each[0] for each in before if each is not None) > _LARGEST_BYTES:
            raise ValueError(f"it is larger than {_LARGEST_BYTES >> 20} MiB")
        for source, target in files:
            target.unlink(missing_ok=True)
            if source == path or source.exists():
                with contextlib.suppress(FileNotFoundError) if source != path else contextlib.nullcontext():
                    shutil.copyfile(source, target)
        if before == [_stamp(source) for source, _ in files]:
            return
    raise ValueError("it is written all the time; try again when no simulation runs")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return size, time and identity of a file; ``None`` if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _read(path: str, copy: Path) -> CommunicatorTable:
    connection = sqlite3.connect(copy)
    try:
        columns = {str(row[1]) for row in connection.execute("PRAGMA table_info(beams)")}
        if not {"beam_id", "status"} <= columns:
            return CommunicatorTable(path, TableState.UNUSABLE, "it has no table beams of the communicator")
        [[rows]] = connection.execute("SELECT COUNT(*) FROM beams")
        values: list[float] = []
        if "progress" in columns:
            order = "updated_at DESC" if "updated_at" in columns else "rowid DESC"
            found = connection.execute(
                f"SELECT progress FROM (SELECT progress FROM beams ORDER BY {order} LIMIT {_ROWS}) "
                "WHERE typeof(progress) IN ('real', 'integer')"
            )
            values = sorted({float(value) for (value,) in found})
        job_ids = 0
        if "hpc_job_id" in columns:
            [[job_ids]] = connection.execute("SELECT COUNT(*) FROM beams WHERE COALESCE(hpc_job_id, '') <> ''")
        statuses = connection.execute(
            f"SELECT DISTINCT substr(status, 1, 100) FROM beams WHERE typeof(status) = 'text' LIMIT {_STATUSES}"
        )
        return CommunicatorTable(
            path,
            TableState.READ,
            has_progress="progress" in columns,
            rows=rows,
            values=tuple(values),
            statuses=tuple(sorted(str(status) for (status,) in statuses)),
            job_ids=job_ids,
        )
    finally:
        connection.close()
