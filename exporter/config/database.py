"""The section ``database``: the communicator's SQLite file, or its database of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, model_validator

from exporter.config.reading import Conflict, Conflicts
from exporter.config.sections import SettingsSection
from exporter.config.values import AbsoluteFile, DatabaseUrl, NamedFile, hosts_of_url, is_loopback


class DatabaseSettings(SettingsSection):
    """The communicator's database: beams are discovered in it and progress is mirrored into it.

    It is an SQLite file (`path`) or a database of PostgreSQL (`url`, docs/postgresql.md). One of the two is needed
    unless beams are found by `directory`.
    """

    path: AbsoluteFile | None = Field(default=None, description="SQLite: the database file, absolute; never created.")
    url: DatabaseUrl | None = Field(
        default=None,
        description="PostgreSQL: `postgresql://USER@HOST:PORT/DATABASE`, without password. Through PgBouncer, too.",
    )
    password_file: NamedFile | None = Field(
        default=None,
        description="PostgreSQL: file whose first line is the password; only the exporter's user (and a group) may "
        "read it.",
    )
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        default=None,
        description="PostgreSQL: TLS, as in libpq. Default: `verify-full`, and `prefer` for a server on this machine.",
    )
    ca_file: AbsoluteFile | None = Field(
        default=None,
        description="PostgreSQL: certificates of the authority that signed the server's. Needed for `verify-full` and "
        "`verify-ca`.",
    )
    timezone: str = Field(
        default="UTC",
        pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$",
        description="PostgreSQL: zone of the column `updated_at`, if it is a `timestamp` without time zone, such as "
        "`Asia/Seoul`.",
    )
    migrate: bool | None = Field(
        default=None,
        description="Add the column `progress` to `beams` where it is missing. Default: `true` with `path`, `false` "
        "with `url`, where only the table's owner can.",
    )
    busy_timeout_ms: int = Field(
        default=500,
        ge=0,
        le=1000,
        description="How long a statement waits for the communicator's lock, milliseconds.",
    )

    @property
    def name(self) -> str:
        """Path or URL, for people."""
        return str(self.path) if self.url is None else self.url.partition("?")[0]

    @property
    def is_local(self) -> bool:
        """Whether no network lies between."""
        hosts = [] if self.url is None else hosts_of_url(self.url)
        return all(host.startswith("/") or is_loopback(host) for host in hosts)

    @property
    def tls(self) -> str:
        """``sslmode``, or its default."""
        return self.sslmode or ("prefer" if self.is_local else "verify-full")

    @property
    def migrates(self) -> bool:
        """``migrate``, or its default."""
        return self.url is None if self.migrate is None else self.migrate

    @model_validator(mode="after")
    def _one_database(self) -> DatabaseSettings:
        Conflicts.raise_any(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[Conflict]:
        if self.path is not None and self.url is not None:
            yield Conflict(
                ("url",), "is set, and path is set too; keep the one that the communicator uses", (("path",),)
            )
        elif self.path is None and self.url is None:
            yield Conflict(("path",), "is not set, and neither is url; name the communicator's database")
        if self.url is None:
            for key in ("password_file", "sslmode", "ca_file", "timezone"):
                if key in self.model_fields_set:
                    yield Conflict((key,), "is for PostgreSQL, but url is not set; drop it", (("url",),))
            return
        if find_spec("psycopg") is None:
            wrong = "needs the package psycopg; install the exporter as mqi-beam-exporter[postgresql]"
            yield Conflict(("url",), wrong)
        if self.tls.startswith("verify") and self.ca_file is None:
            wrong = (
                f"is not set, but sslmode is {self.tls}; name the certificate of the authority that signed the "
                "server's, or set sslmode to require, which does not verify the server"
            )
            yield Conflict(("ca_file",), wrong, (("sslmode",), ("url",)))
