"""Warns of file permissions around the database that are too wide or that will not last."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

_CODE_FOLDERS = ("src", ".git")


def code_in_folder_warning(path: Path) -> str | None:
    """Warn if this account can replace code in the database's folder.

    Write permission on a folder allows renaming and replacing its files. So the exporter's account could make the
    communicator run other code. For root, the permissions of group and others are checked instead.

    Args:
        path: the database.

    Returns:
        The warning; ``None`` if there is no such code.
    """
    folder = Path(os.path.realpath(path)).parent
    try:
        names = sorted(each.name for each in os.scandir(folder) if _is_code(each))
        mode = folder.stat().st_mode
    except OSError:
        return None
    others_may = bool(mode & (stat.S_IWGRP | stat.S_IWOTH))
    may_write = others_may if os.geteuid() == 0 else os.access(folder, os.W_OK, effective_ids=True)
    if not names or not may_write:
        return None
    return (
        f"the database's folder {folder} holds code ({', '.join(names[:3])}), and any account that may write the "
        "folder can replace it; give the database a folder of its own (docs/operations.md, Its user and its "
        "configuration)"
    )


def owner_only_warning(path: Path) -> str | None:
    """Warn if this account would lose write permission when the database file is created again.

    SQLite lets only the owner write a new database file, whatever the umask, the group and the folder's default ACL.

    Args:
        path: the database.

    Returns:
        The warning; ``None`` for the file's owner and for root.
    """
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    if os.geteuid() in (0, owner):
        return None
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return (
        f"{path} belongs to {name}: if the communicator creates a new database file, only {name} may write it; "
        "docs/operations.md, Rights that last, says what to do"
    )


def _is_code(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".py") or entry.name in _CODE_FOLDERS
