"""Encodes ids and states for the columns of the store, and decodes and validates them.

Each row has a checksum. With an :class:`~exporter.privacy.encryption.Encryption` ids are keyed hashes, and everything
else is encrypted, except the time when a run ended.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from exporter.beams.snapshot import BeamKey, EndedRun
from exporter.persistence.errors import StateUnusable
from exporter.privacy.encryption import DecryptionFailed, Encryption

_run = TypeAdapter(EndedRun)


class Codec:
    """Encodes ids and JSON for the database, and decodes them.

    Args:
        encryption: encrypts them; without it they are stored as they are.
    """

    def __init__(self, encryption: Encryption | None) -> None:
        self._encryption = encryption

    def ids(self, key: BeamKey) -> tuple[str, str]:
        """Return the values of the columns ``case_id`` and ``beam_id``."""
        if self._encryption is None:
            return key.case_id, key.beam_id
        return self.case_id(key.case_id), self._encryption.lookup("beam", key.case_id, key.beam_id)

    def case_id(self, case_id: str) -> str:
        """Return the value of the column ``case_id``."""
        return case_id if self._encryption is None else self._encryption.lookup("case", case_id)

    def encode(self, state: bytes, *place: str) -> tuple[str | bytes, int]:
        """Return the values of the columns ``state`` and ``checksum``.

        Args:
            state: JSON.
            place: the table and the row; :meth:`decode` needs the same.
        """
        if self._encryption is None:
            return state.decode(), zlib.crc32(state)
        encrypted = self._encryption.encrypt(state, _context(each.encode() for each in place))
        return encrypted, zlib.crc32(encrypted)

    def decode(self, state: object, checksum: object, *place: bytes) -> bytes:
        """Return the JSON that :meth:`encode` got.

        Raises:
            StateUnusable: the row is damaged, or was encrypted with another key.
        """
        if not isinstance(state, bytes) or zlib.crc32(state) != checksum:
            raise StateUnusable("is damaged: a checksum is another")
        if self._encryption is None:
            return state
        try:
            return self._encryption.decrypt(state, _context(place))
        except DecryptionFailed as error:
            raise StateUnusable(str(error)) from None

    def encode_run(self, run: EndedRun, case_id: str, beam_id: str) -> tuple[str | bytes, int]:
        """Return the values of the columns ``run`` and ``checksum``.

        Args:
            run: the run.
            case_id, beam_id: from :meth:`ids`.
        """
        return self.encode(_run.dump_json(run), "runs", case_id, beam_id)

    def decode_run(self, row: tuple[bytes, bytes, bytes, int]) -> EndedRun:
        """Return the run of a row ``case_id, beam_id, run, checksum``.

        Raises:
            StateUnusable: the row is damaged, or was encrypted with another key.
        """
        case_id, beam_id, run, checksum = row
        try:
            return _run.validate_json(self.decode(run, checksum, b"runs", case_id, beam_id), strict=True)
        except ValidationError:
            raise StateUnusable("holds a run that it should not") from None


def _context(place: Iterable[bytes]) -> bytes:
    return b"\0".join(place)
