"""TLS: checks of certificates and keys, and names of the format for OpenSSL.

Files are checked before OpenSSL reads them, since its messages (``KEY_VALUES_MISMATCH``) do not say what to do. No
message contains a part of a private key. ``cryptography`` is imported where it is used: it takes 8 MiB, and most
exporters serve no TLS.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.process.trusted_files import readable_by_others

if TYPE_CHECKING:
    from cryptography import x509

_SIZE_BYTES_AT_MOST = 1024 * 1024
_SOON_SECONDS = 14 * 24 * 3600

VERSIONS: Mapping[str, ssl.TLSVersion] = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
"""The supported versions, oldest first."""
OLD_VERSIONS = ("TLS10", "TLS11")
"""Versions of the format that are insecure, and that OpenSSL no longer supports."""
CURVES: Mapping[str, str] = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
"""OpenSSL's names of curves by Go's, which the format uses."""
VERIFY_MODES: Mapping[str, ssl.VerifyMode] = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_SUITES: Mapping[str, str] = {
    **{
        f"TLS_ECDHE_{kind}_WITH_{name}": f"ECDHE-{kind}-{openssl}"
        for kind in ("ECDSA", "RSA")
        for name, openssl in (
            ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
            ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
            ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
            ("AES_128_CBC_SHA", "AES128-SHA"),
            ("AES_256_CBC_SHA", "AES256-SHA"),
        )
    },
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}


def openssl_suite(name: str) -> str:
    """Return OpenSSL's name of a cipher suite.

    Raises:
        ValueError: the suite cannot be chosen; says why.
    """
    if name in _TLS13_SUITES:
        raise ValueError(f"{name} belongs to TLS 1.3, whose suites Python cannot choose; leave it out, it is offered")
    if name not in _SUITES:
        raise ValueError(f"{name!r} is not a cipher suite known here; known: {', '.join(_SUITES)}")
    return _SUITES[name]


def read_certificates(path: str) -> list[x509.Certificate]:
    """Read the certificates in a PEM file; the first is the server's own, or an authority's.

    Raises:
        ValueError: the file has none; says why and what to do.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    data = _read(path)
    try:
        found = x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm):
        found = []
    if not found:
        raise ValueError(
            f"{path} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); convert or replace it"
        )
    return found


def read_public_key(path: str) -> bytes:
    """Read a private key from a PEM file that nobody else may read, and return its public key (DER).

    Raises:
        ValueError: the file has none, or others may read or change it; says why and what to do.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, private=True)
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise ValueError(
            f"{path} is encrypted; write it without a passphrase, readable by the exporter alone"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{path} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None
    return _as_bytes(key.public_key())


def public_key(certificate: x509.Certificate) -> bytes:
    """Return a certificate's public key (DER)."""
    return _as_bytes(certificate.public_key())


def _as_bytes(public_key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def validity_warning(path: str, now: float) -> str | None:
    """Warn if the first certificate of a file has expired, is not valid yet, or expires soon; else ``None``."""
    try:
        certificate = read_certificates(path)[0]
    except ValueError as error:  # the file was replaced meanwhile
        return str(error)
    at = datetime.fromtimestamp(now, timezone.utc)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end < at:
        return f"{path} expired on {end:%Y-%m-%d}; clients will refuse it: renew it"
    if begin > at:
        return f"{path} is valid only from {begin:%Y-%m-%d %H:%M} UTC on; clients will refuse it: check both clocks"
    if (end - at).total_seconds() < _SOON_SECONDS:
        return f"{path} expires on {end:%Y-%m-%d}; renew it (it is read again without a restart)"
    return None


def names_of(peer_certificate: Mapping[str, Any] | None) -> set[str]:
    """Return the subject alternative names (DNS, IP, e-mail, URI) of a certificate from ``SSLObject.getpeercert()``."""
    found: set[str] = set()
    for kind, value in (peer_certificate or {}).get("subjectAltName", ()):
        if kind == "IP Address":
            found.add(str(ipaddress.ip_address(value.strip())))
        elif kind in ("DNS", "email", "URI"):
            found.add(value)
    return found


def _read(path: str, *, private: bool = False) -> bytes:
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_SIZE_BYTES_AT_MOST + 1)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}; name a file that the exporter's user can read"
        ) from None
    if len(data) > _SIZE_BYTES_AT_MOST:
        raise ValueError(f"{path} is larger than {_SIZE_BYTES_AT_MOST} bytes; this is not a PEM file")
    if private and (exposed := readable_by_others(path, status, group_may_read=True)) is not None:
        raise ValueError(f"{exposed}, and make a new key")
    return data
