"""Users of this machine, by name."""

from __future__ import annotations

import os
import pwd


def own_user() -> str:
    """The user that this process is now, by name where it has one."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def login_user() -> str | None:
    """The user to log in to other hosts as: this process's own; ``None`` where it has no name.

    A user of a container may have no entry in the list of users, but a name in the environment.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return next((name for key in ("LOGNAME", "USER") if (name := os.environ.get(key))), None)
