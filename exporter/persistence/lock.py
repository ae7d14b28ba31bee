"""A lock file: one process at a time uses a store."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from exporter.persistence.errors import StateInUse


class LockFile:
    """``PATH.lock`` beside a file; the lock ends with the process that holds it.

    Args:
        path: the file that it is for; the folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Keep other processes off the file until :meth:`release`.

        Raises:
            StateInUse: another process holds the lock.
            OSError: the lock file cannot be opened.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                # Somebody else's file may be linked to this name; it would be emptied below.
                raise OSError(errno.EEXIST, f"{self.path} is not a lock file of ours; remove it")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            process = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StateInUse(
                f"another exporter (process {process or 'unknown'}) uses this state file; give each exporter its own "
                "state.file, or end the other one"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
