"""Errors of the communicator's database, each with advice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_ADVICE = {
    "missing": "it is never created; check database.path, and whether the communicator has been started",
    "folder": "name the database file in it (database.path)",
    "locked": "another process writes; the exporter tries again",
    "read_only": "let the exporter's user write the file, its -wal and -shm, and their folder "
    "(docs/operations.md, Rights that last)",
    "permission": "let the exporter's user read and write the file, its -wal and -shm, and their folder "
    "(docs/operations.md, Rights that last)",
    "corrupt": "check it with `sqlite3 FILE 'PRAGMA integrity_check'`",
    "not_a_database": "check database.path",
    "no_table": "check database.path: the communicator creates the table at its first start",
    "no_column": "run `mqi-exporter migrate`, or set database.migrate to true",
    "disk_full": "free space on its file system",
    "changing": "the exporter tries again",
    "unfinished": "its -wal or -journal is applied when the communicator starts, or when the files have been unchanged "
    "for a few seconds",
    "not_its_wal": "start the communicator again; if it is stopped and the database was restored from a backup, remove "
    "the -wal and -shm beside it first (docs/operations.md, Backup)",
    "too_slow": "is `beams` a view, or does it have triggers?",
    "too_large": "is there a very long value in the table beams?",
    "other": "the exporter tries again",
}


class DatabaseUnavailable(Exception):
    """The database cannot be used now.

    Args:
        kind: ``missing``, ``folder``, ``locked``, ``read_only``, ``permission``, ``corrupt``, ``not_a_database``,
            ``no_table``, ``no_column``, ``disk_full``, ``changing`` (another program writes over the file),
            ``unfinished`` (a killed process has left a ``-wal`` or ``-journal``), ``not_its_wal`` (one that belongs to
            another file), ``too_slow``, ``too_large`` or ``other``.
        message: what failed, with the file.
        advice: what the operator can do.
    """

    def __init__(self, kind: str, message: str, advice: str) -> None:
        super().__init__(f"{message}; {advice}")
        self.kind = kind
        self.advice = advice


def database_error(kind: str, action: str, path: Path, reason: str) -> DatabaseUnavailable:
    """Make the error for a failed action.

    Args:
        kind: see :class:`DatabaseUnavailable`.
        action: what failed, as in "cannot ACTION FILE".
        path: the file.
        reason: message of the system or of SQLite.
    """
    return DatabaseUnavailable(kind, f"cannot {action} {path}: {reason}", _ADVICE[kind])


def kind_of_os_error(error: OSError) -> str:
    """Map an error of the file system to a kind of :class:`DatabaseUnavailable`."""
    match error:
        case FileNotFoundError():
            return "missing"
        case IsADirectoryError():
            return "folder"
        case _:
            return "permission"


def kind_of_sqlite_error(error: sqlite3.Error) -> str:
    """Map an error of SQLite to a kind. It uses the messages, which are stable; error codes need Python 3.11."""
    text = str(error)
    for phrase, kind in (
        ("locked", "locked"),
        ("busy", "locked"),
        ("readonly", "read_only"),
        ("malformed", "corrupt"),
        ("not a database", "not_a_database"),
        ("no such table", "no_table"),
        ("no such column", "no_column"),
        ("is full", "disk_full"),
        ("unable to open", "permission"),
        ("interrupted", "too_slow"),
    ):
        if phrase in text:
            return kind
    return "other"
