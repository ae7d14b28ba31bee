"""Files that decide who we are and whom we trust on other hosts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from exporter.process.trusted_files import changeable_by_others

FILE_LIMIT_BYTES = 16 << 20
"""Longest file of host keys or of SSH configuration that is read."""


class UntrustedFile(Exception):
    """Others can change a file.

    Args:
        message: which file, what is wrong and the command that mends it.
    """


def read_trusted(path: Path) -> bytes:
    """The content of a file that nobody but root and we may be able to change.

    Args:
        path: the file; links are followed.

    Raises:
        UntrustedFile: others can change it.
        OSError: it cannot be read, or is longer than :data:`FILE_LIMIT_BYTES`.
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


def readable_by_others(path: Path) -> str | None:
    """Whether users other than its owner can read or change a file that holds a secret.

    Args:
        path: the file; links are followed.

    Returns:
        What is wrong and the command that mends it; ``None`` where nothing is.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return f"{path} can be read by others than its owner; run `chmod 600 {path}`"
    return None
