"""Lines that only the holder of a key can read, and that nobody can change, leave out or put in another order.

AES-256-GCM. Each time lines are sealed it is under a key of its own, derived from the one given and a random salt,
which comes first. Within that, a line's nonce is its number, so none is ever used twice under a key, and a mark that
knows how many there were comes last: a missing end shows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_SALT_BYTES = 32


class SealBroken(Exception):
    """The lines were sealed with another key, or are not as they were."""


class Seal:
    """Seals and opens lines.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sealed(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines sealed, as ASCII, one after the other: not all of them are held at once."""
        salt = os.urandom(_SALT_BYTES)
        cipher = self._cipher(salt)
        yield base64.b64encode(salt)
        count = 0
        for count, line in enumerate(lines, start=1):
            yield base64.b64encode(cipher.encrypt(_nonce(count), line, None))
        yield base64.b64encode(cipher.encrypt(_nonce(count, end=True), b"", None))

    def opened(self, lines: Sequence[bytes]) -> list[bytes]:
        """The lines as they were before they were sealed.

        Raises:
            SealBroken: they cannot be had.
        """
        # Here and not above: who keeps no secrets need not load it.
        from cryptography.exceptions import InvalidTag

        try:
            salt, *rest, end = (base64.b64decode(line, validate=True) for line in lines)
            cipher = self._cipher(salt)
            cipher.decrypt(_nonce(len(rest), end=True), end, None)
            return [cipher.decrypt(_nonce(number), line, None) for number, line in enumerate(rest, start=1)]
        except (InvalidTag, ValueError, binascii.Error):
            raise SealBroken("was sealed with another key, or is not as it was") from None

    def _cipher(self, salt: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hmac.digest(self._key, salt, hashlib.sha256))


def _nonce(number: int, *, end: bool = False) -> bytes:
    return number.to_bytes(11, "big") + bytes([end])
