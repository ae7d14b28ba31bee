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
