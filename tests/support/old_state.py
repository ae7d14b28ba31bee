"""The JSON state file as earlier versions wrote it, plain and encrypted."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION_1 = Path(__file__).parents[1] / "data" / "state" / "version-1"
"""A plain file of version 1: three runs that ended, and two beams."""


def lines_of_version_1() -> list[bytes]:
    """The lines between head and checksum."""
    return VERSION_1.read_bytes().splitlines()[1:-1]


def write_old_state(path: Path, lines: list[bytes], key: bytes | None = None, *, version: object = 1) -> None:
    """Write a state file of an earlier version, encrypted where there is a key."""
    head = {"format": "mqi-beam-exporter state", "version": version, "exporter": "0.1.0", "written_at": 5.0}
    if key is not None:
        head["sealed"] = True
        lines = _sealed(lines, key)
    data = b"".join(line + b"\n" for line in (json.dumps(head).encode(), *lines))
    path.write_bytes(data + json.dumps({"sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n")


def _sealed(lines: list[bytes], key: bytes) -> list[bytes]:
    salt = os.urandom(32)
    cipher = AESGCM(hmac.digest(key, salt, hashlib.sha256))
    nonces = [number.to_bytes(11, "big") + b"\0" for number in range(1, len(lines) + 1)]
    end = len(lines).to_bytes(11, "big") + b"\1"
    sealed = [cipher.encrypt(nonce, line, None) for nonce, line in zip(nonces, lines, strict=True)]
    return [base64.b64encode(each) for each in (salt, *sealed, cipher.encrypt(end, b"", None))]
