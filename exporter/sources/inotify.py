"""The kernel's announcements of changes in folders of logs (inotify): hints that wake a look before its time.

They are hints and no more. What a log holds is only ever learnt by looking at it, and every log is looked at again
within a bounded time whatever was announced. Where the kernel cannot know of a change there is none: another host
writes over NFS or Lustre, a FUSE file system keeps its own counsel, a log is a link into another folder or has two
names. So a folder counts as announced only on a file system whose every writer goes through this kernel, and a log only
if it is a plain file of one name; all others are looked at in every round, as if there were no inotify.

A folder is watched for names that come and go, and each log for its next change only. A watch that stayed would take
3 us of each write, half the speed of a process that does nothing but write lines. One that is spent takes nothing until
the log has been looked at.

What can run out (``fs.inotify.max_user_instances``, ``max_user_watches``) or overflow (the queue) is survived: without
a watch nothing is announced, and after an overflow everything is looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
from collections.abc import Callable, Collection

_MODIFY, _ATTRIB = 0x002, 0x004
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x040, 0x080, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_FOLDERS, _NOT_UNLINKED, _ONCE = 0x01000000, 0x04000000, 0x80000000
_NAMES_CHANGED = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_FOLDER_GONE = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED
_OF_FOLDER = _NAMES_CHANGED | _DELETE_SELF | _MOVE_SELF | _ONLY_FOLDERS | _NOT_UNLINKED
_OF_LOG = _MODIFY | _ATTRIB | _ONCE

_EVENT = struct.Struct("iIII")
_READ_BYTES = 256 * 1024
_LONGEST_STATFS = 256

_OF_THIS_KERNEL = {
    0xEF53: "ext",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
}
"""File systems (``statfs(2)``) that nobody writes but through this kernel."""


def plain_file(path: str) -> bool:
    """Whether what becomes of a log shows in its folder: no link, and no second name in another folder."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


class InotifyWatcher:
    """Changes in folders, as the kernel tells them. Used by one thread, except for :meth:`wake`.

    Raises:
        OSError: there is no inotify here, or no instance left.
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
        self._folders: dict[int, set[str]] = {}
        self._watches: dict[str, int] = {}
        self._logs: dict[int, tuple[str, ...]] = {}
        self._distrusted: set[str] = set()

    @staticmethod
    def _checked(answer: int) -> int:
        if answer < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return answer

    def watch_folder(self, folder: str) -> bool:
        """Ask for announcements of a folder's names, if that was not done yet.

        Args:
            folder: its path; it need not exist.

        Returns:
            Whether every name that comes or goes will be announced from now on.
        """
        if folder in self._watches:
            return True
        if folder in self._distrusted:
            return False
        try:
            encoded = os.fsencode(folder)
            answer = ctypes.create_string_buffer(_LONGEST_STATFS)
            self._checked(self._libc.statfs(encoded, answer))
            if ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF not in _OF_THIS_KERNEL:
                return False
            watch = self._add_watch(encoded, _OF_FOLDER)
        except (OSError, ValueError):
            return False
        self._watches[folder] = watch
        self._folders.setdefault(watch, set()).add(folder)
        return True

    def watch_log(self, path: str) -> bool:
        """Ask for announcements of a log that is there, in a folder that is watched.

        Returns:
            Whether it will be announced that the log has changed, once after each :meth:`read_hints`.
        """
        try:
            watch = self._add_watch(os.fsencode(path), _OF_LOG)
        except (OSError, ValueError):
            return False
        others = self._logs.get(watch, ())
        if path not in others:
            self._logs[watch] = (*others, path)
        return True

    def _add_watch(self, encoded: bytes, mask: int) -> int:
        return self._checked(self._libc.inotify_add_watch(self._inotify, encoded, ctypes.c_uint32(mask)))

    def watching(self, folder: str) -> bool:
        """Whether changes in the folder are announced now."""
        return folder in self._watches

    def distrust(self, folder: str) -> None:
        """A change in it was not announced: never rely on it again."""
        self._distrusted.add(folder)
        self._drop(folder)
        self._forget_logs(lambda path: os.path.dirname(path) == folder)

    def forget_all_but(self, folders: Collection[str], logs: Collection[str] = ()) -> None:
        """End the watches of all other folders and logs."""
        for folder in [folder for folder in self._watches if folder not in folders]:
            self._drop(folder)
        self._forget_logs(lambda path: path not in logs)

    def _forget_logs(self, forgotten: Callable[[str], bool]) -> None:
        for watch, paths in [item for item in self._logs.items() if any(map(forgotten, item[1]))]:
            kept = tuple(path for path in paths if not forgotten(path))
            if kept:
                self._logs[watch] = kept
            else:
                del self._logs[watch]
                self._libc.inotify_rm_watch(self._inotify, watch)

    def _drop(self, folder: str) -> None:
        watch = self._watches.pop(folder, None)
        if watch is None:
            return
        sharing = self._folders[watch]
        sharing.discard(folder)
        if not sharing:
            del self._folders[watch]
            self._libc.inotify_rm_watch(self._inotify, watch)

    def wait(self, seconds: float, quiet_seconds: float = 0.0) -> None:
        """Wait until something is announced, :meth:`wake` is called, or the time is over.

        Args:
            seconds: how long at most.
            quiet_seconds: so long announcements do not count: they are gathered.
        """
        quiet = min(seconds, quiet_seconds)
        woken = quiet > 0 and self._poll_wake.poll(1000 * quiet)
        if not woken and seconds > quiet:
            self._poll_both.poll(1000 * (seconds - quiet))
        with contextlib.suppress(BlockingIOError):
            os.read(self._waking, 64)

    def pending(self) -> bool:
        """Whether something is announced that has not been taken yet."""
        return any(descriptor == self._inotify for descriptor, _ in self._poll_both.poll(0))

    def wake(self) -> None:
        """End :meth:`wait`, also one that has not begun; from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake, b"x")

    def read_hints(self) -> FileHints:
        """What was announced since the last call."""
        announced = FileHints()
        while data := self._read():
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                self._add(announced, watch, mask, name)
        # Not before all has been read: a log that is written all the time would be announced without an end.
        for path in announced.changed:
            self.watch_log(path)
        return announced

    def _read(self) -> bytes:
        try:
            return os.read(self._inotify, _READ_BYTES)
        except BlockingIOError:
            return b""

    def _add(self, announced: FileHints, watch: int, mask: int, name: bytes) -> None:
        if mask & _OVERFLOW:
            announced.lost = True
            # Whose watches are spent was not told.
            self._logs.clear()
            return
        announced.changed.update(self._logs.pop(watch, ()))
        folders = self._folders.get(watch, ())
        if mask & _FOLDER_GONE and not name and folders:
            announced.lost = True
            for folder in tuple(folders):
                self._drop(folder)
            return
        if mask & _NAMES_CHANGED:
            announced.folders.update(folders)
            announced.renamed.update(f"{folder.rstrip('/')}/{os.fsdecode(name)}" for folder in folders)

    def close(self) -> None:
        """Give the descriptors back; nobody waits any more."""
        for descriptor in (self._inotify, self._waking, self._wake):
            os.close(descriptor)


class FileHints:
    """What was announced.

    Attributes:
        changed: logs that may have been written.
        renamed: paths at which a name came or went: another file may be there now.
        folders: folders in which names came or went.
        lost: more has changed than can be told: everything is to be looked at.
    """

    __slots__ = ("changed", "folders", "lost", "renamed")

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.renamed: set[str] = set()
        self.folders: set[str] = set()
        self.lost = False

    @property
    def paths(self) -> set[str]:
        """Files that may be others than they were."""
        return self.changed | self.renamed


def open_watcher() -> InotifyWatcher | None:
    """The kernel's announcements, or ``None`` where there are none: then polling alone is as good, only slower."""
    try:
        return InotifyWatcher()
    except (OSError, AttributeError):
        return None
