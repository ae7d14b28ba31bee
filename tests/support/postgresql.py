"""A real PostgreSQL and a real PgBouncer on loopback, in folders of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tests.support.process import PATIENCE_SECONDS, wait_for
from tests.support.sshd import free_port

OWNER = "communicator"
"""Owns the tables, as the communicator does."""
EXPORTER = "mqi_exporter"
"""The exporter's role."""
PASSWORD = "correct horse"

BEAMS = """
CREATE TABLE cases (case_id text PRIMARY KEY, status text NOT NULL, progress real DEFAULT 0.0);
CREATE TABLE beams (
    beam_id text PRIMARY KEY,
    parent_case_id text NOT NULL,
    beam_path text NOT NULL,
    beam_number integer,
    status text NOT NULL,
    progress real DEFAULT 0.0,
    hpc_job_id text,
    error_message text,
    created_at timestamp DEFAULT (now() AT TIME ZONE 'UTC'),
    updated_at timestamp DEFAULT (now() AT TIME ZONE 'UTC')
);
"""
GRANTS = f"GRANT SELECT, UPDATE (progress, updated_at) ON beams TO {EXPORTER};"
"""All rights that the exporter needs."""

_ACCESS = """
local   all all              trust
hostssl all all 127.0.0.1/32 scram-sha-256
hostnossl all {EXPORTER} 127.0.0.1/32 scram-sha-256
host    all all 127.0.0.1/32 trust
""".replace("{EXPORTER}", EXPORTER)


def _programs() -> Path:
    """Folder of the newest server that Debian has installed; its programs are not on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL is not installed: run make tools"
    return found[-1].parent


class _Daemon(ABC):
    """A server that refuses to run as root: then it runs as ``postgres``. Its folder is removed at the end."""

    name: str

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"mqi-{self.name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    @abstractmethod
    def command(self) -> list[str]:
        """Its command line."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    def own(self, *files: Path) -> None:
        """Give files to the server's account."""
        if self._user:
            for file in files:
                os.chown(file, self._user["user"], self._user["group"])

    def run(self, *command: str | Path) -> None:
        """Run a program as the server's account."""
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, cwd=self.folder, **self._user
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder, **self._user)
        wait_for(self._answers, f"{self.name} ready", 3 * PATIENCE_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends all connections at once, SIGQUIT is a crash."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(PATIENCE_SECONDS)
            self.process = None

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} has ended:\n{(self.folder / 'log').read_text()}"
        return self.ready()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PostgresServer(_Daemon):
    """PostgreSQL with the roles :data:`OWNER` and :data:`EXPORTER`.

    Args:
        settings: of ``postgresql.conf``.
    """

    name = "postgresql"

    def __init__(self, *settings: str) -> None:
        super().__init__()
        self.own(self.folder)
        self._settings = settings
        self._databases = 0

    def __enter__(self) -> PostgresServer:
        try:
            encoding = ("--locale=C", "--encoding=UTF8", "--no-sync")
            self.run(_programs() / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", *encoding)
            (self.data / "pg_hba.conf").write_text(_ACCESS)
            self.start()
            self.execute("postgres", f"CREATE ROLE {OWNER} LOGIN")
            self.execute("postgres", f"CREATE ROLE {EXPORTER} LOGIN PASSWORD '{PASSWORD}'")
        except BaseException:
            self.close()
            raise
        return self

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.folder / "data"

    def command(self) -> list[str]:
        settings = (
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=60",
            "shared_buffers=32MB",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            *self._settings,
        )
        options = [word for setting in settings for word in ("-c", setting)]
        return [str(_programs() / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def ready(self) -> bool:
        try:
            self.execute("postgres", "SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it and start it again."""
        self.stop(how)
        self.start()

    def connect(self, database: str, user: str = "postgres", **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect over the socket, where nobody needs a password; each statement is committed."""
        options = {"connect_timeout": 10, "autocommit": True, **options}
        return psycopg.connect(host=str(self.folder), port=self.port, dbname=database, user=user, **options)

    def execute(self, database: str, statement: str, *values: object, user: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own."""
        with self.connect(database, user) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def database(self, beams: str = BEAMS, grants: str = GRANTS, *, options: str = "") -> PostgresDatabase:
        """Create a database with the communicator's tables."""
        self._databases += 1
        name = f"mqi{self._databases}"
        self.execute("postgres", f"CREATE DATABASE {name} OWNER {OWNER} {options}")
        made = PostgresDatabase(self, name)
        if beams:
            self.execute(name, "GRANT ALL ON SCHEMA public TO " + OWNER)
            made.execute(beams)
        if grants:
            made.execute(grants)
        return made


class PostgresDatabase:
    """One database of a server."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server = server
        self.name = name
        self.password_file = server.folder / f"{name}.password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)

    @property
    def url(self) -> str:
        """Where the exporter finds it: over TCP, with its own role."""
        return self.url_at(self.server.port)

    def url_at(self, port: int) -> str:
        """The same through another port."""
        return f"postgresql://{EXPORTER}@127.0.0.1:{port}/{self.name}"

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement as the communicator."""
        return self.server.execute(self.name, statement, *values, user=OWNER)

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect as the communicator."""
        return self.server.connect(self.name, OWNER, **options)

    def add(self, beam_id: object, status: object = "simulation_running", case_id: object = "c") -> None:
        """Add a row."""
        self.execute(
            "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES (%s, %s, '/data', %s)",
            beam_id,
            case_id,
            status,
        )

    def progress(self, beam_id: str) -> object:
        """Return what the column holds."""
        [(value,)] = self.execute("SELECT progress FROM beams WHERE beam_id = %s", beam_id)
        return value

    def backends(self) -> list[int]:
        """Process ids of the exporter's connections."""
        query = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND datname = %s"
        return [pid for (pid,) in self.server.execute(self.name, query, EXPORTER, self.name)]


class PgBouncer(_Daemon):
    """PgBouncer in transaction mode in front of a server."""

    name = "pgbouncer"

    def __init__(self, server: PostgresServer, *settings: str) -> None:
        super().__init__()
        self.server = server
        self._settings = settings

    def __enter__(self) -> PgBouncer:
        users = self.folder / "users.txt"
        users.write_text(f'"{EXPORTER}" "{PASSWORD}"\n"{OWNER}" ""\n')
        settings = [
            f"auth_file = {users}",
            "auth_type = scram-sha-256",
            "pool_mode = transaction",
            "default_pool_size = 4",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "server_login_retry = 0",
            *self._settings,
        ]
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self.server.port}\n[pgbouncer]\n" + "\n".join(settings) + "\n"
        )
        self.own(self.folder, users, config)
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def command(self) -> list[str]:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "PgBouncer is not installed: run make tools"
        return [program, str(self.folder / "pgbouncer.ini")]

    def ready(self) -> bool:
        login: dict[str, Any] = {"user": EXPORTER, "password": PASSWORD, "sslmode": "disable", "connect_timeout": 10}
        try:
            psycopg.connect(host="127.0.0.1", port=self.port, dbname="postgres", **login).close()
        except psycopg.OperationalError:
            return False
        return True


def hold_row(database: PostgresDatabase, beam_id: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Lock a row as an unfinished transaction of the communicator does; ``rollback`` and ``close`` let it go."""
    connection = database.connect(autocommit=False)
    connection.execute("SELECT 1 FROM beams WHERE beam_id = %s FOR UPDATE", [beam_id])
    return connection


def children(process: int) -> Sequence[int]:
    """Process ids of a server's backends."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(each) for each in text.split()]


def until(at: float) -> float:
    """Seconds until an instant of the monotonic clock."""
    return max(0.0, at - time.monotonic())
