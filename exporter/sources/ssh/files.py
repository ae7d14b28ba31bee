"""Reads files with SSH keys and configuration, and checks their permissions."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.process.trusted_files import changeable_by_others

FILE_LIMIT_BYTES = 16 << 20
"""Longest file of host keys or SSH configuration, in bytes."""


class UntrustedFile(Exception):
    """Other users can change the file. The message names the file and the command that fixes it."""


def read_trusted(path: Path) -> bytes:
    """Read a file that only root and this process's user may be able to change.

    Args:
        path: the file; links are followed.

    Raises:
        UntrustedFile: other users can change it.
        OSError: it cannot be read, or it is longer than :data:`FILE_LIMIT_BYTES`.
    """
    with path.open("rb") as file:
        if (problem := changeable_by_others(path, os.fstat(file.fileno()))) is not None:
            raise UntrustedFile(f"{path}: {problem}")
        data = bytearray()
        while piece := file.read(1 << 16):
            data += piece
            if len(data) > FILE_LIMIT_BYTES:
                raise OSError(0, f"longer than {FILE_LIMIT_BYTES} bytes")
    return bytes(data)
