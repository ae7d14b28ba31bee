"""SFTP requests as they leave a client, by kind."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from exporter.sources.ssh.sftp import SftpSession

_KINDS = {3: "open", 4: "close", 5: "read", 11: "opendir", 12: "readdir", 16: "realpath", 17: "stat"}


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Count what every session sends within the block."""
    counts: Counter[str] = Counter()
    send = SftpSession._send

    def counting(session: SftpSession, data: bytes) -> None:
        send(session, data)
        at = 0
        while at < len(data):
            length, kind = struct.unpack_from(">IB", data, at)
            counts[_KINDS.get(kind, str(kind))] += 1
            at += 4 + length

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SftpSession, "_send", counting)
        yield counts
