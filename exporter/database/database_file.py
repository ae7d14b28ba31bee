"""Opens the communicator's database file for one use and closes it afterwards.

No connection stays open between uses. So the communicator is the last process to close its database, and SQLite then
completes the file and removes ``-wal`` and ``-shm``, as without the exporter. An operator may copy, restore or delete
the file at any time.

An ordinary SQLite client would do harm in three cases, so the files are checked before they are opened:

- Nobody uses the database, but a ``-wal`` with content lies beside it. A process was killed, or somebody is copying
  files. We wait until the files stop changing. If the database was replaced meanwhile, the ``-wal`` belongs to the
  previous file. Then we do not open the database until the ``-wal`` is gone or the communicator has started.
- The ``-shm`` is in use, but this database is not: the file was replaced under a running communicator. We wait.
- This account may read but not write. SQLite would create a ``-wal`` and a ``-shm`` that the communicator may not
  write. If nobody uses the database, we read it without these files; otherwise we use the existing ones.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from exporter.database import files
from exporter.database.files import DatabaseFiles, FileState, FileUser
from exporter.database.unavailable import DatabaseUnavailable, database_error, kind_of_os_error, kind_of_sqlite_error

SQLITE_LOCK = threading.RLock()
"""Held while this process has a connection to a communicator's database.

:func:`exporter.database.files.find_user` must not run while another thread has the file open.
"""

READ_SECONDS = 5.0
"""Longest duration of one read. A hundred thousand rows take less than a second."""

WRITE_SECONDS = 1.0
"""Longest duration of a transaction. The communicator fails if it waits five seconds for the write lock."""

QUIET_SECONDS = 3.0
"""A ``-wal`` that nobody uses is applied when no file has changed for this time while we watched."""

OLD_SECONDS = 60.0
"""A ``-wal`` that nobody uses is also applied if the time stamps of all files are older than this."""

_TIME_STAMP_SECONDS = 2.5
"""Coarsest resolution of a file's time stamp (FAT: two seconds), with a margin."""

_CLOSING_SECONDS = 0.01
"""Time that SQLite needs to close a database whose files are in the system's cache, with a margin."""

_VALUE_LIMIT_BYTES = 16 * 1024 * 1024
"""Longest value that SQLite may read. Without this limit it could be a gigabyte."""

_HEAP_LIMIT_BYTES = 64 * 1024 * 1024
"""Memory limit of SQLite in this process, for Python before 3.11, which cannot set the limit above."""

TOO_LONG = (sqlite3.DataError, MemoryError)
"""Exceptions of SQLite for a value above these limits."""

_STEPS_BETWEEN_CHECKS = 10_000
"""Steps of SQLite's virtual machine between two checks of the deadline; they take less than a millisecond."""


class DatabaseFile:
    """One database file. Several threads may use it, one at a time.

    Args:
        path: the database.
        busy_timeout_ms: longest wait for another process's lock, in milliseconds.
        alone_in_process: whether nothing else in this process opens the file. Only then can we find out who uses it,
            and limit SQLite's memory. Set it to false inside the communicator's process.
        timer: monotonic clock in seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout_ms: int = 500,
        alone_in_process: bool = False,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._alone = alone_in_process
        self._timer = timer
        self._connection: sqlite3.Connection | None = None
        self._deadline = float("inf")
        self._used = True
        self._opened_as: DatabaseFiles | None = None
        self._seen: DatabaseFiles | None = None
        self._seen_since = 0.0
        self._changed_at = float("-inf")
        self._foreign_wal: FileState | None = None
        """A ``-wal`` or ``-journal`` that belongs to the previous file at the path."""
        self._generation = 0
        self._closed_as: FileState | None = None
        self.unexplained_changes = 0
        """Number of times that the file had changed although nobody used it: it may have been restored."""

    @property
    def generation(self) -> int:
        """Number of times that another file was found at the path, including now."""
        with SQLITE_LOCK, contextlib.suppress(OSError):
            self._check_files()
        return self._generation

    def unchanged_since(self, at: float) -> bool:
        """Whether the files have certainly not changed since a read that began at ``at``.

        Args:
            at: time by the timer.
        """
        with SQLITE_LOCK:
            try:
                self._check_files()
            except OSError:
                return False
            # A change right after the files were checked may not show in their time stamps.
            return self._seen_since + _TIME_STAMP_SECONDS <= at

    def interrupt(self) -> None:
        """Interrupt the running statement. Any thread may call this."""
        self._deadline = float("-inf")

    @contextlib.contextmanager
    def use(self, action: str, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file that is at the path now, and close it at the end.

        A nested use shares the connection.

        Args:
            action: purpose for error messages, as in "cannot ACTION FILE".
            write: whether the connection must be able to write.

        Raises:
            DatabaseUnavailable: any failure of the database.
        """
        with SQLITE_LOCK:
            if self._connection is not None:
                with self._translate_errors(action):
                    yield self._connection
                return
            with self._translate_errors(action):
                try:
                    self._connection = self._open(action, write=write)
                    yield self._connection
                    if not write:
                        self.check_unchanged(action)
                finally:
                    self._close()

    def check_unchanged(self, action: str) -> None:
        """Check that nobody has copied another database over the file since it was opened.

        Nothing is checked while another process uses the database, since that process may change the file.

        Raises:
            DatabaseUnavailable: the file has changed.
            OSError: the file is gone.
        """
        if not self._used and self._opened_as is not None:
            opened, now = self._opened_as.database, files.stat_files(self.path).database
            if opened != now:
                raise self.error("changing", action, "another program wrote the file at the same time")

    def limit_time(self, seconds: float) -> None:
        """Interrupt statements of this use that still run after ``seconds`` from now."""
        self._deadline = self._timer() + seconds

    def error(self, kind: str, action: str, reason: str) -> DatabaseUnavailable:
        """Make an error for this file; see :func:`exporter.database.unavailable.database_error`."""
        return database_error(kind, action, self.path, reason)

    def _open(self, action: str, *, write: bool) -> sqlite3.Connection:
        how = self._open_mode(action, write=write)
        # isolation_level=None: only explicit transactions, and no read stays open.
        connection = sqlite3.connect(
            f"file://{quote(str(self.path.absolute()))}?{how}",
            uri=True,
            isolation_level=None,
            timeout=self._busy_timeout_ms / 1000,
            check_same_thread=False,
        )
        try:
            connection.text_factory = _text
            self.limit_time(READ_SECONDS)
            connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_CHECKS)
            if sys.version_info >= (3, 11):
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_LIMIT_BYTES)
            elif self._alone:
                _limit_memory()
            if write:
                # In WAL mode this skips the fsync at each commit, like the communicator.
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        with contextlib.suppress(OSError):
            self._closed_as = self._check_files(changed_by_us=True).database

    def _open_mode(self, action: str, *, write: bool) -> str:
        """Decide how to open the file; return the parameters of SQLite's URI."""
        now = self._check_files()
        self._used = self._is_used(action)
        tries = 3
        while not self._used and now.unfinished is not None and tries:
            # A process that was closing the database has removed its -wal by now.
            time.sleep(_CLOSING_SECONDS)
            now, tries = self._check_files(), tries - 1
            self._used = self._is_used(action)
        self._opened_as = now
        if self._used:
            self._foreign_wal = None
        else:
            self.unexplained_changes += self._closed_as not in (None, now.database)
            self._closed_as = now.database
            self._check_unfinished(now, action)
        # The last process that closes the database must be able to remove the files beside it.
        place = files.not_writable(self.path, folder=not self._used or not write)
        if place is None:
            return "mode=rw"
        if write:
            raise self.error("read_only", action, self._why_read_only(place))
        if self._used:
            return "mode=ro"
        if now.unfinished is None:
            return "mode=ro&immutable=1"
        if not os.path.exists(files.companion(files.resolve(self.path), "-shm")):
            raise self.error("unfinished", action, "a process that wrote it was killed")
        return "mode=ro"

    def _is_used(self, action: str) -> bool:
        """Whether another process uses this very file."""
        if not self._alone:
            return True
        for _ in range(2):
            match files.find_user(self.path):
                case FileUser.NOBODY:
                    return False
                case FileUser.OTHERS:
                    return True
                case FileUser.THIS_PROCESS:
                    self._alone = False
                    return True
            time.sleep(_CLOSING_SECONDS)  # the other process may be closing the database
        # That process will not remove its -wal when it ends, because SQLite sees that the database is another one.
        self._foreign_wal = self._check_files().unfinished
        raise self.error(
            "not_its_wal",
            action,
            "the file was replaced while a process used it, and the -wal beside it belongs to that process",
        )

    def _check_unfinished(self, now: DatabaseFiles, action: str) -> None:
        """Raise if nobody uses the database but a ``-wal`` or ``-journal`` must not be applied to it yet."""
        left = now.unfinished
        if left is None:
            return
        if _is_same(left, self._foreign_wal):
            raise self.error(
                "not_its_wal", action, "the file was replaced, and the -wal beside it belongs to the previous file"
            )
        quiet = self._timer() - self._seen_since >= QUIET_SECONDS
        if not quiet and time.time() - now.newest_ns / 1e9 < OLD_SECONDS:
            raise self.error("unfinished", action, "a process that wrote it was killed, or it is being copied")

    def _check_files(self, *, changed_by_us: bool = False) -> DatabaseFiles:
        """Check the files and record what has changed since the last check.

        Raises:
            OSError: there is no such file, or it is a folder.
        """
        now, before = files.stat_files(self.path), self._seen
        if now == before:
            return now
        if before is not None:
            self._generation += not now.database.is_same_file(before.database)
            if now.database != before.database and not changed_by_us:
                self._changed_at = self._timer()
                if now.unfinished == before.unfinished:
                    # Somebody copied a file over it, or a process that uses it has made a checkpoint.
                    self._foreign_wal = now.unfinished
        if not _is_same(now.unfinished, self._foreign_wal):
            self._foreign_wal = None
        self._seen, self._seen_since = now, self._timer()
        return now

    def _why_read_only(self, place: Path) -> str:
        reason = f"this account may not write {place}"
        if self._generation > 0 and place == self.path:
            reason += "; the file is new, and SQLite lets only the owner of a new file write it"
        return reason

    def _is_late(self) -> bool:
        return self._timer() > self._deadline

    @contextlib.contextmanager
    def _translate_errors(self, action: str) -> Iterator[None]:
        """Turn every failure into :class:`DatabaseUnavailable`."""
        try:
            yield
        except DatabaseUnavailable as error:
            if error.kind == "no_table" and self._is_changing():
                raise self._changing(action) from error
            raise
        except OSError as error:
            raise self.error(kind_of_os_error(error), action, error.strerror or str(error)) from error
        except sqlite3.Error as error:
            if isinstance(error, TOO_LONG):
                raise self.error("too_large", action, "a value is too long") from error
            kind = kind_of_sqlite_error(error)
            if kind in ("corrupt", "not_a_database", "no_table") and self._is_changing():
                raise self._changing(action) from error
            raise self.error(kind, action, str(error)) from error
        except MemoryError as error:
            raise self.error("too_large", action, "a value is too long") from error

    def _is_changing(self) -> bool:
        """Whether the file may be an unfinished copy: nobody uses the database, and it changed just now."""
        if self._used or self._opened_as is None:
            return False
        with contextlib.suppress(OSError):
            if files.stat_files(self.path).database != self._opened_as.database:
                return True
        return self._timer() - self._changed_at < _TIME_STAMP_SECONDS

    def _changing(self, action: str) -> DatabaseUnavailable:
        return self.error("changing", action, "another program is writing the file")


def _is_same(one: FileState | None, other: FileState | None) -> bool:
    return one is not None and other is not None and one.is_same_file(other)


@functools.cache
def _limit_memory() -> None:
    """Limit the memory of all SQLite connections of this process. SQLite before 3.31 ignores it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA hard_heap_limit = {_HEAP_LIMIT_BYTES}")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
