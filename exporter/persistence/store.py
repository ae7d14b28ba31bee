"""The exporter's own SQLite database: where each beam is, the counters, and the history of runs.

One process writes it, under a :class:`~exporter.persistence.lock.LockFile`; others may read it meanwhile (write-ahead
log). The content of the file is not trusted: each row has a checksum and is validated when it is decoded
(:mod:`exporter.persistence.codec`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter import __version__
from exporter.beams.saved import StoreChanges, StoredState
from exporter.beams.snapshot import BeamKey, EndedRun
from exporter.persistence.codec import Codec
from exporter.persistence.errors import StateNotOurs, StateNotSaved, StateOutdated, StateReadable, StateUnusable
from exporter.privacy.encryption import Encryption

VERSION = 1
"""``user_version`` of the database. Goes up when a store is no longer what it was; others are not read."""

STATE_VERSION = 1
"""Goes up when the saved fields of beams or counters get another meaning; the history of runs stays then."""

_PLAIN_ID, _ENCRYPTED_ID = 0x4D514950, 0x4D514945
"""``application_id`` of the database, in its head: readable also where the rest is damaged."""

_SQLITE_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 100
_BUSY_SECONDS = 5.0
"""Readers do not hold up a writer in a write-ahead log; only ``VACUUM`` of a person does."""
_ENDED_READ = 200
_COMPANIONS = ("", "-wal", "-shm", "-journal")

_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE parts (name TEXT PRIMARY KEY, state NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE beams (
    id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, beam_id TEXT NOT NULL, state NOT NULL, checksum INTEGER NOT NULL,
    UNIQUE (case_id, beam_id)
);
CREATE TABLE forgotten (
    id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, beam_id TEXT NOT NULL, state NOT NULL, checksum INTEGER NOT NULL,
    UNIQUE (case_id, beam_id)
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, case_id TEXT NOT NULL, beam_id TEXT NOT NULL, ended_at REAL NOT NULL,
    run NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE notifications (
    destination TEXT NOT NULL, key TEXT NOT NULL, sent_at REAL NOT NULL, PRIMARY KEY (destination, key)
) WITHOUT ROWID;
CREATE INDEX runs_of_case ON runs (case_id);
CREATE INDEX runs_by_end ON runs (ended_at);
"""

_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What the module raises for a damaged file; its messages may show bytes of the file."""


def is_plain(path: Path) -> bool:
    """Whether a store exists that is not marked as encrypted, for instance because its first bytes are damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return False
    return int.from_bytes(head[68:72], "big") != _ENCRYPTED_ID


def _reason(error: Exception) -> str:
    """Why a store cannot be used, without anything that stands in it."""
    if isinstance(error, sqlite3.OperationalError | StateUnusable):
        return str(error)
    return error.strerror or "cannot be read" if isinstance(error, OSError) else "is damaged"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove(path: Path, *, keep_main: bool = False) -> None:
    """Delete a database and what SQLite keeps beside it, the main file last."""
    for name in reversed(_COMPANIONS[1:] if keep_main else _COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{name}")


class StateStore:
    """The database file. Used by one thread at a time.

    Args:
        path: the file; its folder must exist.
        encryption: encrypts what is written; nothing is encrypted without.
    """

    def __init__(self, path: Path, encryption: Encryption | None = None) -> None:
        self.path = path
        self._codec = Codec(encryption)
        self._application_id = _PLAIN_ID if encryption is None else _ENCRYPTED_ID
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._parts: dict[str, bytes] = {}
        self._plain = False

    # Reading

    def read(self) -> StoredState | None:
        """Return the state written last; ``None`` if the file is missing or empty.

        A store that is not encrypted although it should be is encrypted by the next write.

        Raises:
            StateReadable: it cannot be used, and is not encrypted although it should be.
            StateNotOurs: another program's file is at the path; it must not be changed.
            StateUnusable: it is damaged, of another version, or encrypted with another key.
        """
        application_id = self._application_id_of_file()
        if application_id is None:
            return None
        self._plain = application_id == _PLAIN_ID != self._application_id
        try:
            if self._plain:
                with contextlib.closing(self._connect()) as database:
                    return self._read(database, Codec(None))
            if application_id != self._application_id:
                raise StateUnusable("is encrypted, and privacy.identifiers is plain: there is no key to open it")
            return self._read(self._open(), self._codec)
        except StateOutdated:
            raise
        except (*_SQLITE_ERRORS, OSError, StateUnusable) as error:
            self.close()
            raise (StateReadable if self._plain else StateUnusable)(_reason(error)) from None

    def _application_id_of_file(self) -> int | None:
        """The id in the file's head; ``None`` where there is no file, or an empty one.

        Raises:
            StateNotOurs, StateUnusable: as of :meth:`read`.
        """
        try:
            # A pipe at the path must not hold up the start.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnusable(f"cannot be read: {error.strerror}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise StateNotOurs("is not a file")
            head = os.read(descriptor, _HEAD_BYTES)
        finally:
            os.close(descriptor)
        if not head:
            return None
        application_id = int.from_bytes(head[68:72], "big")
        if not head.startswith(_SQLITE_MAGIC):
            raise StateUnusable("was not written by this exporter, or its beginning is damaged")
        if len(head) < _HEAD_BYTES:
            raise StateUnusable("is cut off")
        if application_id not in (_PLAIN_ID, _ENCRYPTED_ID):
            raise StateNotOurs("is an SQLite database")
        if status.st_uid not in (os.geteuid(), 0):
            raise StateUnusable("belongs to another user")
        return application_id

    def _read(self, database: sqlite3.Connection, codec: Codec) -> StoredState:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            newer = "a newer" if version > VERSION else "another"
            raise StateUnusable(f"was written by {newer} exporter (version {version}, not {VERSION})")
        if database.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",):
            raise StateUnusable("is damaged")
        [state_version] = database.execute("SELECT value FROM about WHERE name = 'state_version'").fetchone() or [b""]
        if state_version != b"%d" % STATE_VERSION:
            raise StateOutdated("was written by an exporter of another version")
        parts = database.execute("SELECT name, state, checksum FROM parts")
        self._parts = {
            name.decode(errors="replace"): codec.decode(state, checksum, b"parts", name)
            for name, state, checksum in parts
        }
        last = "SELECT case_id, beam_id, run, checksum FROM runs ORDER BY id DESC LIMIT ?"
        ended = [codec.decode_run(row) for row in database.execute(last, (_ENDED_READ,))]
        return StoredState(
            dict(self._parts), _states(database, codec, "beams"), _states(database, codec, "forgotten"), ended[::-1]
        )

    # Writing

    @property
    def needs_everything(self) -> bool:
        """Whether the next write must hold the whole state, because the file is missing or has been replaced."""
        return self._database is None or _identity(self.path) != self._file

    def write(self, changes: StoreChanges, *, forget_runs_before: float | None = None) -> None:
        """Write changes, all of them or none.

        Args:
            changes: what has changed since the last write; everything where :attr:`needs_everything`.
            forget_runs_before: runs that ended before this time (epoch seconds) are deleted; ``None`` deletes none.

        Raises:
            StateNotSaved: they cannot be written now; the earlier state is still there.
            StateUnusable: the file is damaged, or not a store.
        """
        try:
            if self.needs_everything:
                self.close()
                if self._plain or self._application_id_of_file() != self._application_id:
                    self._create()
                self._parts = {}
            self._write(self._open(), changes, forget_runs_before)
        except (sqlite3.OperationalError, OSError) as error:
            self.close()
            raise StateNotSaved(_reason(error)) from error
        except _SQLITE_ERRORS as error:
            self.close()
            raise StateUnusable(_reason(error)) from error

    def _create(self) -> None:
        """Put a new store in the place of what stood there; the history of one that was not encrypted goes on."""
        beside = self.path.with_name(f"{self.path.name}.new")
        _remove(beside)
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as database:
                database.executescript(
                    "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL;"
                    f"PRAGMA application_id = {self._application_id}; PRAGMA user_version = {VERSION};"
                    f"BEGIN; {_SCHEMA}"
                )
                about = (("exporter", __version__), ("state_version", str(STATE_VERSION)))
                database.executemany("INSERT INTO about VALUES (?, ?)", about)
                if self._plain:
                    with contextlib.closing(self._connect()) as plain:
                        self._write_runs(database, _runs(plain, Codec(None)))
                database.execute("COMMIT")
                database.execute("PRAGMA journal_mode = WAL")
            _remove(self.path, keep_main=True)
            os.replace(beside, self.path)
        except BaseException:
            _remove(beside)
            raise
        self._plain = False
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, database: sqlite3.Connection, changes: StoreChanges, forget_runs_before: float | None) -> None:
        database.execute("BEGIN IMMEDIATE")
        try:
            for table, states in (("beams", changes.beams), ("forgotten", changes.forgotten)):
                for key, state in states.items():
                    self._write_state(database, table, key, state)
            for name, state in changes.parts.items():
                if self._parts.get(name) != state:
                    row = (name, *self._codec.encode(state, "parts", name))
                    database.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?)", row)
            self._write_runs(database, changes.ended)
            if forget_runs_before is not None:
                database.execute("DELETE FROM runs WHERE ended_at < ?", (forget_runs_before,))
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        self._parts = changes.parts

    def _write_state(self, database: sqlite3.Connection, table: str, key: BeamKey, state: bytes | None) -> None:
        ids = self._codec.ids(key)
        if state is None:
            database.execute(f"DELETE FROM {table} WHERE case_id = ? AND beam_id = ?", ids)
            return
        if table == "forgotten":  # a beam that leaves again is the last one
            database.execute("DELETE FROM forgotten WHERE case_id = ? AND beam_id = ?", ids)
        database.execute(
            f"INSERT INTO {table} (case_id, beam_id, state, checksum) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET state = excluded.state, checksum = excluded.checksum",
            (*ids, *self._codec.encode(state, table, *ids)),
        )

    def _write_runs(self, database: sqlite3.Connection, runs: Iterable[EndedRun]) -> None:
        for run in runs:
            ids = self._codec.ids(run.key)
            row = (*ids, run.ended_at, *self._codec.encode_run(run, *ids))
            database.execute("INSERT INTO runs (case_id, beam_id, ended_at, run, checksum) VALUES (?, ?, ?, ?, ?)", row)

    def close(self) -> None:
        """Close the file; nothing else may use it then."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def drop_states(self) -> None:
        """Delete everything except the history of runs.

        Raises:
            StateUnusable: the file cannot be changed.
        """
        self._parts = {}
        if self._plain:
            return  # the next write takes the history alone into an encrypted store
        try:
            self._open().executescript(
                "BEGIN IMMEDIATE; DELETE FROM beams; DELETE FROM forgotten; DELETE FROM parts;"
                f"INSERT OR REPLACE INTO about VALUES ('state_version', '{STATE_VERSION}'); COMMIT"
            )
        except (*_SQLITE_ERRORS, OSError) as error:
            self.close()
            raise StateUnusable(_reason(error)) from error

    # The file

    def set_aside(self) -> Path:
        """Give the file another name, so that it can be looked at; an earlier one of that name is lost.

        Raises:
            OSError: it cannot be renamed.
        """
        self.close()
        for name in reversed(_COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.aside}{name}")
            if not name or os.path.exists(f"{self.path}{name}"):
                os.replace(f"{self.path}{name}", f"{self.aside}{name}")
        return self.aside

    @property
    def aside(self) -> Path:
        """The path that :meth:`set_aside` gives to the file."""
        return self.path.with_name(f"{self.path.name}.set-aside")

    def remove(self) -> None:
        """Delete the file.

        Raises:
            OSError: it cannot be deleted.
        """
        self.close()
        _remove(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._connect()
            self._file = _identity(self.path)
        return self._database

    def _connect(self) -> sqlite3.Connection:
        if os.stat(self.path).st_mode & 0o077:
            os.chmod(self.path, 0o600)
        # A thread writes at the end that did not open it.
        database = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        database.text_factory = bytes  # an error of decoding would show the text
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # Counters that were shown must not step back after a power failure.
            database.execute("PRAGMA synchronous = FULL")
        except BaseException:
            database.close()
            raise
        return database


def _states(database: sqlite3.Connection, codec: Codec, table: str) -> list[bytes]:
    rows = database.execute(f"SELECT state, checksum, case_id, beam_id FROM {table} ORDER BY id")
    name = table.encode()
    return [codec.decode(state, checksum, name, case_id, beam_id) for state, checksum, case_id, beam_id in rows]


def _runs(database: sqlite3.Connection, codec: Codec) -> Iterator[EndedRun]:
    return map(codec.decode_run, database.execute("SELECT case_id, beam_id, run, checksum FROM runs ORDER BY id"))
