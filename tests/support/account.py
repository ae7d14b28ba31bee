"""An account as systemd's ``User=`` and ``NoNewPrivileges=`` make it: numbers only, no capabilities, none to be had."""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

CHANGING_CALLS = (
    "open,openat,openat2,creat,truncate,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,rmdir,link,linkat,"
    "symlink,symlinkat,mknod,mknodat,chmod,fchmodat,chown,lchown,fchownat,utimensat,setxattr,lsetxattr,removexattr,execve"
)


_PRIVATE_USERS = """
import ctypes, os, sys
ids, command = sys.argv[1:3], sys.argv[3:]
unshared, mapped = os.pipe(), os.pipe()
helper = os.fork()
if helper == 0:
    os.read(unshared[0], 1)
    for kind, number in zip(("uid", "gid"), ids):
        with open(f"/proc/{os.getppid()}/{kind}_map", "w") as file:
            file.write(f"0 0 1\\n{number} {number} 1\\n")
    os.write(mapped[1], b".")
    os._exit(0)
os.close(mapped[1])
CLONE_NEWUSER = 0x10000000
assert ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0, "no user namespace can be made here"
os.write(unshared[1], b".")
assert os.read(mapped[0], 1) == b".", "its users could not be mapped"
os.waitpid(helper, 0)
os.execvp(command[0], command)
"""
"""Runs a command in a user namespace with two users and two groups; the process stays the same one."""


class Account:
    """Runs Python as an account of this user and group, with the exporter's packages where it can read them.

    They are bound into ``folder`` in a mount namespace of the process's own, since those who develop keep them in
    places that only they can reach.

    Args:
        folder: every account must be able to reach it.
        user: its number.
        group: its only group's number.
        private_users: in a user namespace as systemd's ``PrivateUsers=yes`` makes it, which knows only root, the user
            and the group.
    """

    def __init__(self, folder: Path, user: int, group: int, *, private_users: bool = False) -> None:
        assert os.geteuid() == 0, "only root can run a process as another account: run this test as root"
        self.user = user
        self.group = group
        self.private_users = private_users
        self.packages = folder / "packages"
        self._folder = folder
        self._bound = {
            folder / "python": Path(sys.base_prefix),
            self.packages: Path(sysconfig.get_path("purelib")),
            folder / "program": ROOT,
        }
        for target in self._bound:
            target.mkdir(parents=True, exist_ok=True)

    def python(self, trace: Path | None = None) -> list[str]:
        """The command line that becomes this account's Python.

        Args:
            trace: file in which every call that may change a file or start a program is noted.
        """
        binds = [f"mount --bind {shlex.quote(str(here))} {shlex.quote(str(at))}" for at, here in self._bound.items()]
        paths = {
            "PYTHONPATH": f"{self._folder / 'program'}:{self.packages}",
            "LD_LIBRARY_PATH": f"{self._folder / 'python' / 'lib'}",
        }
        exports = [f"export {name}={shlex.quote(value)}" for name, value in paths.items()]
        become = [*binds, *exports, "umask 0007", 'exec "$@"']
        program = Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve())
        tracing = ["strace", "-D", "-f", "-e", f"trace={CHANGING_CALLS}", "-e", "signal=none", "-o", str(trace)]
        return [
            *("unshare", "--mount", "sh", "-euc", " && ".join(become), "sh"),
            *(tracing if trace is not None else ()),
            *((sys.executable, "-c", _PRIVATE_USERS, str(self.user), str(self.group)) if self.private_users else ()),
            *("setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups", "--no-new-privs"),
            *("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"),
            str(self._folder / "python" / program),
        ]


def changes(trace: Path) -> Iterator[tuple[str, str]]:
    """Calls of a trace that may have changed something and did not fail: name and path, or the last of two paths."""
    unfinished: dict[str, str] = {}
    for line in trace.read_text(encoding="utf-8").splitlines():
        # A call of one thread is cut in two where another's comes in between.
        process, text = line.split(maxsplit=1)
        if text.endswith("<unfinished ...>"):
            unfinished[process] = text.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", text)
        if resumed is not None:
            text = unfinished.pop(process) + text[resumed.end() :]
        call = re.match(r"(\w+)\((.*)\) += (\S+)", text)
        if call is None:
            assert text.startswith("+++ exited"), line
            continue
        name, arguments, answer = call.groups()
        if answer == "-1":
            continue
        if name.startswith("open") and not re.search(r"\bO_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)\b", arguments):
            continue
        yield name, re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)[0 if name == "execve" else -1]
