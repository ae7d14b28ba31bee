"""A real OpenSSH server on loopback, for one account and SFTP only, in a folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from exporter.sources.ssh.host import SshHost
from tests.support.process import wait_for


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def keygen(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    """Make a key pair; returns the private key's file."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)], check=True, timeout=60
    )
    return path


class Sshd:
    """``sshd`` with its own host key and one client key that may log in; ended at the end of the ``with`` block.

    Args:
        folder: for keys, configuration and log.
        extra: further lines of its configuration.
        sftp: whether it offers SFTP.
        address: where it listens.
        forwarding: it is a gate to other hosts: connections may go through it.
        through: a command that runs another one, as ``setpriv`` does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        extra: str = "",
        sftp: bool = True,
        address: str = "127.0.0.1",
        forwarding: bool = False,
        through: Sequence[str] = (),
    ) -> None:
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        assert Path(program).exists(), "sshd is not installed; `make test` installs openssh-server"
        # sshd wants it even when it runs for one user only.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.folder = folder
        self.address = address
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.host_key = keygen(folder / "host_key")
        self.client_key = keygen(folder / "client_key")
        self.known_hosts = folder / "known_hosts"
        self.trusted_ports = [self.port]
        self.trust(self.host_key)
        shutil.copy(f"{self.client_key}.pub", folder / "authorized_keys")
        self.log = folder / "sshd.log"
        lines = [
            f"ListenAddress {f'[{address}]' if ':' in address else address}:{self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {folder / 'authorized_keys'}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "PidFile none",
            "MaxStartups 100",
            f"AllowTcpForwarding {'yes' if forwarding else 'no'}",
            *(["Subsystem sftp internal-sftp", "ForceCommand internal-sftp"] if sftp else []),
            extra,
        ]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._program = program
        self._through = through
        self._process: subprocess.Popen[bytes] | None = None

    def trust(self, host_key: Path) -> None:
        """Write ``known_hosts``: this key is the host's, at its own port and those of its relays."""
        kind, key, *_ = Path(f"{host_key}.pub").read_text(encoding="utf-8").split()
        lines = [f"[{self.address}]:{port} {kind} {key}\n" for port in self.trusted_ports]
        self.known_hosts.write_text("".join(lines), encoding="utf-8")

    @property
    def host(self) -> SshHost:
        """How the exporter reaches it."""
        return SshHost(
            self.address,
            port=self.port,
            user=getpass.getuser(),
            key_file=self.client_key,
            known_hosts_file=self.known_hosts,
            connect_timeout_seconds=5.0,
            operation_timeout_seconds=3.0,
        )

    def __enter__(self) -> Sshd:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        options = ["-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.log.absolute())]
        self._process = subprocess.Popen([*self._through, self._program, *options], start_new_session=True)

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text(encoding="utf-8")
            try:
                socket.create_connection((self.address, self.port), timeout=1).close()
            except OSError:
                return False
            return True

        wait_for(listens, "sshd listening")

    @property
    def children(self) -> list[int]:
        """The processes that serve its connections."""
        return _children(self._process.pid) if self._process is not None else []

    def kill(self) -> None:
        """End it and every connection it serves, as a crash of the host would."""
        if self._process is not None:
            # Else a client whose connection has ended already could get another one, which would live on.
            self._process.send_signal(signal.SIGSTOP)
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to the processes of its connections (each of them leads a session of its own)."""
        if self._process is None:
            return
        for pid in [*_children(self._process.pid), self._process.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _children(parent: int) -> list[int]:
    """Every process below ``parent``."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            continue
        if int(fields[1]) == parent:
            pid = int(status.parent.name)
            found += [*_children(pid), pid]
    return found
