"""One connection to PostgreSQL, directly or through PgBouncer, that is opened again after every failure.

Each use is one message to the server and one answer: the limits of time and the statement travel together, and the
server commits by itself. So no lock outlives the statement, even if this process is stopped in between, and PgBouncer
in transaction mode needs nothing special (no prepared statements, no session settings).

A server may be frozen. Neither its own ``statement_timeout`` nor TCP keepalives end the wait then, so a timer shuts the
socket down.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from exporter.config import DatabaseSettings
from exporter.database.postgresql_errors import TRIES_AGAIN, translate, unavailable
from exporter.database.unavailable import DatabaseUnavailable
from exporter.process.trusted_files import readable_by_others

CONNECT_SECONDS = 2
"""Longest wait for one server to accept the connection; libpq takes whole seconds, at least 2."""

GRACE_SECONDS = 1.0
"""Time after the server's own limit at which the socket is shut down."""

Row = tuple[Any, ...]

_PREFIX = (
    "SELECT to_regclass('beams')::oid, set_config('lock_timeout', '{lock}', true), "
    "set_config('statement_timeout', '{statement}', true);\n"
)


class PostgresConnection:
    """Runs statements. Several threads may use it, one at a time.

    Args:
        database: the section ``database``, with a URL.
    """

    def __init__(self, database: DatabaseSettings) -> None:
        self.name = database.name
        self._database = database
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Row] | None = None
        self._deadline: _Deadline | None = None
        self.openings = 0
        """Number of times that the server accepted a login."""
        self.table_id: int | None = None
        """Object id of the table ``beams`` in the last statement; ``None`` if there was none."""
        self.user = unquote(urlsplit(database.url or "").username or "")

    @contextlib.contextmanager
    def use(self, action: str) -> Iterator[None]:
        """Hold the connection for several statements and turn every failure into :class:`DatabaseUnavailable`.

        Args:
            action: purpose for error messages, as in "cannot ACTION DATABASE".
        """
        with self._lock:
            self._deadline = None
            try:
                yield
            except psycopg.Error as error:
                late = self._deadline is not None and self._deadline.expired
                self.close()
                if late:
                    raise self.error("too_slow", action, "the server does not answer", TRIES_AGAIN) from error
                raise translate(error, action, self.name, self.user) from error
            except DatabaseUnavailable:
                # A right or a search path that is granted meanwhile may count for new connections only.
                self.close()
                raise

    def run(self, query: str, values: Mapping[str, object] | None = None, *, seconds: float) -> list[Row]:
        """Run one statement; only inside :meth:`use`.

        Args:
            query: the statement.
            values: its parameters.
            seconds: how long it may take.

        Returns:
            Its rows, or none.

        Raises:
            psycopg.Error: it failed; or the password cannot be read.
        """
        if self._connection is None:
            self._connection = self._connect()
        limits = _PREFIX.format(lock=self._database.busy_timeout_ms, statement=math.ceil(seconds * 1000))
        with _Deadline(self._connection, seconds + GRACE_SECONDS) as self._deadline:
            cursor = self._connection.cursor()
            cursor.execute((limits + query).encode(), values or {})
            [first] = cursor.fetchall()
            self.table_id = first[0]
            cursor.nextset()
            rows = cursor.fetchall() if cursor.description is not None else []
        return [tuple(map(_as_text, row)) for row in rows]

    def error(self, kind: str, action: str, reason: str, advice: str) -> DatabaseUnavailable:
        """Make an error for this database."""
        return unavailable(kind, action, self.name, reason, advice)

    def interrupt(self) -> None:
        """End the running statement. Any thread may call this."""
        deadline = self._deadline
        if deadline is not None:
            deadline.expire()

    def close(self) -> None:
        """Close the connection; the next statement opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(psycopg.Error):
                    connection.close()

    def _connect(self) -> psycopg.Connection[Row]:
        database = self._database
        options: dict[str, Any] = {
            "application_name": "mqi-exporter",
            "connect_timeout": CONNECT_SECONDS,
            **conninfo_to_dict(database.url or ""),
            "sslmode": database.tls,
            "client_encoding": "UTF8",
        }
        if database.ca_file is not None:
            options["sslrootcert"] = str(database.ca_file)
        if database.password_file is not None:
            options["password"] = self._password(database.password_file)
        connection = psycopg.connect(
            **options, autocommit=True, prepare_threshold=None, cursor_factory=psycopg.ClientCursor
        )
        self.openings += 1
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            # The server neither knows nor checks the encoding of its text; with this setting text arrives as bytes.
            connection.execute("SET client_encoding TO 'SQL_ASCII'")
        return connection

    def _password(self, path: Path) -> str:
        """Read the password at each login, so that it can be changed while the exporter runs."""
        try:
            with path.open(encoding="utf-8") as file:
                exposed = readable_by_others(path, os.fstat(file.fileno()), group_may_read=True)
                password = file.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise self._no_password(f"{path} cannot be read: {reason}", "check database.password_file") from None
        if exposed is not None:
            path_is_open, _, command = exposed.partition("; ")
            raise self._no_password(path_is_open, f"run `{command}`")
        if not password:
            raise self._no_password(f"the first line of {path} is empty", "write the password there")
        return password

    def _no_password(self, reason: str, advice: str) -> DatabaseUnavailable:
        return self.error("login", "log in to", reason, advice)


class _Deadline:
    """Shuts the socket of a connection down after a time, unless the ``with`` block has ended before."""

    def __init__(self, connection: psycopg.Connection[Row], seconds: float) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._is_over = False
        self.expired = False
        self._timer = threading.Timer(seconds, self.expire)
        self._timer.daemon = True
        self._timer.name = "postgresql-deadline"

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_over = True

    def expire(self) -> None:
        """Shut the socket down. Any thread may call this."""
        with self._lock:
            if self._is_over:
                return
            self.expired = True
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def _as_text(value: object) -> object:
    """Decode text that arrived as bytes; bytes that are not UTF-8 become lone surrogates."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
