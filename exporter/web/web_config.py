"""The web configuration: TLS, passwords and headers, in the format of Prometheus' exporter-toolkit.

One file can serve all exporters of a site. Settings that this server does not support are refused with a reason, never
ignored. ``tls_server_config`` without a certificate is a mistake, while exporters in Go would start unprotected. Paths
are relative to the file.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from exporter.config.document import ConfigError, Document, Trust, read_text
from exporter.config.listen_address import parse_listen_address
from exporter.config.reading import Conflict, Conflicts, read_settings
from exporter.config.sections import SettingsSection
from exporter.config.values import is_loopback
from exporter.process.trusted_files import readable_by_others
from exporter.web import tls
from exporter.web.tls_section import FILE_KEYS, TlsServer

_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
LEAST_COST, GREATEST_COST = 10, 14
"""Bounds for the cost of a bcrypt hash. A lower cost makes guessing cheap; cost 14 takes a second per new login."""
_HEADER_VALUE = re.compile(r"[ -~]*")
_HOW_TO_HASH = "write a bcrypt hash: htpasswd -nBC 12 USER"


class Headers(SettingsSection):
    """Headers of every answer; they replace the server's own."""

    content_security_policy: str | None = Field(
        default=None, alias="Content-Security-Policy", description="The page needs `'self'` for scripts and styles."
    )
    x_frame_options: Literal["deny", "sameorigin"] | None = Field(
        default=None, alias="X-Frame-Options", description="For old browsers; the server's own policy forbids frames."
    )
    x_content_type_options: Literal["nosniff"] | None = Field(
        default=None, alias="X-Content-Type-Options", description="Always sent."
    )
    x_xss_protection: str | None = Field(default=None, alias="X-XSS-Protection", description="For old browsers.")
    strict_transport_security: str | None = Field(
        default=None, alias="Strict-Transport-Security", description="Makes browsers insist on HTTPS."
    )

    @field_validator("*")
    @classmethod
    def _check_header(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER_VALUE.fullmatch(value):
            raise ValueError("must be one line of ASCII text")
        return value or None


class HttpServer(SettingsSection):
    """HTTP."""

    http2: bool = Field(default=False, description="`true` is refused: only HTTP/1.1 is supported.")
    headers: Headers = Headers()

    @field_validator("http2")
    @classmethod
    def _refuse_http2(cls, wanted: bool) -> bool:
        if wanted:
            raise ValueError("HTTP/2 is not supported; leave it out, or set it to false")
        return wanted


def _check_users(value: object) -> object:
    """Check every user and hash. No hash is ever shown: it may be a password in plain text."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a section: lines of `USER: 'HASH'`")
    found = []
    for name, hashed in value.items():
        # A name with a colon may contain the password; :func:`key_path` does not show it.
        wrong = _check_user(name) or _check_hash(hashed)
        if wrong is not None:
            found.append(Conflict((name,), wrong))
    Conflicts.raise_any(found)
    return value


def _check_user(name: str) -> str | None:
    if not name or ":" in name or not name.isprintable():
        return "is no user name: it must have no colon and no control characters; write USER: 'HASH', with a space"
    return None


def _check_hash(hashed: object) -> str | None:
    found = _HASH.fullmatch(hashed) if isinstance(hashed, str) else None
    if found is None:
        return f"is not a bcrypt hash (which begins with $2y$, $2b$ or $2a$ and has 60 characters); {_HOW_TO_HASH}"
    cost = int(found[1])
    if cost < LEAST_COST:
        return f"cost {cost} is too low: passwords could be guessed from the hash; use {LEAST_COST} to {GREATEST_COST}"
    if cost > GREATEST_COST:
        return f"cost {cost} is too high: each new login would take seconds; use {LEAST_COST} to {GREATEST_COST}"
    return None


class WebConfig(SettingsSection):
    """TLS, passwords and headers of the web server: `web.config_file`, `--web.config.file`."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: Annotated[dict[str, str], BeforeValidator(_check_users)] = Field(
        default={}, description="Users and the bcrypt hashes of their passwords; without users, no password is needed."
    )
    rate_limit: Any = Field(default=None, description="Refused; failed logins are limited by themselves.")

    @field_validator("rate_limit", mode="before")
    @classmethod
    def _no_rate_limit(cls, value: object) -> object:
        if value is not None:
            raise ValueError("is not supported; leave it out (failed logins are limited per address in any case)")
        return value

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of the files that it names."""
        section = self.tls_server_config
        named = () if section is None else (section.cert_file, section.key_file, section.client_ca_file)
        return tuple(path for path in named if path is not None)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        return self.http_server_config.headers.model_dump(by_alias=True, exclude_none=True)

    @property
    def authenticates(self) -> bool:
        """Whether every client needs a password or a certificate."""
        section = self.tls_server_config
        return bool(self.basic_auth_users) or (
            section is not None and section.client_auth_type == "RequireAndVerifyClientCert"
        )

    @property
    def certificate_expires_at(self) -> float | None:
        """When the server's certificate expires, UTC epoch seconds; ``None`` without TLS."""
        if self.tls_server_config is None:
            return None
        return tls.read_certificates(self.tls_server_config.cert_file)[0].not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class LoadedWebConfig:
    """A web configuration, and the TLS context and expiry made from it once for all its connections."""

    config: WebConfig
    context: ssl.SSLContext | None
    certificate_expires_at: float | None


def read_web_config(path: Path, trust: Trust = "any_owner") -> WebConfig:
    """Read and check a web configuration with the files that it names.

    Args:
        path: the file.
        trust: who may be able to change it, as of :func:`~exporter.config.document.read_text`.

    Raises:
        ConfigError: with all mistakes at once, by line.
    """
    return read_settings(WebConfig, read_text(path, trust), str(path), context={"folder": os.path.abspath(path.parent)})


def load_web_config(path: Path | None) -> LoadedWebConfig:
    """Read a web configuration, check it and make its TLS context.

    Args:
        path: the file; ``None`` for plain HTTP without passwords.

    Raises:
        ConfigError: with all mistakes at once, by line.
    """
    if path is None:
        return LoadedWebConfig(WebConfig(), None, None)
    config = read_web_config(path, "owned")
    section = config.tls_server_config
    try:
        context = None if section is None else section.context()
        return LoadedWebConfig(config, context, config.certificate_expires_at)
    except ValueError as error:  # a file was replaced between the check and here
        raise ConfigError([f"{path}: tls_server_config: {error}"]) from None


def config_warnings(path: Path, config: WebConfig, listen_address: str, now: float | None = None) -> list[str]:
    """List settings that are allowed but probably not intended, one sentence each.

    Args:
        path: the file.
        config: the configuration read from it.
        listen_address: the web server's.
        now: UTC epoch seconds.
    """
    found = []
    host, _ = parse_listen_address(listen_address)
    section = config.tls_server_config
    if not is_loopback(host):
        if section is None:
            also = "; passwords go over the network in the clear" if config.basic_auth_users else ""
            found.append(f"{path}: {listen_address} is reachable from other machines without TLS{also}")
        if not config.authenticates:
            found.append(
                f"{path}: {listen_address} is reachable from other machines and asks for no password and no "
                "certificate; set basic_auth_users or client_auth_type"
            )
    if section is not None:
        at = time.time() if now is None else now
        for name in (section.cert_file, section.client_ca_file):
            if name is not None:
                warning = tls.validity_warning(name, at)
                found += [] if warning is None else [f"{path}: {warning}"]
    if len({hashed[4:6] for hashed in config.basic_auth_users.values()}) > 1:
        found.append(f"{path}: basic_auth_users: the hashes' costs differ, so response times reveal which users exist")
    if config.basic_auth_users and _others_may_read(path):
        found.append(f"{path}: others may read the hashes of the passwords; chmod 640 {path}")
    return found


def serves_tls(path: Path) -> bool:
    """Whether a web configuration enables TLS. For clients, which may have no permission to read its files."""
    try:
        return bool(Document(read_text(path), str(path)).data.get("tls_server_config"))
    except ConfigError:
        return False


def referenced_files(path: Path) -> tuple[str, ...]:
    """List the file and the files it names, whatever else is wrong with it."""
    try:
        section = Document(read_text(path), str(path)).data.get("tls_server_config")
    except ConfigError:
        section = None
    named = [section.get(name) for name in FILE_KEYS] if isinstance(section, dict) else []
    return (
        str(path),
        *(os.path.join(path.parent, name) for name in named if isinstance(name, str) and "\0" not in name),
    )


def _others_may_read(path: Path) -> bool:
    try:
        return readable_by_others(path, path.stat(), group_may_read=True) is not None
    except OSError:
        return False
