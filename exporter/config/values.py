"""Types of values in the configuration. Their errors say what is wrong and what to write."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from exporter.config.document import PEM_PREFIX, quoted

THIRTY_DAYS_SECONDS = 30 * 24 * 3600
NO_SECRET_HERE = "a key or password itself must not stand here"


def as_tuple(value: object) -> object:
    """Convert a list, or one text written instead of a list, to a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def compile_pattern(pattern: str | bytes) -> re.Pattern[Any]:
    """Compile a regular expression.

    Raises:
        ValueError: it is not valid; says why.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        shown = pattern if isinstance(pattern, str) else pattern.decode()
        raise ValueError(f"{shown!r} is not a valid regular expression: {error}") from None


def _line_pattern(text: str) -> str:
    # Logs are matched as bytes, where escapes such as \u do not exist. So check the pattern as bytes.
    if compile_pattern(text.encode("utf-8", "surrogatepass")).search(b""):
        raise ValueError(f"{text!r} matches an empty line, so it would match every line; make it say more")
    return text


def _pattern_with(*groups: int) -> AfterValidator:
    def check(text: str) -> str:
        found = compile_pattern(_line_pattern(text).encode("utf-8", "surrogatepass")).groups
        if found not in groups:
            wanted = " or ".join(str(count) for count in groups)
            raise ValueError(f"{text!r} has {found} groups (...), but must have {wanted}; write others as (?:...)")
        return text

    return AfterValidator(check)


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{quoted(text)} is not an absolute path; write it from / on")
    return text


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("must be a path, written as text")
    return Path(_absolute(str(value)))


def is_file_name(text: str) -> bool:
    """Return whether a text can be a file name. Several lines or a key (PEM) are the content of a file."""
    return bool(text) and text.isprintable() and PEM_PREFIX not in text


def _named(text: str) -> str:
    # Do not quote a text that is not a path: it is often the key or the password itself.
    if not text.startswith("/") or not is_file_name(text):
        raise ValueError(f"is not an absolute path; name the file, from / on: {NO_SECRET_HERE}")
    return text


def _named_path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError(f"must be a path, written as text: {NO_SECRET_HERE}")
    return Path(_named(str(value)))


def _named_text(value: object) -> str:
    return str(_named_path(value))


def strip_login(url: str) -> str:
    """Return a URL for messages without user and password: everything before an @ is removed."""
    return re.sub(r"\A([a-zA-Z][a-zA-Z0-9+.-]*://)?.*@", lambda found: found[1] or "", url, flags=re.DOTALL)


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        # Reading the port checks it; it may be part of a password.
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        login = "@" in parts.netloc
    except ValueError:
        valid = login = False
    if not valid or not text.isprintable() or " " in text:
        shown = quoted(strip_login(text))
        raise ValueError(f"{shown} is not an http or https URL; write it in full, as https://host/path")
    if login:
        raise ValueError("holds a user or password (before the @), which the page would show to everybody; drop them")
    return text


def _database_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        login = parts.netloc.rpartition("@")[0]
        parameters = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        valid = parts.scheme in ("postgresql", "postgres") and not parts.fragment and bool(parts.path.strip("/"))
    except ValueError:
        valid, login, parameters = False, "", set()
    if ":" in login or "@" in login or "password" in parameters:
        raise ValueError("holds a password; write it into a file and name that in database.password_file")
    if not valid or not login or not text.isprintable() or " " in text:
        shown = quoted(strip_login(text))
        raise ValueError(f"{shown} is not a URL of PostgreSQL; write it in full, as postgresql://USER@HOST/DATABASE")
    own = sorted(parameters & {"sslmode", "sslrootcert"})
    if own:
        raise ValueError(f"holds {' and '.join(own)}; use the keys database.sslmode and database.ca_file")
    if "options" in parameters:
        raise ValueError("holds options, which PgBouncer refuses; set them at the server with ALTER ROLE ... SET")
    return text


def hosts_of_url(url: str) -> list[str]:
    """Return the hosts that a valid URL of a database names: none, or a path, for a socket of this machine."""
    parts = urlsplit(url)
    listed = parts.netloc.rpartition("@")[2].split(",")
    named = [host for name, host in parse_qsl(parts.query) if name in ("host", "hostaddr")]
    return [host for each in [*listed, *named] if (host := re.sub(r":\d*\Z", "", each).strip("[]"))]


def is_loopback(host: str) -> bool:
    """Return whether a server on this host can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


LinePatterns: TypeAlias = Annotated[
    tuple[Annotated[str, AfterValidator(_line_pattern)], ...], BeforeValidator(as_tuple)
]
TotalPatterns: TypeAlias = Annotated[tuple[Annotated[str, _pattern_with(1)], ...], BeforeValidator(as_tuple)]
CounterPatterns: TypeAlias = Annotated[tuple[Annotated[str, _pattern_with(1, 2)], ...], BeforeValidator(as_tuple)]
Statuses: TypeAlias = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)]
AbsolutePath: TypeAlias = Annotated[
    str, AfterValidator(_absolute), WithJsonSchema({"type": "string", "format": "path"})
]
AbsoluteFile: TypeAlias = Annotated[Path, BeforeValidator(_absolute_path)]
NamedFile: TypeAlias = Annotated[Path, BeforeValidator(_named_path)]
"""Value of a key ``*_file``. It is quoted only if it is a path, because people sometimes write the secret itself."""
NamedFilePath: TypeAlias = Annotated[
    str, BeforeValidator(_named_text), WithJsonSchema({"type": "string", "format": "path"})
]
HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})]
DatabaseUrl: TypeAlias = Annotated[
    str, AfterValidator(_database_url), WithJsonSchema({"type": "string", "format": "uri"})
]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=THIRTY_DAYS_SECONDS)]
