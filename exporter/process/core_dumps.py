"""No picture of this process's memory on disk: it holds ids of patients, lines of logs, keys and passphrases."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def disable() -> None:
    """Set it for this process.

    A limit (``ulimit -c 0``) does not hold where the kernel hands dumps to a program, as it does with systemd-coredump.
    A process that is not dumpable leaves none there either, and no other process of the same user can look into its
    memory or its environment: from now on those belong to root.

    Raises:
        OSError: this kernel does not do so.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot forbid core dumps: {os.strerror(number)}")
