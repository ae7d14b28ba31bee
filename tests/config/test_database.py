from __future__ import annotations

import importlib.util

import pytest

from exporter.config import ConfigError, DatabaseSettings, settings_from

HERE = "postgresql://mqi@127.0.0.1/mqi"
THERE = "postgresql://mqi@db.example:5433/mqi"


def settings(database: str) -> DatabaseSettings:
    read = settings_from(f"base_directory: /data\ndatabase: {{{database}}}\n", "test")
    assert read.database is not None
    return read.database


@pytest.mark.parametrize(
    ("database", "said"),
    [
        ("", "database.path: is not set, and neither is url"),
        (f"path: /x.db, url: '{HERE}'", "database.url: is set, and path is set too"),
        ("path: /x.db, timezone: UTC", "database.timezone: is for PostgreSQL"),
        ("path: /x.db, password_file: /p", "database.password_file: is for PostgreSQL"),
        ("url: /data/mqi.db", "is not a URL of PostgreSQL; write it in full"),
        ("url: 'mysql://mqi@h/mqi'", "is not a URL of PostgreSQL"),
        ("url: 'postgresql://h/mqi'", "postgresql://USER@HOST/DATABASE"),
        ("url: 'postgresql://mqi@h'", "postgresql://USER@HOST/DATABASE"),
        (f"url: '{HERE}?options=-c%20x'", "which PgBouncer refuses"),
        (f"url: '{HERE}?sslmode=require'", "use the keys database.sslmode and database.ca_file"),
        (f"url: '{THERE}'", "database.ca_file: is not set, but sslmode is verify-full"),
        (f"url: '{HERE}', timezone: 'a b'", "database.timezone"),
    ],
)
def test_a_wrong_database_is_reported_with_what_to_do(database: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(database)
    assert said in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://mqi:pa55word@h/mqi", "postgresql://mqi@h/mqi?password=pa55word"])
def test_a_password_in_the_url_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(f"url: '{url}', sslmode: disable")
    assert "database.password_file" in str(caught.value)
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        (HERE, True),
        ("postgresql://mqi@[::1]:5432/mqi", True),
        ("postgresql://mqi@localhost/mqi", True),
        ("postgresql://mqi@/mqi?host=/run/postgresql", True),
        ("postgresql://mqi@/mqi?host=db.example", False),
        ("postgresql://mqi@localhost,db.example:5433/mqi", False),
    ],
)
def test_a_server_on_another_machine_is_verified_by_default(url: str, is_local: bool) -> None:
    database = settings(f"url: '{url}', ca_file: /ca.crt")
    assert (database.is_local, database.tls) == (is_local, "prefer" if is_local else "verify-full")


def test_the_column_is_added_by_default_in_sqlite_only() -> None:
    assert settings("path: /x.db").migrates
    assert not settings(f"url: '{HERE}'").migrates
    assert settings(f"url: '{HERE}', migrate: true").migrates


def test_the_name_shows_no_parameters() -> None:
    assert settings(f"url: '{HERE}?application_name=x'").name == HERE


def test_tls_without_verification_is_warned_of() -> None:
    read = settings_from(f"base_directory: /data\ndatabase: {{url: '{THERE}', sslmode: require}}\n", "test")
    assert any(text.startswith("database.sslmode: require lets others") for text in read.warnings())


def test_a_missing_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("exporter.config.database.find_spec", lambda name: None if name == "psycopg" else find(name))
    with pytest.raises(ConfigError, match=r"mqi-beam-exporter\[postgresql\]"):
        settings(f"url: '{HERE}'")
