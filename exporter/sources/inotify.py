"""Hints from the kernel (inotify) that a log may have changed, so that a poll can come before its time.

A hint only makes a poll come sooner. Every log is polled within a bounded time, whatever inotify reports. So a missing
hint costs a few seconds and nothing else. Hints are missing on network and FUSE file systems that others write to,
after an overflow of the kernel's queue, and where ``fs.inotify.max_user_watches`` is used up.

A folder is watched for names that come and go. Each log is watched for its next change only (``IN_ONESHOT``): a watch
that stayed would take 3 us of each write, half the speed of a process that does nothing but write lines.

This module calls the C library itself. ``inotify-simple`` (2.0.1) runs ``ldconfig`` to find that library, and the
exporter must start no program (``docs/security.md``).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from collections.abc import Collection
from dataclasses import dataclass

_MODIFY, _ATTRIB = 0x002, 0x004
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x040, 0x080, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_FOLDERS, _NOT_UNLINKED, _ONCE = 0x01000000, 0x04000000, 0x80000000
_NAMES_CHANGED = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_FOLDER_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_FOLDER_MASK = _NAMES_CHANGED | _DELETE_SELF | _MOVE_SELF | _ONLY_FOLDERS | _NOT_UNLINKED
_LOG_MASK = _MODIFY | _ATTRIB | _ONCE

_EVENT = struct.Struct("iIII")
_READ_BYTES = 256 * 1024


@dataclass(slots=True)
class _WatchedLog:
    """One inode that is watched, with all paths under which it is polled."""

    identity: object
    paths: set[str]


class InotifyWatcher:
    """Watches folders and logs. Used by one thread, except for :meth:`wake`.

    Raises:
        OSError: inotify is not available, or no instance is left.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._inotify = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        except AttributeError:
            raise OSError("no inotify in this system's C library") from None
        self._waking, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll_both, self._poll_wake = select.poll(), select.poll()
        self._poll_both.register(self._inotify, select.POLLIN)
        for poll in (self._poll_both, self._poll_wake):
            poll.register(self._waking, select.POLLIN)
        self._folders: dict[str, int] = {}
        self._folders_by_watch: dict[int, set[str]] = {}
        self._logs: dict[str, int] = {}
        self._logs_by_watch: dict[int, _WatchedLog] = {}

    @staticmethod
    def _checked(answer: int) -> int:
        if answer < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return answer

    def _add_watch(self, path: str, mask: int) -> int | None:
        """Add or renew a watch; ``None`` if the kernel refuses it."""
        try:
            encoded = os.fsencode(path)
            return self._checked(self._libc.inotify_add_watch(self._inotify, encoded, ctypes.c_uint32(mask)))
        except (OSError, ValueError):
            return None

    def watch_folder(self, folder: str) -> None:
        """Ask for hints about names in a folder. Does nothing if it is watched, or cannot be.

        Args:
            folder: its path; it need not exist.
        """
        if folder in self._folders:
            return
        watch = self._add_watch(folder, _FOLDER_MASK)
        if watch is not None:
            self._folders[folder] = watch
            self._folders_by_watch.setdefault(watch, set()).add(folder)

    def watch_log(self, path: str, identity: object = None) -> None:
        """Ask for one hint about the next change of a log. Does nothing if that file is watched, or cannot be.

        Args:
            path: the log.
            identity: device and inode of the file at ``path``; ``None`` if unknown.
        """
        known = self._logs_by_watch.get(self._logs.get(path, -1))
        if known is not None and known.identity == identity:
            return
        watch = self._add_watch(path, _LOG_MASK)
        if watch is None:
            return
        if self._logs.get(path, watch) != watch:
            self._forget_log(path)
        self._logs[path] = watch
        log = self._logs_by_watch.setdefault(watch, _WatchedLog(identity, set()))
        log.identity = identity
        log.paths.add(path)

    def keep_only(self, folders: Collection[str], logs: Collection[str]) -> None:
        """End the watches of all other folders and logs."""
        for folder in [folder for folder in self._folders if folder not in folders]:
            self._forget_folder(folder)
        for path in [path for path in self._logs if path not in logs]:
            self._forget_log(path)

    def _forget_folder(self, folder: str) -> None:
        watch = self._folders.pop(folder)
        sharing = self._folders_by_watch[watch]
        sharing.discard(folder)
        if not sharing:
            del self._folders_by_watch[watch]
            self._libc.inotify_rm_watch(self._inotify, watch)

    def _forget_log(self, path: str) -> None:
        watch = self._logs.pop(path)
        log = self._logs_by_watch[watch]
        log.paths.discard(path)
        if not log.paths:
            del self._logs_by_watch[watch]
            self._libc.inotify_rm_watch(self._inotify, watch)

    def wait(self, seconds: float, gather_seconds: float = 0.0) -> None:
        """Wait for a hint, for :meth:`wake`, or until the time is over.

        Args:
            seconds: longest wait.
            gather_seconds: at the beginning, hints do not end the wait for so long; they are gathered.
        """
        gather = min(seconds, gather_seconds)
        woken = gather > 0 and self._poll_wake.poll(1000 * gather)
        if not woken and seconds > gather:
            self._poll_both.poll(1000 * (seconds - gather))
        with contextlib.suppress(BlockingIOError):
            os.read(self._waking, 64)

    def pending(self) -> bool:
        """Return whether there are hints to read."""
        return any(descriptor == self._inotify for descriptor, _ in self._poll_both.poll(0))

    def wake(self) -> None:
        """End :meth:`wait`, or the next one if none is under way. May be called from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake, b"x")

    def read_hints(self) -> set[str]:
        """Return the paths that may have changed since the last call.

        The logs among them are watched again at once, before anybody polls them. So a write after the poll gives
        another hint.
        """
        hints: set[str] = set()
        written: dict[str, object] = {}
        while data := self._read():
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                self._add_hints(hints, written, watch, mask, name)
        # Only after the last event: a log that is written all the time would never let the loop end.
        for path, identity in written.items():
            self.watch_log(path, identity)
        return hints | written.keys()

    def _read(self) -> bytes:
        try:
            return os.read(self._inotify, _READ_BYTES)
        except BlockingIOError:
            return b""

    def _add_hints(self, hints: set[str], written: dict[str, object], watch: int, mask: int, name: bytes) -> None:
        # After an overflow some one-shot watches are spent, and nobody knows which: all logs are watched again.
        spent = tuple(self._logs_by_watch) if mask & _OVERFLOW else (watch,)
        for log in [self._logs_by_watch.pop(each) for each in spent if each in self._logs_by_watch]:
            for path in log.paths:
                del self._logs[path]
                written[path] = log.identity
        folders = self._folders_by_watch.get(watch, ())
        if mask & _FOLDER_GONE and not name:
            for folder in tuple(folders):
                self._forget_folder(folder)
        elif mask & _NAMES_CHANGED:
            hints.update(f"{folder.rstrip('/')}/{os.fsdecode(name)}" for folder in folders)

    def close(self) -> None:
        """Close the descriptors. No thread may wait any more."""
        for descriptor in (self._inotify, self._waking, self._wake):
            os.close(descriptor)


def open_watcher() -> InotifyWatcher | None:
    """Return a watcher, or ``None`` where there is no inotify: then changes are found by polling alone."""
    try:
        return InotifyWatcher()
    except (OSError, AttributeError):
        return None
