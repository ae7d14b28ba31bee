"""Rights to the database's folder that are too large, and rights to the file that will not last."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

_CODE_FOLDERS = ("src", ".git")


def code_in_folder_warning(path: Path) -> str | None:
    """Warn of code beside the database that this account can change.

    Who may write a folder may also rename what is in it and put other files there. So the exporter's account could let
    the communicator run its own code. Root may write everything: for root, the group and others are looked at.

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
        f"the database's folder {folder} holds code ({', '.join(names[:3])}), and who may write the folder may replace "
        "that; give the database a folder of its own (docs/operations.md, Its user and its configuration)"
    )


def owner_only_warning(path: Path) -> str | None:
    """Warn of a right to write the database that ends with this file.

    SQLite lets only the owner of a new database file write it, whatever umask, group and default ACL of the folder.

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
        f"{path} belongs to {name}: when the communicator makes a new database file, only {name} may write it; "
        "docs/operations.md, Rights that last, says what to do"
    )


def _is_code(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".py") or entry.name in _CODE_FOLDERS
