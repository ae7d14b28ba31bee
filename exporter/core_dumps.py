"""No picture of this process's memory on disk: it holds ids of patients, lines of logs, keys and passphrases."""

from __future__ import annotations

import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid() -> None:
    """Set it for this process.

    The limit alone does not hold where the kernel hands dumps to a program (``core_pattern`` with a pipe, as with
    systemd-coredump). A process that is not dumpable leaves none there either, and no other process of the same user
    can look into its memory or its environment: from now on those belong to root.

    Raises:
        OSError: this kernel does not do so.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
