"""Files that decide who we are and whom we trust: only their owner may have written them."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from exporter.accounts import own_user

FILE_LIMIT_BYTES = 16 << 20
"""Longest file of host keys or of SSH configuration that is read."""


def written_by_others(path: Path) -> str | None:
    """Whether users other than root and ourselves can change a file.

    Args:
        path: the file; links are followed.

    Returns:
        What is wrong and how to mend it, without a final stop; ``None`` where nothing is.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to {_user(status.st_uid)}; run `chown {own_user()} {path}`"
    who = "everybody" if status.st_mode & stat.S_IWOTH else "its group" if status.st_mode & stat.S_IWGRP else None
    return f"{who} may write {path}; run `chmod go-w {path}`" if who else None


def read_by_others(path: Path) -> str | None:
    """Whether users other than its owner can read or change a file that holds a secret.

    Args:
        path: the file; links are followed.

    Returns:
        What is wrong and how to mend it, without a final stop; ``None`` where nothing is.

    Raises:
        OSError: there is no such file, or it cannot be looked at.
    """
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to {_user(status.st_uid)}; run `chown {own_user()} {path}`"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"{path} can be read by others than its owner; run `chmod 600 {path}`"
    return None


def read_bounded(path: Path) -> bytes:
    """The content of a file.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read, or is longer than :data:`FILE_LIMIT_BYTES`.
    """
    with path.open("rb") as file:
        data = file.read(FILE_LIMIT_BYTES + 1)
    if len(data) > FILE_LIMIT_BYTES:
        raise OSError(0, f"it is longer than {FILE_LIMIT_BYTES} bytes")
    return data


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
