"""The section ``tls_server_config`` of the web configuration."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from exporter.config.document import quoted
from exporter.config.reading import Conflict, Conflicts
from exporter.config.sections import SettingsSection
from exporter.config.values import NO_SECRET_HERE, as_tuple, is_file_name
from exporter.web import tls

FILE_KEYS = ("cert_file", "key_file", "client_ca_file")
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")

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
        description="`NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`; only the last "
        "requires a certificate. The format's unverified types are refused.",
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
    def _refuse_empty_list(cls, data: object) -> object:
        """Refuse an empty list: it would admit every certificate, which cannot be intended."""
        if isinstance(data, dict) and data.get("client_allowed_sans", ("any",)) in (None, []):
            wrong = "is empty, and would allow every certificate of the authority; name clients, or drop it"
            raise Conflicts((Conflict(("client_allowed_sans",), wrong),))
        return data

    @field_validator("cert", "key", "client_ca", mode="before")
    @classmethod
    def _refuse_inline_secret(cls, value: object, info: ValidationInfo) -> object:
        if value is not None:
            raise ValueError(f"is not supported: secrets and certificates stay in files; use {info.field_name}_file")
        return value

    @field_validator(*FILE_KEYS)
    @classmethod
    def _check_file(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None:
            return None
        if not is_file_name(path):
            raise ValueError(f"is no path; name a file: {NO_SECRET_HERE}")
        folder = (info.context or {}).get("folder", "")
        absolute = os.path.abspath(os.path.join(folder, path))
        if not os.path.isabs(path) and not os.path.lexists(absolute):
            # The value is not shown: it may be a key or password instead of a file name.
            where = f"a file in {folder}, where paths that do not begin with / are looked for"
            raise ValueError(f"is not the name of {where}; name the right one: {NO_SECRET_HERE}")
        if info.field_name == "key_file":
            tls.read_public_key(absolute)
        else:
            tls.read_certificates(absolute)
        return absolute

    @field_validator("client_auth_type")
    @classmethod
    def _check_client_auth_type(cls, name: str) -> str:
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
    def _check_version(cls, name: str) -> str:
        if name in tls.OLD_VERSIONS:
            raise ValueError(f"{name} is broken and not offered; use TLS12 or TLS13")
        if name not in tls.VERSIONS:
            raise ValueError(f"must be {' or '.join(tls.VERSIONS)}, not {quoted(name)}")
        return name

    @field_validator("cipher_suites")
    @classmethod
    def _check_suites(cls, names: tuple[str, ...]) -> tuple[str, ...]:
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
    def _check_curves(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        Conflicts.raise_any(
            Conflict((position,), f"{quoted(name)} is not known here; known: {', '.join(tls.CURVES)}")
            for position, name in enumerate(names)
            if name not in tls.CURVES
        )
        if len(names) > 1:
            raise ValueError("Python's ssl takes one curve, or all of OpenSSL's; name one, or leave it out")
        return names

    @model_validator(mode="after")
    def _check_contradictions(self) -> TlsServer:
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
            belongs = tls.public_key(tls.read_certificates(self.cert_file)[0]) == tls.read_public_key(self.key_file)
            if not belongs:
                wrong = f"{self.key_file} is not the key of the first certificate in {self.cert_file}; name its own"
                yield Conflict(("key_file",), wrong, (("cert_file",),))
                return
            self.context()
        except ValueError as error:
            yield Conflict(("cert_file",), str(error), tuple((name,) for name in ("key_file", *FILE_KEYS)))

    def context(self) -> ssl.SSLContext:
        """Make the context for new connections.

        Raises:
            ValueError: OpenSSL refuses a setting or file; says which.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.minimum_version = tls.VERSIONS[self.min_version]
            context.maximum_version = tls.VERSIONS[self.max_version]
            context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
            if not self.prefer_server_cipher_suites:
                context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
            if self.cipher_suites:
                context.set_ciphers(":".join(tls.openssl_suite(name) for name in self.cipher_suites))
            for curve in self.curve_preferences:
                context.set_ecdh_curve(tls.CURVES[curve])
            context.set_alpn_protocols(["http/1.1"])
            # Without a password function, OpenSSL would ask on the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
            context.verify_mode = tls.VERIFY_MODES[self.client_auth_type]
            if self.client_ca_file is not None:
                context.load_verify_locations(self.client_ca_file)
        except ssl.SSLError as error:
            raise ValueError(f"OpenSSL refuses it: {error.reason or error}") from None
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        return context
