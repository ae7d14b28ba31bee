"""Reads trusted host keys from OpenSSH's ``known_hosts`` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

An unusable line is skipped, so that a damaged line of one host does not hide another host. A line with ``@revoked``
refuses its key. Host certificates are not supported, so a line with ``@cert-authority`` makes no host trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.sources.ssh.files import read_trusted

_FIELDS = {"ssh-ed25519": 2, "ssh-rsa": 3, "ecdsa-sha2-nistp256": 3, "ecdsa-sha2-nistp384": 3, "ecdsa-sha2-nistp521": 3}
"""Supported key types, with the number of strings in such a key."""

_HASHED = "|1|"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key from one line.

    Args:
        where: the line, as ``FILE:LINE``.
        type: key type, such as ``ssh-ed25519``.
        blob: the key in SSH's wire format.
    """

    where: str
    type: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """An unusable line.

    Args:
        where: the line, as ``FILE:LINE``.
        reason: why it is unusable.
        named: whether it names the requested host.
    """

    where: str
    reason: str
    named: bool


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The entries of known_hosts files for one host.

    Args:
        trusted: trusted keys of the host.
        revoked: keys that must not be accepted.
        authorities: lines with a certificate authority for the host, as ``FILE:LINE``.
        skipped: unusable lines, of any host.
    """

    trusted: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()
    authorities: tuple[str, ...] = ()
    skipped: tuple[SkippedLine, ...] = ()

    def __add__(self, other: HostKeys) -> HostKeys:
        """Combine the entries of two files."""
        return HostKeys(
            self.trusted + other.trusted,
            self.revoked + other.revoked,
            self.authorities + other.authorities,
            self.skipped + other.skipped,
        )

    def trusts(self, blob: bytes) -> bool:
        """Whether a key is trusted.

        Args:
            blob: the key that the host presented.
        """
        return any(key.blob == blob for key in self.trusted)

    def revocation(self, blob: bytes) -> str | None:
        """Return the line that revokes a key, as ``FILE:LINE``; ``None`` if there is none.

        Args:
            blob: the key that the host presented.
        """
        return next((key.where for key in self.revoked if key.blob == blob), None)


def host_name(address: str, port: int) -> str:
    """Format a host as in known_hosts files.

    Args:
        address: name or address.
        port: its SSH port.
    """
    return address.lower() if port == 22 else f"[{address.lower()}]:{port}"


def read_known_hosts(path: Path, name: str) -> HostKeys:
    """Read the entries for a host from one file.

    Args:
        path: the file.
        name: the host, see :func:`host_name`.

    Raises:
        UntrustedFile: others can change the file.
        OSError: the file cannot be read.
    """
    return parse_known_hosts(read_trusted(path), str(path), name)


def parse_known_hosts(data: bytes, file: str, name: str) -> HostKeys:
    """Parse the entries for a host from the content of a file.

    Args:
        data: the content.
        file: its name, for messages.
        name: the host, see :func:`host_name`.
    """
    trusted: list[HostKey] = []
    revoked: list[HostKey] = []
    authorities: list[str] = []
    skipped: list[SkippedLine] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        words = line.decode("utf-8", "surrogateescape").split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{file}:{number}"
        marker = words.pop(0) if words[0].startswith("@") else ""
        named = bool(words) and _names(words[0], name)
        if marker == "@cert-authority":
            if named:
                authorities.append(where)
            continue
        key = _key(words) if marker in ("", "@revoked") else f"the marker {_shown(marker)} is unknown"
        if isinstance(key, str):
            skipped.append(SkippedLine(where, key, named))
        elif named:
            (revoked if marker else trusted).append(HostKey(where, *key))
    return HostKeys(tuple(trusted), tuple(revoked), tuple(authorities), tuple(skipped))


def _key(words: Sequence[str]) -> tuple[str, bytes] | str:
    """Return type and key from the words of a line, or the reason why it has none."""
    if len(words) < 3:
        return "it does not consist of host names, key type and key"
    kind, text = words[1:3]
    if kind.isdigit():
        return "its key is of SSH protocol 1"
    if kind not in _FIELDS:
        return f"keys of type {_shown(kind)} are not supported"
    try:
        blob = base64.b64decode(text, validate=True)
        fields = [*_strings(blob)]
    except (binascii.Error, ValueError, struct.error):
        return "its key is damaged"
    if fields[:1] != [kind.encode()]:
        return f"its key is not of type {kind}"
    if len(fields) != _FIELDS[kind] or (kind == "ssh-ed25519" and len(fields[1]) != 32):
        return "its key is damaged"
    return kind, blob


def _strings(blob: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(blob):
        (length,) = struct.unpack_from(">I", blob, at)
        at += 4 + length
        if at > len(blob):
            raise ValueError("cut short")
        yield blob[at - length : at]


def _names(patterns: str, name: str) -> bool:
    """Whether the first word of a line names a host. A negated pattern that matches excludes it."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith(_HASHED):
            found = found or _is_hash_of(pattern, name)
        elif pattern.startswith("!"):
            if matches(pattern[1:].lower(), name):
                return False
        else:
            found = found or matches(pattern.lower(), name)
    return found


def _is_hash_of(hashed: str, name: str) -> bool:
    salt, _, digest = hashed.removeprefix(_HASHED).partition("|")
    try:
        expected = hmac.digest(base64.b64decode(salt, validate=True), name.encode("utf-8", "surrogateescape"), "sha1")
        return hmac.compare_digest(expected, base64.b64decode(digest, validate=True))
    except (binascii.Error, ValueError):
        return False


def matches(pattern: str, text: str) -> bool:
    """Whether a text matches an OpenSSH pattern, whose only special characters are ``*`` and ``?``.

    Args:
        pattern: the pattern.
        text: the whole text.
    """
    # Backtracking to the last star is enough. So the time is at most proportional to pattern length times text length.
    at = in_pattern = 0
    star: tuple[int, int] | None = None
    while at < len(text):
        sign = pattern[in_pattern : in_pattern + 1]
        if sign == "*":
            star = in_pattern, at
            in_pattern += 1
        elif sign and sign in ("?", text[at]):
            in_pattern += 1
            at += 1
        elif star is not None:
            in_pattern, at = star[0] + 1, star[1] + 1
            star = star[0], at
        else:
            return False
    return not pattern[in_pattern:].strip("*")


def _shown(word: str) -> str:
    """Shorten and escape a word for a message."""
    return ascii(word[:40])


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint in the format of ``ssh-keygen -l``.

    Args:
        blob: the key.
    """
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
