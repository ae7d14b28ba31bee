from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exporter.config import DatabaseSettings
from exporter.database import postgresql, postgresql_connection
from exporter.database.postgresql import PostgresTable
from exporter.database.table import ProgressUpdate
from exporter.database.unavailable import DatabaseUnavailable
from tests.support.certificates import Authority
from tests.support.postgresql import (
    BEAMS,
    EXPORTER,
    GRANTS,
    PASSWORD,
    PgBouncer,
    PostgresDatabase,
    PostgresServer,
    hold_row,
)
from tests.support.process import wait_for


@pytest.fixture
def database(server: PostgresServer) -> PostgresDatabase:
    return server.database()


@contextlib.contextmanager
def opened(database: PostgresDatabase, url: str = "", **options: Any) -> Iterator[PostgresTable]:
    options = {"password_file": database.password_file, **options}
    with contextlib.closing(PostgresTable(DatabaseSettings(url=url or database.url, **options))) as table:
        yield table


@pytest.fixture
def table(database: PostgresDatabase) -> Iterator[PostgresTable]:
    with opened(database) as table:
        yield table


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[PostgresDatabase]:
    with PostgresServer() as server:
        certificate, key = authority.issue("127.0.0.1", names=("127.0.0.1",))
        for name, source in (("server.crt", certificate), ("server.key", key)):
            path = server.data / name
            path.write_bytes(Path(source).read_bytes())
            path.chmod(0o600)
            server.own(path)
        server.execute("postgres", "ALTER SYSTEM SET ssl = on")
        server.restart()
        yield server.database()


@pytest.fixture(scope="module")
def bouncer(server: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(server) as bouncer:
        yield bouncer


def unavailable(action: Callable[[], object]) -> DatabaseUnavailable:
    with pytest.raises(DatabaseUnavailable) as caught:
        action()
    assert len(str(caught.value).splitlines()) == 1
    assert PASSWORD not in str(caught.value)
    return caught.value


def write(table: PostgresTable, value: float, *beam_ids: str) -> frozenset[str]:
    return table.write([ProgressUpdate(beam_id, value) for beam_id in beam_ids or ("b",)]).written


class TestTypes:
    @pytest.mark.parametrize("kind", ["real", "double precision", "numeric", "numeric(5,2)"])
    def test_a_value_is_written_once_whatever_the_precision_of_the_column(
        self, server: PostgresServer, kind: str
    ) -> None:
        database = server.database(BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", f"progress {kind},\n    hpc"))
        database.add("b")
        with opened(database) as table:
            assert write(table, 66.67) == {"b"}
            assert write(table, 66.67) == frozenset()
            [row] = table.rows()
            assert row.progress == pytest.approx(66.67, abs=1e-4)

    def test_in_a_column_of_integers_a_value_is_never_rounded_up(self, server: PostgresServer) -> None:
        database = server.database(BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", "progress integer,\n    hpc"))
        database.add("b")
        with opened(database) as table:
            assert write(table, 99.6) == {"b"}
            assert database.progress("b") == 99
            assert write(table, 99.7) == frozenset()

    def test_a_column_of_text_is_refused(self, server: PostgresServer) -> None:
        database = server.database(BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", "progress text,\n    hpc"))
        database.add("b")
        with opened(database) as table:
            assert [row.progress for row in table.rows()] == [None]
            error = unavailable(lambda: write(table, 5.0))
            assert (error.kind, error.advice) == ("no_column", "let it be real")

    def test_nan_is_replaced(self, database: PostgresDatabase, table: PostgresTable) -> None:
        database.add("b")
        database.execute("UPDATE beams SET progress = 'NaN'")
        assert [row.progress for row in table.rows()] == [None]
        assert write(table, 5.0) == {"b"}

    def test_statuses_may_be_an_enum_without_all_our_words(self, server: PostgresServer) -> None:
        enum = "CREATE TYPE state AS ENUM ('pending', 'simulation_running', 'completed');"
        database = server.database(
            enum
            + BEAMS.replace(
                "status text NOT NULL,\n    progress real DEFAULT 0.0,\n    hpc",
                "status state NOT NULL,\n    progress real,\n    hpc",
            )
        )
        database.add("b")
        with opened(database) as table:
            assert [row.status for row in table.rows(0.0)] == ["simulation_running"]
            assert write(table, 5.0) == {"b"}

    def test_ids_that_are_no_text_are_no_ids(self, server: PostgresServer) -> None:
        database = server.database(BEAMS.replace("beam_id text", "beam_id integer"))
        database.execute("INSERT INTO beams VALUES (7, 'c', '/data', 1, 'pending')")
        with opened(database) as table:
            assert [row.beam_id for row in table.rows(0.0, ["7"])] == [7]


class TestTimeStamps:
    AT = "2026-07-01 12:00:00"

    @pytest.mark.parametrize(
        ("kind", "zone", "moment"),
        [
            ("timestamp", "UTC", 1782907200.0),
            ("timestamp", "Asia/Seoul", 1782907200.0 - 9 * 3600),
            ("timestamptz", "Asia/Seoul", 1782907200.0),
            ("text", "UTC", 1782907200.0),
        ],
    )
    def test_time_stamps_are_read_and_written_in_the_zone_of_the_column(
        self, server: PostgresServer, kind: str, zone: str, moment: float
    ) -> None:
        beams = BEAMS.replace("updated_at timestamp DEFAULT (now() AT TIME ZONE 'UTC')", f"updated_at {kind}")
        database = server.database(beams, options="TEMPLATE template0")
        database.add("b")
        database.execute(f"SET timezone = 'UTC'; UPDATE beams SET updated_at = '{self.AT}'")
        with opened(database, timezone=zone) as table:
            [row] = table.rows()
            assert row.updated_at == moment
            database.execute("UPDATE beams SET status = 'completed'")
            assert (len(table.rows(moment - 1)), len(table.rows(moment + 1))) == (1, 0)
            database.execute("UPDATE beams SET status = 'pending'")
            write(table, 5.0)
            [row] = table.rows()
            assert row.updated_at == pytest.approx(time.time(), abs=60)

    def test_endless_time_stamps_are_read_as_none(self, database: PostgresDatabase, table: PostgresTable) -> None:
        database.add("b")
        database.execute("UPDATE beams SET updated_at = 'infinity'")
        assert [row.updated_at for row in table.rows()] == [None]

    def test_an_unknown_zone_is_named(self, database: PostgresDatabase) -> None:
        database.add("b")
        with opened(database, timezone="Asia/Soul") as table:
            error = unavailable(table.rows)
            assert error.kind == "timezone"
            assert "Asia/Soul" in str(error)
            assert "such as Asia/Seoul" in str(error)


class TestLocks:
    def test_a_locked_row_is_skipped_at_once_and_reported(
        self, database: PostgresDatabase, table: PostgresTable
    ) -> None:
        for beam_id in ("a", "b", "done"):
            database.add(beam_id, "completed" if beam_id == "done" else "simulation_running")
        updates = [ProgressUpdate(beam_id, 50.0) for beam_id in ("a", "b", "done", "none")]
        with contextlib.closing(hold_row(database, "b")) as theirs:
            theirs.execute("SELECT 1 FROM beams WHERE beam_id = 'done' FOR UPDATE")
            began = time.monotonic()
            result = table.write(updates)
            assert time.monotonic() - began < 0.5
            assert (result.written, result.locked) == (frozenset("a"), frozenset("b"))
        assert table.write(updates).written == {"b"}

    def test_our_locks_end_with_the_statement_even_if_the_exporter_is_stopped(self, database: PostgresDatabase) -> None:
        database.add("b")
        script = (
            "import os, signal, sys\n"
            "from exporter.config import DatabaseSettings\n"
            "from exporter.database import postgresql_connection as module\n"
            "from exporter.database.postgresql import PostgresTable, ProgressUpdate\n"
            "table = PostgresTable(DatabaseSettings(url=sys.argv[1], password_file=sys.argv[2]))\n"
            "table.rows()\n"
            "execute = module.psycopg.ClientCursor.execute\n"
            "def stopped(self, *arguments):\n"
            "    execute(self, *arguments)\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "module.psycopg.ClientCursor.execute = stopped\n"
            "table.write([ProgressUpdate('b', 5.0)])\n"
        )
        command = [sys.executable, "-c", script, database.url, str(database.password_file)]
        with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as exporter:
            try:
                os.waitpid(exporter.pid, os.WUNTRACED)
                with database.connect() as theirs:
                    theirs.execute("SET lock_timeout = '2s'")
                    theirs.execute("UPDATE beams SET status = 'postprocessing'")
                assert database.progress("b") == 5.0
            finally:
                exporter.kill()

    def test_a_locked_table_is_waited_for_no_longer_than_configured(self, database: PostgresDatabase) -> None:
        with opened(database, busy_timeout_ms=50) as table:
            table.rows()
            with database.connect(autocommit=False) as theirs:
                theirs.execute("LOCK TABLE beams IN ACCESS EXCLUSIVE MODE")
                assert unavailable(table.rows).kind == "locked"
            assert table.rows() == []

    def test_a_late_value_does_not_reach_a_row_that_has_completed(
        self, database: PostgresDatabase, table: PostgresTable
    ) -> None:
        database.add("b")
        with database.connect(autocommit=False) as theirs:
            theirs.execute("UPDATE beams SET status = 'completed', progress = 100")
            assert table.write([ProgressUpdate("b", 94.4)]).locked == {"b"}
        assert write(table, 94.4) == frozenset()
        assert database.progress("b") == 100.0

    def test_rows_locked_in_any_order_never_cause_a_deadlock(self, database: PostgresDatabase) -> None:
        ids = [f"b{number}" for number in range(30)]
        for beam_id in ids:
            database.add(beam_id)
        end = time.monotonic() + 1.5
        errors: list[str] = []

        def communicator(order: int) -> None:
            with database.connect(autocommit=False) as theirs:
                while time.monotonic() < end:
                    for beam_id in ids[:8][::order]:
                        theirs.execute("UPDATE beams SET beam_number = 1 WHERE beam_id = %s", [beam_id])
                    theirs.commit()

        def exporter() -> None:
            value = 0.0
            with opened(database) as table:
                while time.monotonic() < end:
                    value += 0.01
                    try:
                        table.write([ProgressUpdate(beam_id, value) for beam_id in ids])
                    except DatabaseUnavailable as error:
                        errors.append(str(error))

        threads = [threading.Thread(target=communicator, args=(1,)) for _ in range(2)]
        threads += [threading.Thread(target=exporter) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        [(deadlocks,)] = database.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert deadlocks == 0


class TestFaults:
    def test_after_a_killed_backend_the_next_use_logs_in_again(
        self, database: PostgresDatabase, table: PostgresTable
    ) -> None:
        database.add("b")
        table.rows()
        changes = table.unexplained_changes
        [backend] = database.backends()
        database.server.execute(database.name, "SELECT pg_terminate_backend(%s)", backend)
        wait_for(lambda: database.backends() == [], "its end")
        assert unavailable(table.rows).kind == "unreachable"
        assert write(table, 5.0) == {"b"}
        assert table.unexplained_changes == changes + 1, "rows may have been restored meanwhile"

    @pytest.mark.parametrize("who", ["backend", "server"])
    def test_a_frozen_server_is_given_up_and_used_again_when_it_goes_on(
        self, database: PostgresDatabase, table: PostgresTable, who: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "READ_SECONDS", 0.2)
        monkeypatch.setattr(postgresql_connection, "GRACE_SECONDS", 0.2)
        if who == "backend":
            table.rows()
            [process] = database.backends()
        else:
            assert database.server.process is not None
            process = database.server.process.pid
        os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert unavailable(table.rows).kind in ("too_slow", "unreachable")
            assert time.monotonic() - began < 5
        finally:
            os.kill(process, signal.SIGCONT)
        wait_for(lambda: not _raises(table.rows), "rows again")

    def test_another_thread_can_interrupt_a_frozen_statement(
        self, database: PostgresDatabase, table: PostgresTable
    ) -> None:
        table.rows()
        [process] = database.backends()
        os.kill(process, signal.SIGSTOP)
        try:
            caught: list[DatabaseUnavailable] = []
            thread = threading.Thread(target=lambda: caught.append(unavailable(table.rows)))
            thread.start()
            wait_for(lambda: _interrupts(table, thread), "its end", 4)
            assert len(caught) == 1
        finally:
            os.kill(process, signal.SIGCONT)

    def test_a_read_only_server_is_reported_and_reading_goes_on(self, database: PostgresDatabase) -> None:
        database.add("b")
        database.server.execute("postgres", f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
        with opened(database) as table:
            assert len(table.rows()) == 1
            for action in (lambda: write(table, 5.0), table.check_writable):
                error = unavailable(action)
                assert error.kind == "read_only"
                assert "target_session_attrs=read-write" in error.advice
            database.server.execute("postgres", f"ALTER DATABASE {database.name} RESET default_transaction_read_only")
            assert write(table, 5.0) == {"b"}

    def test_a_table_made_anew_is_recognised(self, database: PostgresDatabase, table: PostgresTable) -> None:
        database.add("b")
        write(table, 50.0)
        generation = table.generation
        database.execute(f"DROP TABLE beams, cases; {BEAMS} {GRANTS}")
        database.add("b")
        assert write(table, 66.67) == {"b"}
        assert table.generation == generation + 1
        assert write(table, 66.67) == frozenset()

    def test_a_column_added_meanwhile_is_used(self, server: PostgresServer) -> None:
        database = server.database(
            BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", "hpc"), GRANTS.replace("progress, ", "")
        )
        database.add("b")
        with opened(database) as table:
            assert unavailable(lambda: write(table, 5.0)).kind == "no_column"
            database.execute(f"ALTER TABLE beams ADD COLUMN progress real DEFAULT 0.0; {GRANTS}")
            assert write(table, 5.0) == {"b"}


def _raises(action: Callable[[], object]) -> bool:
    try:
        action()
    except DatabaseUnavailable:
        return True
    return False


def _interrupts(table: PostgresTable, thread: threading.Thread) -> bool:
    table.interrupt()
    return not thread.is_alive()


class TestRights:
    def test_the_exporters_role_can_change_nothing_but_two_columns(self, database: PostgresDatabase) -> None:
        database.add("b")
        login: dict[str, Any] = {"password": PASSWORD, "autocommit": True}
        with psycopg.connect(database.url, **login) as connection:
            for statement in (
                "UPDATE beams SET status = 'completed'",
                "UPDATE beams SET progress = 5, hpc_job_id = '1'",
                "UPDATE beams SET beam_path = '/'",
                "INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES ('x', 'c', '/', 'pending')",
                "DELETE FROM beams",
                "TRUNCATE beams",
                "ALTER TABLE beams ADD COLUMN x text",
                "DROP TABLE beams",
                "SELECT * FROM cases",
                "CREATE TABLE mine (x text)",
                "COPY beams TO PROGRAM 'cat'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
            connection.execute("UPDATE beams SET progress = 5, updated_at = now()")

    def test_these_rights_suffice_for_all_that_the_exporter_does(
        self, database: PostgresDatabase, table: PostgresTable
    ) -> None:
        database.add("b")
        table.check_writable()
        assert table.has_progress()
        assert not table.migrate()
        assert len(table.rows(0.0, ["b"])) == len(table.rows_of_cases(["c"])) == len(list(table.iter_rows())) == 1
        assert write(table, 5.0) == {"b"}


class TestBadInput:
    """One message each, with what to do."""

    @pytest.mark.parametrize(
        ("replaced", "by", "kind", "advice"),
        [
            (EXPORTER, "nobody_here", "login", "check the user in database.url"),
            ("/mqi", "/none", "missing", "check the name of the database"),
            ("@127.0.0.1", "@no-such-host.invalid", "unreachable", "check the host in database.url"),
            ("postgresql:", "postgres:", "", ""),
        ],
    )
    def test_a_wrong_url(self, database: PostgresDatabase, replaced: str, by: str, kind: str, advice: str) -> None:
        before, _, after = database.url.rpartition(replaced)
        with opened(database, f"{before}{by}{after}", sslmode="prefer") as table:
            if kind:
                error = unavailable(table.rows)
                assert (error.kind, advice in str(error)) == (kind, True), str(error)
            else:
                assert table.rows() == []

    def test_a_wrong_parameter_of_the_url(self, database: PostgresDatabase) -> None:
        with opened(database, database.url + "?colour=blue") as table:
            assert "colour" in str(unavailable(table.rows))

    def test_a_port_where_nobody_listens(self, database: PostgresDatabase) -> None:
        with opened(database, database.url_at(1)) as table:
            error = unavailable(table.rows)
            assert (error.kind, error.advice) == ("unreachable", "is the server running, and is database.url right?")

    @pytest.mark.parametrize(
        ("text", "mode", "said"),
        [
            ("wrong\n", 0o600, "password authentication failed"),
            ("\n", 0o600, "is empty; write the password there"),
            (PASSWORD, 0o644, "can be read or changed by others"),
            (b"\xff\xfe", 0o600, "is not UTF-8 text"),
            (None, 0, "cannot be read: No such file"),
        ],
    )
    def test_a_wrong_password_file(
        self, database: PostgresDatabase, text: str | bytes | None, mode: int, said: str
    ) -> None:
        path = database.password_file
        path.unlink()
        if text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            path.chmod(mode)
        with opened(database) as table:
            error = unavailable(table.rows)
            assert (error.kind, said in str(error)) == ("login", True), str(error)
            path.write_text(f"{PASSWORD}\r\nsecond line")
            path.chmod(0o600)
            assert table.rows() == [], "the file is read at each login"

    def test_no_password(self, database: PostgresDatabase) -> None:
        with opened(database, password_file=None) as table:
            assert "name it in database.password_file" in str(unavailable(table.rows))

    def test_a_table_in_a_schema_that_is_not_searched(self, server: PostgresServer) -> None:
        database = server.database("", "")
        database.execute("CREATE SCHEMA mqi; SET search_path = mqi;" + BEAMS)
        with opened(database) as table:
            assert f"GRANT USAGE ON SCHEMA mqi TO {EXPORTER}" in str(unavailable(table.rows))
            database.execute(f"GRANT USAGE ON SCHEMA mqi TO {EXPORTER}; SET search_path = mqi; {GRANTS}")
            error = unavailable(table.rows)
            assert error.kind == "no_table"
            command = f"ALTER ROLE {EXPORTER} SET search_path = mqi"
            assert command in str(error)
            server.execute(database.name, command.replace("SET", f"IN DATABASE {database.name} SET"))
            assert table.rows() == [], "the advice helps without a restart"

    def test_no_table(self, server: PostgresServer) -> None:
        with opened(server.database("", "")) as table:
            error = unavailable(table.rows)
            assert (error.kind, "has no table beams" in str(error)) == ("no_table", True)

    def test_a_missing_column(self, server: PostgresServer) -> None:
        with opened(server.database(BEAMS.replace("parent_case_id", "case_id"))) as table:
            error = unavailable(table.rows)
            assert (error.kind, "no column parent_case_id" in str(error)) == ("no_table", True)

    def test_a_missing_right_is_named_with_the_command_that_grants_it(self, server: PostgresServer) -> None:
        database = server.database(grants="")
        with opened(database) as table:
            for action in (table.rows, lambda: write(table, 5.0), table.check_writable):
                error = unavailable(action)
                assert (error.kind, GRANTS.rstrip(";") in str(error)) == ("permission", True), str(error)
            database.execute(GRANTS)
            assert table.rows() == []

    def test_only_the_owner_can_add_the_column(self, server: PostgresServer) -> None:
        beams = BEAMS.replace("progress real DEFAULT 0.0,\n    hpc", "hpc")
        with opened(server.database(beams, GRANTS.replace("progress, ", ""))) as table:
            error = unavailable(table.migrate)
            assert error.kind == "permission"
            assert "let the table's owner run `ALTER TABLE beams ADD COLUMN progress" in error.advice

    def test_a_view_can_be_read_but_not_written(self, server: PostgresServer) -> None:
        beams = BEAMS.replace("TABLE beams", "TABLE real_beams") + "CREATE VIEW beams AS SELECT * FROM real_beams;"
        database = server.database(beams)
        database.execute("INSERT INTO real_beams (beam_id, parent_case_id, beam_path, status) VALUES ('b','c','','x')")
        with opened(database) as table:
            assert len(table.rows()) == 1
            for action in (table.check_writable, lambda: write(table, 5.0)):
                error = unavailable(action)
                assert error.kind == "no_table"
                assert "beams is a view" in str(error)
                assert "mirror.enabled" in error.advice

    @pytest.mark.parametrize("encoding", ["LATIN1", "EUC_KR"])
    def test_another_encoding(self, server: PostgresServer, encoding: str) -> None:
        beam_id = "é" if encoding == "LATIN1" else "환자"
        database = server.database(options=f"ENCODING {encoding} TEMPLATE template0")
        database.add(beam_id)
        with opened(database) as table:
            assert [row.beam_id for row in table.rows(0.0, ["b"])] == [beam_id]
            assert write(table, 5.0, beam_id) == {beam_id}

    def test_text_without_encoding_affects_no_other_row(self, server: PostgresServer) -> None:
        database = server.database(options="ENCODING SQL_ASCII TEMPLATE template0")
        with database.connect(client_encoding="SQL_ASCII") as connection:
            for beam_id in ("환자".encode(), b"\xff\xfe"):
                text = b"INSERT INTO beams (beam_id, parent_case_id, beam_path, status) VALUES ('%s', 'c', '', 'x')"
                connection.execute(text.replace(b"%s", beam_id))
        with opened(database) as table:
            assert {row.beam_id for row in table.rows()} == {"환자", "\udcff\udcfe"}
            assert write(table, 5.0, "환자") == {"환자"}


class TestTls:
    def test_a_verified_connection(self, secured: PostgresDatabase, authority: Authority) -> None:
        with opened(secured, sslmode="verify-full", ca_file=authority.file) as table:
            assert table.rows() == []
            query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = %s"
            assert secured.server.execute("postgres", query, EXPORTER) == [(True,)]

    def test_a_frozen_backend_behind_tls_is_given_up(
        self, secured: PostgresDatabase, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "READ_SECONDS", 0.2)
        monkeypatch.setattr(postgresql_connection, "GRACE_SECONDS", 0.2)
        with opened(secured, sslmode="verify-full", ca_file=authority.file) as table:
            table.rows()
            [process] = secured.backends()
            os.kill(process, signal.SIGSTOP)
            try:
                assert unavailable(table.rows).kind == "too_slow"
            finally:
                os.kill(process, signal.SIGCONT)

    def test_a_certificate_of_another_authority(self, secured: PostgresDatabase, tmp_path: Path) -> None:
        other = Authority(tmp_path, "other")
        with opened(secured, sslmode="verify-full", ca_file=other.file) as table:
            error = unavailable(table.rows)
            assert (error.kind, "database.ca_file" in error.advice) == ("certificate", True)

    def test_a_certificate_of_another_host(self, secured: PostgresDatabase, authority: Authority) -> None:
        url = secured.url.replace("127.0.0.1", "localhost")
        with opened(secured, url, sslmode="verify-full", ca_file=authority.file) as table:
            error = unavailable(table.rows)
            assert (error.kind, "as in the server's certificate" in error.advice) == ("certificate", True)

    def test_a_missing_ca_file(self, secured: PostgresDatabase, tmp_path: Path) -> None:
        with opened(secured, sslmode="verify-full", ca_file=tmp_path / "none.crt") as table:
            error = unavailable(table.rows)
            assert (error.kind, "name a readable file" in error.advice) == ("certificate", True)

    def test_a_server_without_tls(self, database: PostgresDatabase, authority: Authority) -> None:
        with opened(database, sslmode="verify-full", ca_file=authority.file) as table:
            error = unavailable(table.rows)
            assert (error.kind, "switch TLS on" in error.advice) == ("certificate", True)


class TestPgBouncer:
    def test_everything_works_in_transaction_mode(self, database: PostgresDatabase, bouncer: PgBouncer) -> None:
        for number in range(20):
            database.add(f"b{number}")
        url = database.url_at(bouncer.port)
        with contextlib.ExitStack() as stack:
            tables = [stack.enter_context(opened(database, url)) for _ in range(8)]
            for value in range(1, 10):
                for table in tables:  # eight clients on four connections of the server
                    assert len(table.rows(0.0, ["b1"])) == 20
                    write(table, float(value), *(f"b{number}" for number in range(20)))
            tables[0].check_writable()
            assert len(list(tables[0].iter_rows())) == 20
            assert database.progress("b7") == 9.0
            # Nothing of ours stays set for the next client of the same connection.
            with psycopg.connect(url, password=PASSWORD, autocommit=True, prepare_threshold=None) as next_client:
                assert next_client.execute("SHOW lock_timeout").fetchone() == ("0",)

    def test_a_wrong_password_is_reported(self, database: PostgresDatabase, bouncer: PgBouncer) -> None:
        database.password_file.write_text("wrong")
        with opened(database, database.url_at(bouncer.port)) as table:
            assert unavailable(table.rows).kind == "login"

    def test_a_restarted_server_is_used_again(self, server: PostgresServer, bouncer: PgBouncer) -> None:
        database = server.database()
        database.add("b")
        with opened(database, database.url_at(bouncer.port)) as table:
            table.rows()
            server.restart()
            wait_for(lambda: not _raises(table.rows), "rows again")
            assert write(table, 5.0) == {"b"}


def test_the_text_of_an_error_quotes_no_value_of_a_row(database: PostgresDatabase, table: PostgresTable) -> None:
    database.add("secret")
    database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(9); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE UPDATE ON beams FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    error = unavailable(lambda: write(table, 5.0, "secret"))
    assert error.kind == "too_slow"
    assert "secret" not in json.dumps([str(error), error.advice])
