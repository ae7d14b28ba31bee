"""Errors of PostgreSQL as :class:`~exporter.database.unavailable.DatabaseUnavailable`, each with advice.

A failed statement has an SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). A failed login has
none in libpq, only a text, so its English phrases are recognised; a server that speaks another language is told from
the others by its text alone.
"""

from __future__ import annotations

import re

import psycopg

from exporter.database.unavailable import DatabaseUnavailable

GRANT = "GRANT SELECT, UPDATE (progress, updated_at) ON beams TO {user}"
ADD_COLUMN = "ALTER TABLE beams ADD COLUMN progress real DEFAULT 0.0"

TRIES_AGAIN = "the exporter tries again"
_PASSWORD = ("login", "check the user in database.url and the password in database.password_file")
_NO_DATABASE = ("missing", "check the name of the database at the end of database.url")
_LOCKED = ("locked", f"another transaction holds the table; {TRIES_AGAIN}")
_RESTARTING = ("unreachable", f"the server stops, starts or has ended the connection; {TRIES_AGAIN}")
_ENCODING = ("encoding", "text of the table does not fit the database's encoding; a database in UTF8 holds all text")
_UNREACHABLE = ("unreachable", "is the server running, and is database.url right?")

_STATES = {
    "08P01": ("unreachable", "if PgBouncer is in between: is the parameter named above allowed there?"),
    "22021": _ENCODING,
    "22P05": _ENCODING,
    "22023": ("timezone", "write database.timezone as PostgreSQL knows it, such as Asia/Seoul"),
    "25006": ("read_only", "name the primary server in database.url, or add ?target_session_attrs=read-write"),
    "28000": _PASSWORD,
    "28P01": _PASSWORD,
    "3D000": _NO_DATABASE,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "42501": ("permission", f"let the table's owner run `{GRANT}`"),
    "42703": ("no_column", "its columns have changed; the exporter reads them again"),
    "42P01": ("no_table", "check database.url: the communicator creates the table at its first start"),
    "53100": ("disk_full", "free space on the server"),
    "53300": ("unreachable", f"all connections of the server are taken; {TRIES_AGAIN}"),
    "55P03": _LOCKED,
    "57014": ("too_slow", "is the server overloaded, or does the table have triggers?"),
    "57P01": _RESTARTING,
    "57P02": _RESTARTING,
    "57P03": _RESTARTING,
}

_PHRASES = (
    ("certificate verify failed", ("certificate", "name the authority that signed it in database.ca_file")),
    ("does not match host name", ("certificate", "write the host in database.url as in the server's certificate")),
    ("root certificate file", ("certificate", "name a readable file with certificates in database.ca_file")),
    (
        "does not support SSL",
        ("certificate", "switch TLS on at the server; database.sslmode: disable only on a network that you trust"),
    ),
    ("no password supplied", ("login", "write the password into a file and name it in database.password_file")),
    ("authentication failed", _PASSWORD),
    ("no pg_hba.conf entry", ("login", "let pg_hba.conf of the server admit this user from this machine")),
    ("too many clients", ("unreachable", f"all connections of the server are taken; {TRIES_AGAIN}")),
    ("the database system is", _RESTARTING),
    ("failed to resolve host", ("unreachable", "check the host in database.url")),
    ("could not translate host name", ("unreachable", "check the host in database.url")),
    (
        "unsupported startup parameter",
        (
            "unreachable",
            "PgBouncer refuses this parameter of database.url; drop it (or see ignore_startup_parameters)",
        ),
    ),
    ("invalid URI query parameter", ("unreachable", "drop this parameter from database.url")),
    ("Connection refused", _UNREACHABLE),
)
_DATABASE_IS_MISSING = re.compile(r'database ".*" does not exist')
_USER_IS_MISSING = re.compile(r'role ".*" (does not exist|is not permitted to log in)')


def unavailable(kind: str, action: str, name: str, reason: str, advice: str) -> DatabaseUnavailable:
    """Make the error for a failed action.

    Args:
        kind: see :class:`~exporter.database.unavailable.DatabaseUnavailable`.
        action: what failed, as in "cannot ACTION DATABASE".
        name: the database, without password.
        reason: why.
        advice: what the operator can do.
    """
    return DatabaseUnavailable(kind, f"cannot {action} {name}: {reason}", advice)


def translate(error: psycopg.Error, action: str, name: str, user: str) -> DatabaseUnavailable:
    """Turn an error of the driver into ours.

    Only the primary message is kept: detail and context quote values of rows.

    Args:
        error: the error.
        action: see :func:`unavailable`.
        name: see :func:`unavailable`.
        user: the role that logs in.
    """
    reason = " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__
    kind, advice = _STATES.get(error.sqlstate or "", ("", ""))
    if not kind:
        kind, advice = _by_text(reason)
    return unavailable(kind, action, name, reason, advice.format(user=user))


def _by_text(reason: str) -> tuple[str, str]:
    for phrase, meaning in _PHRASES:
        if phrase in reason:
            return meaning
    if _DATABASE_IS_MISSING.search(reason):
        return _NO_DATABASE
    if _USER_IS_MISSING.search(reason):
        return _PASSWORD
    return ("unreachable", TRIES_AGAIN)
