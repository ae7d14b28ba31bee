"""Names of users of this machine."""

from __future__ import annotations

import os
import pwd


def own_user() -> str:
    """Return the name of this process's effective user, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def login_user() -> str | None:
    """Return the name of this process's user for logins on other hosts; ``None`` if it has none.

    A user of a container may have a name in the environment only.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return next((name for key in ("LOGNAME", "USER") if (name := os.environ.get(key))), None)
