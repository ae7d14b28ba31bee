"""Encryption of what the exporter keeps on disk while ids are pseudonyms.

AES-256-GCM. Each process derives a key of its own from the one given and a random salt, and numbers its nonces, so none
is ever used twice under a key. Salt and nonce come before the ciphertext.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT_BYTES = 16
_NONCE_BYTES = 12
_CIPHERS_KEPT = 64


class DecryptionFailed(Exception):
    """The data was encrypted with another key, or has been changed."""


class Encryption:
    """Encrypts and decrypts records, and gives keyed hashes by which they are found.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._lookup_key = hmac.digest(key, b"lookup", hashlib.sha256)
        self._salt = os.urandom(_SALT_BYTES)
        self._numbers = itertools.count()
        self._cipher = lru_cache(maxsize=_CIPHERS_KEPT)(self._make_cipher)

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        """Return ``data`` encrypted.

        Args:
            data: the plain bytes.
            context: where the result will be kept; it decrypts with the same context only.
        """
        nonce = next(self._numbers).to_bytes(_NONCE_BYTES, "big")
        return self._salt + nonce + self._cipher(self._salt).encrypt(nonce, data, context)

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        """Return the plain bytes.

        Args:
            data: from :meth:`encrypt`.
            context: the same as for :meth:`encrypt`.

        Raises:
            DecryptionFailed: the key or the context is another, or the data has been changed.
        """
        # Here and not above: who does not encrypt need not load it.
        from cryptography.exceptions import InvalidTag

        salt, nonce = data[:_SALT_BYTES], data[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        try:
            return self._cipher(salt).decrypt(nonce, data[_SALT_BYTES + _NONCE_BYTES :], context)
        except (InvalidTag, ValueError):
            raise DecryptionFailed("was encrypted with another key, or has been changed") from None

    def lookup(self, *texts: str) -> str:
        """Return a keyed hash of texts: equal for equal texts, and nothing can be learned from it without the key."""
        data = b"".join(len(each).to_bytes(4, "big") + each for each in (text.encode() for text in texts))
        return hmac.digest(self._lookup_key, data, hashlib.sha256).hex()

    def decrypt_lines(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return the lines of an encrypted state file of earlier versions.

        Args:
            lines: a salt, the lines, and an end that knows how many there are; in base64.

        Raises:
            DecryptionFailed: they were encrypted with another key, or are not all there as they were.
        """
        from cryptography.exceptions import InvalidTag

        try:
            salt, *rest, end = (base64.b64decode(line, validate=True) for line in lines)
            cipher = self._cipher(salt)
            cipher.decrypt(_line_nonce(len(rest), end=True), end, None)
            return [cipher.decrypt(_line_nonce(number), line, None) for number, line in enumerate(rest, start=1)]
        except (InvalidTag, ValueError, binascii.Error):
            raise DecryptionFailed("was encrypted with another key, or has been changed") from None

    def _make_cipher(self, salt: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hmac.digest(self._key, salt, hashlib.sha256))


def _line_nonce(number: int, *, end: bool = False) -> bytes:
    return number.to_bytes(_NONCE_BYTES - 1, "big") + bytes([end])
