"""Checks of the files that the exporter trusts: who can change its configuration, and who can read its secrets."""

from __future__ import annotations

import os
import pwd
import stat


def changeable_by_others(
    path: os.PathLike[str] | str, status: os.stat_result, *, any_owner: bool = False
) -> str | None:
    """Check whether users other than root and the process's own user can change a regular file.

    Group write permission counts as a problem, since the members of the group are unknown. Pipes and devices pass.

    Args:
        path: the file's name for the message.
        status: status of the opened file, so that it cannot be replaced between check and read.
        any_owner: whether any user may own the file, for commands that people run beside an exporter.

    Returns:
        The problem with the command that fixes it; ``None`` if there is none.
    """
    if not stat.S_ISREG(status.st_mode):
        return None
    if not any_owner and status.st_uid not in (0, os.geteuid()):
        return f"belongs to {_user(status.st_uid)}, who can change it; run `chown root {path}`"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        who = "everybody" if mode & 0o002 else "its group"
        return f"{who} can change it (mode {mode:04o}); run `chmod go-w {path}`"
    return None


def readable_by_others(
    path: os.PathLike[str] | str, status: os.stat_result, *, group_may_read: bool = False
) -> str | None:
    """Return whether users other than its owner can read or change a file that holds a secret.

    Args:
        path: the file's name in the message.
        status: of the opened file.
        group_may_read: whether its group may read it: a group of its own for keys is usual.

    Returns:
        The file, what is wrong and the command that corrects it; ``None`` where nothing is wrong.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o027 if group_may_read else 0o077):
        return f"{path} can be read or changed by others (mode {mode:04o}); chmod 600 {path}"
    return None


def forbid_changes_by_others(descriptor: int) -> None:
    """Remove write permission for group and others. Pipes and devices are not changed.

    Args:
        descriptor: descriptor of an open file that this user owns.

    Raises:
        OSError: another user owns the file.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o022:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~0o022)


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
