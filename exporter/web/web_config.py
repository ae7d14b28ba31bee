"""The web configuration: TLS, passwords and headers, in the format of Prometheus' exporter-toolkit.

The same file serves every exporter of a site. What the format has and this server cannot do is refused with a reason
and never silently left out; where Go would start unprotected (``tls_server_config`` without a certificate), it is a
mistake here. Paths in it are relative to the file.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from exporter.config.document import ConfigError, Document, Trust, quoted, read_text
from exporter.config.listen_address import parse_listen_address
from exporter.config.reading import Conflict, Conflicts, read_settings
from exporter.config.sections import SettingsSection
from exporter.config.values import NO_SECRET_HERE, as_tuple, is_file_name, is_loopback
from exporter.web import tls

_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
LEAST_COST, GREATEST_COST = 10, 14
"""Of a bcrypt hash. Below, guessing is cheap; cost 14 takes a second of a processor at each new login."""
_SOON_SECONDS = 14 * 24 * 3600
_FILES = ("cert_file", "key_file", "client_ca_file")
_HEADER_VALUE = re.compile(r"[ -~]*")
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_HOW_TO_HASH = "write a bcrypt hash: htpasswd -nBC 12 USER"

Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_tuple)]


class TlsServer(SettingsSection):
    """TLS. Without this section the server speaks plain HTTP."""

    cert_file: str = Field(description="The server's certificate and those that lead to its authority, PEM.")
    key_file: str = Field(description="Its private key, PEM, not encrypted; only the exporter's user may read it.")
    cert: Any = Field(default=None, description="Refused: a certificate in the file itself; use `cert_file`.")
    key: Any = Field(default=None, description="Refused: a key in the file itself; use `key_file`.")
    client_ca: Any = Field(default=None, description="Refused: authorities in the file itself; use `client_ca_file`.")
    client_auth_type: str = Field(
        default="NoClientCert",
        description="`NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`; only the last keeps "
        "anybody out. The format's unverified types are refused.",
    )
    client_ca_file: str | None = Field(default=None, description="Authorities of the clients' certificates, PEM.")
    client_allowed_sans: Texts = Field(
        default=(),
        description="With `RequireAndVerifyClientCert`: one of these must be a subject alternative name of the "
        "client's certificate (DNS, IP, e-mail or URI); any where not set.",
    )
    min_version: str = Field(default="TLS12", description="`TLS12` or `TLS13`; older ones are refused.")
    max_version: str = Field(default="TLS13", description="`TLS12` or `TLS13`.")
    cipher_suites: Texts = Field(default=(), description="For TLS 1.2, by their IANA names; OpenSSL's where not set.")
    prefer_server_cipher_suites: bool = Field(default=True, description="Whether the order above decides.")
    curve_preferences: Texts = Field(
        default=(), description="One of `X25519`, `CurveP256`, `CurveP384`, `CurveP521`; several where not set."
    )

    @model_validator(mode="before")
    @classmethod
    def _names_somebody(cls, data: object) -> object:
        """A list without names would let in every certificate: who wrote the key did not mean that."""
        if isinstance(data, dict) and data.get("client_allowed_sans", ("any",)) in (None, []):
            wrong = "is empty, and would allow every certificate of the authority; name who may come in, or drop it"
            raise Conflicts((Conflict(("client_allowed_sans",), wrong),))
        return data

    @field_validator("cert", "key", "client_ca", mode="before")
    @classmethod
    def _not_here(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            raise ValueError(f"is not supported: secrets and certificates stay in files; use {info.field_name}_file")
        return value

    @field_validator(*_FILES)
    @classmethod
    def _from_the_file(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None:
            return None
        if not is_file_name(path):
            raise ValueError(f"is no path; name a file: {NO_SECRET_HERE}")
        folder = (info.context or {}).get("folder", "")
        absolute = os.path.abspath(os.path.join(folder, path))
        if not os.path.isabs(path) and not os.path.lexists(absolute):
            # Not shown: a key or password that was written here is looked for as a file, too.
            where = f"a file in {folder}, where paths that do not begin with / are looked for"
            raise ValueError(f"is not the name of {where}; name the right one: {NO_SECRET_HERE}")
        if info.field_name == "key_file":
            tls.read_public_half(absolute)
        else:
            tls.read_certificates(absolute)
        return absolute

    @field_validator("client_auth_type")
    @classmethod
    def _verifies(cls, name: str) -> str:
        if name in _UNVERIFIED:
            raise ValueError(
                f"{name} lets in any certificate unverified, which Python's ssl cannot do, and protects nothing; "
                "use RequireAndVerifyClientCert"
            )
        if name not in tls.VERIFY_MODES:
            raise ValueError(f"must be {', '.join(tls.VERIFY_MODES)}, not {quoted(name)}")
        return name

    @field_validator("min_version", "max_version")
    @classmethod
    def _known_version(cls, name: str) -> str:
        if name in tls.OLD_VERSIONS:
            raise ValueError(f"{name} is broken and not offered; use TLS12 or TLS13")
        if name not in tls.VERSIONS:
            raise ValueError(f"must be {' or '.join(tls.VERSIONS)}, not {quoted(name)}")
        return name

    @field_validator("cipher_suites")
    @classmethod
    def _known_suites(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        found = []
        for position, name in enumerate(names):
            try:
                tls.openssl_suite(name)
            except ValueError as error:
                found.append(Conflict((position,), str(error)))
        Conflicts.raise_any(found)
        return names

    @field_validator("curve_preferences")
    @classmethod
    def _one_curve(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        Conflicts.raise_any(
            Conflict((position,), f"{quoted(name)} is not known here; known: {', '.join(tls.CURVES)}")
            for position, name in enumerate(names)
            if name not in tls.CURVES
        )
        if len(names) > 1:
            raise ValueError("Python's ssl takes one curve, or all of OpenSSL's; name one, or leave it out")
        return names

    @model_validator(mode="after")
    def _parts_agree(self) -> TlsServer:
        Conflicts.raise_any(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[Conflict]:
        if list(tls.VERSIONS).index(self.min_version) > list(tls.VERSIONS).index(self.max_version):
            wrong = f"{self.max_version} is older than min_version, {self.min_version}; raise it"
            yield Conflict(("max_version",), wrong, (("min_version",),))
        verifies = self.client_auth_type != "NoClientCert"
        if verifies and self.client_ca_file is None:
            wrong = f"is not set, but {self.client_auth_type} verifies by it; name the authority that signs for clients"
            yield Conflict(("client_ca_file",), wrong, (("client_auth_type",),))
        if self.client_ca_file is not None and not verifies:
            wrong = "is not used by NoClientCert; set client_auth_type to RequireAndVerifyClientCert, or drop it"
            yield Conflict(("client_ca_file",), wrong, (("client_auth_type",),))
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            wrong = "needs client_auth_type RequireAndVerifyClientCert: without a certificate there are no names"
            yield Conflict(("client_allowed_sans",), wrong, (("client_auth_type",),))
        try:
            belongs = tls.public_half(tls.read_certificates(self.cert_file)[0]) == tls.read_public_half(self.key_file)
            if not belongs:
                wrong = f"{self.key_file} is not the key of the first certificate in {self.cert_file}; name its own"
                yield Conflict(("key_file",), wrong, (("cert_file",),))
                return
            self.context()
        except ValueError as error:
            yield Conflict(("cert_file",), str(error), tuple((name,) for name in ("key_file", *_FILES)))

    def context(self) -> ssl.SSLContext:
        """The context that serves new connections.

        Raises:
            ValueError: OpenSSL refuses what it is given.
        """
        return tls.server_context(
            tls.TlsOptions(
                cert_file=self.cert_file,
                key_file=self.key_file,
                client_auth_type=self.client_auth_type,
                client_ca_file=self.client_ca_file,
                min_version=self.min_version,
                max_version=self.max_version,
                cipher_suites=self.cipher_suites,
                prefer_server_cipher_suites=self.prefer_server_cipher_suites,
                curve=self.curve_preferences[0] if self.curve_preferences else None,
            )
        )


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
    def _is_a_header(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER_VALUE.fullmatch(value):
            raise ValueError("must be one line of ASCII text")
        return value or None


class HttpServer(SettingsSection):
    """HTTP."""

    http2: bool = Field(default=False, description="`true` is refused: HTTP/1.1 is spoken.")
    headers: Headers = Headers()

    @field_validator("http2")
    @classmethod
    def _only_http1(cls, wanted: bool) -> bool:
        if wanted:
            raise ValueError("HTTP/2 is not supported; leave it out, or set it to false")
        return wanted


def _users(value: object) -> object:
    """Every user's hash is looked at, and none is ever shown: it may be a password in the clear."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a section: lines of `USER: 'HASH'`")
    found = []
    for name, hashed in value.items():
        # A name with a colon may have the password behind it; :func:`key_path` does not show it.
        wrong = _fault_of_user(name) or _fault_of_hash(hashed)
        if wrong is not None:
            found.append(Conflict((name,), wrong))
    Conflicts.raise_any(found)
    return value


def _fault_of_user(name: str) -> str | None:
    if not name or ":" in name or not name.isprintable():
        return "is no user name: it must have no colon and no control characters; write USER: 'HASH', with a blank"
    return None


def _fault_of_hash(hashed: object) -> str | None:
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
    basic_auth_users: Annotated[dict[str, str], BeforeValidator(_users)] = Field(
        default={}, description="Users and the bcrypt hashes of their passwords; nobody is asked where empty."
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
        """The files that it names, absolute."""
        section = self.tls_server_config
        named = () if section is None else (section.cert_file, section.key_file, section.client_ca_file)
        return tuple(path for path in named if path is not None)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        return self.http_server_config.headers.model_dump(by_alias=True, exclude_none=True)

    @property
    def authenticates(self) -> bool:
        """Whether nobody gets an answer without a password or a certificate of their own."""
        section = self.tls_server_config
        return bool(self.basic_auth_users) or (
            section is not None and section.client_auth_type == "RequireAndVerifyClientCert"
        )

    @property
    def certificate_expires_at(self) -> float | None:
        """When the server's certificate is over, UTC epoch seconds; ``None`` without TLS."""
        if self.tls_server_config is None:
            return None
        return tls.read_certificates(self.tls_server_config.cert_file)[0].not_valid_after_utc.timestamp()


@dataclass(frozen=True, slots=True)
class LoadedWebConfig:
    """A web configuration with what it was made into, once and for all connections that begin under it."""

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
    """Read, check, and make ready for use in this process; without a path, nothing is protected.

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
    """What is allowed but probably not meant, one sentence each.

    Args:
        path: of the file.
        config: as read from it.
        listen_address: of the web server.
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
                said = validity_of(name, at)
                found += [] if said is None else [f"{path}: {said}"]
    if len({hashed[4:6] for hashed in config.basic_auth_users.values()}) > 1:
        found.append(f"{path}: basic_auth_users: the hashes' costs differ, so the time of an answer tells of users")
    if config.basic_auth_users and _others_may_read(path):
        found.append(f"{path}: others may read the hashes of the passwords; chmod 640 {path}")
    return found


def validity_of(path: str, now: float) -> str | None:
    """What is to be said about the time of the first certificate in a file."""
    try:
        return tls.validity(path, tls.read_certificates(path)[0], now, soon_seconds=_SOON_SECONDS)
    except ValueError as error:  # replaced meanwhile
        return str(error)


def serves_tls(path: Path) -> bool:
    """Whether a web configuration asks for TLS; for clients, who may not read the files that it names."""
    try:
        return bool(Document(read_text(path), str(path)).data.get("tls_server_config"))
    except ConfigError:
        return False


def referenced_files(path: Path) -> tuple[str, ...]:
    """The file and those that it names, as far as it can be read, whatever else is wrong with it."""
    try:
        section = Document(read_text(path), str(path)).data.get("tls_server_config")
    except ConfigError:
        section = None
    named = [section.get(name) for name in _FILES] if isinstance(section, dict) else []
    return (
        str(path),
        *(os.path.join(path.parent, name) for name in named if isinstance(name, str) and "\0" not in name),
    )


def _others_may_read(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o007)
    except OSError:
        return False
