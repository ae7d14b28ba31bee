"""Files that decide what the exporter does: nobody but root and its own user may be able to change them."""

from __future__ import annotations

import os
import pwd
import stat


def changeable_by_others(
    path: os.PathLike[str] | str, status: os.stat_result, *, any_owner: bool = False
) -> str | None:
    """Whether users other than root and this process's can change a regular file.

    Group write permission counts, whatever the group: who is in it is not known here. Pipes and devices pass.

    Args:
        path: the file's name in the message.
        status: of the opened file, so that nobody can put another one in its place between the check and the read.
        any_owner: whether its owner may be anybody: for commands that people run beside an exporter of another user.

    Returns:
        What is wrong and the command that mends it; ``None`` where nothing is.
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


def forbid_changes_by_others(descriptor: int) -> None:
    """Take write permission from group and others, whatever the umask gave them. Pipes and devices stay as they are.

    Args:
        descriptor: of an open file of ours.

    Raises:
        OSError: it is not ours.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o022:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~0o022)


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
