"""Host keys that are trusted: reads OpenSSH's ``known_hosts`` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

A line that cannot be used is skipped, so that a damaged line of one host does not hide another host. A line with
``@revoked`` refuses its key. Host certificates are not supported: a line with ``@cert-authority`` trusts nobody here.
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
"""Key types that we can check, with the number of strings that such a key consists of."""

_HASHED = "|1|"


@dataclass(frozen=True, slots=True)
class HostKey:
    """A key that a line names.

    Args:
        where: the line, as ``FILE:LINE``.
        type: of the key, as ``ssh-ed25519``.
        blob: the key as SSH sends it.
    """

    where: str
    type: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line that cannot be used.

    Args:
        where: the line, as ``FILE:LINE``.
        reason: why, as the rest of a sentence.
        named: whether it names the host that was looked for.
    """

    where: str
    reason: str
    named: bool


@dataclass(frozen=True, slots=True)
class HostKeys:
    """What known_hosts files say of one host.

    Args:
        trusted: its keys; any of them is right.
        revoked: keys that must not be accepted.
        authorities: lines that trust a certificate authority for it, as ``FILE:LINE``.
        skipped: lines of the files that cannot be used, of whatever host.
    """

    trusted: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()
    authorities: tuple[str, ...] = ()
    skipped: tuple[SkippedLine, ...] = ()

    def __add__(self, other: HostKeys) -> HostKeys:
        """What two files say together."""
        return HostKeys(
            self.trusted + other.trusted,
            self.revoked + other.revoked,
            self.authorities + other.authorities,
            self.skipped + other.skipped,
        )

    def trusts(self, blob: bytes) -> bool:
        """Whether a key is the host's.

        Args:
            blob: the key that the host has shown.
        """
        return any(key.blob == blob for key in self.trusted)

    def revocation(self, blob: bytes) -> str | None:
        """The line that revokes a key, as ``FILE:LINE``; ``None`` where none does.

        Args:
            blob: the key that the host has shown.
        """
        return next((key.where for key in self.revoked if key.blob == blob), None)


def host_name(address: str, port: int) -> str:
    """A host as known_hosts files write it.

    Args:
        address: name or address.
        port: its SSH port.
    """
    return address.lower() if port == 22 else f"[{address.lower()}]:{port}"


def read_known_hosts(path: Path, name: str) -> HostKeys:
    """What one file says of a host.

    Args:
        path: the file.
        name: the host, see :func:`host_name`.

    Raises:
        UntrustedFile: others can change the file.
        OSError: the file cannot be read.
    """
    return parse_known_hosts(read_trusted(path), str(path), name)


def parse_known_hosts(data: bytes, file: str, name: str) -> HostKeys:
    """What the content of a file says of a host.

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
        key = _key(words) if marker in ("", "@revoked") else f"the mark {_shown(marker)} is not known"
        if isinstance(key, str):
            skipped.append(SkippedLine(where, key, named))
        elif named:
            (revoked if marker else trusted).append(HostKey(where, *key))
    return HostKeys(tuple(trusted), tuple(revoked), tuple(authorities), tuple(skipped))


def _key(words: Sequence[str]) -> tuple[str, bytes] | str:
    """Type and key of a line's words, or why there is none."""
    if len(words) < 3:
        return "it is not host names, key type and key"
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
    """Whether the first word of a line names a host; a negated pattern that matches decides."""
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
    """Whether a text is that of a pattern of OpenSSH, where ``*`` and ``?`` are the only signs with a meaning.

    Args:
        pattern: the pattern.
        text: the whole text.
    """
    # Backtracking to the last star alone is enough, and keeps the time within pattern times text.
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
    """A word of the file as a message shows it."""
    return ascii(word[:40])


def fingerprint(blob: bytes) -> str:
    """A key's fingerprint, as ``ssh-keygen -l`` shows it.

    Args:
        blob: the key.
    """
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
