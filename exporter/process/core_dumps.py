"""Disables core dumps: the memory of this process holds patient ids, log lines, keys and passphrases."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def disable() -> None:
    """Disable core dumps of this process.

    The limit ``ulimit -c 0`` has no effect if the kernel passes dumps to a program, such as systemd-coredump. A process
    that is not dumpable writes no dump there either. Other processes of the same user cannot read its memory or its
    environment any more.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot disable core dumps: {os.strerror(number)}")
