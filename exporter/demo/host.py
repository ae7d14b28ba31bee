"""The remote host of the demo: an OpenSSH server on loopback with SFTP only, in a temporary folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

_START_SECONDS = 10.0


class DemoHostUnavailable(Exception):
    """The demo's host cannot be started here. The message says why."""


class DemoHost:
    """An SSH host with one account (the present user), one key, and SFTP only.

    Args:
        folder: for its keys, configuration, log and the files of its beams; emptied first.

    Raises:
        DemoHostUnavailable: there is no ``sshd`` on this machine, or it does not start.
    """

    def __init__(self, folder: Path) -> None:
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
        server, keygen = shutil.which("sshd", path=path), shutil.which("ssh-keygen", path=path)
        if server is None or keygen is None:
            raise DemoHostUnavailable("no sshd here: install openssh-server to see a beam on another host")
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        try:
            for name in ("host_key", "client_key"):
                subprocess.run(
                    [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(folder / name)],
                    check=True,
                    capture_output=True,
                )
            self._process = self._start(server)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DemoHostUnavailable(f"sshd does not start: {error}") from error
        self._wait()

    def _start(self, server: str) -> subprocess.Popen[bytes]:
        folder = self.folder
        kind, key, *_ = (folder / "host_key.pub").read_text(encoding="utf-8").split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {kind} {key}\n", encoding="utf-8")
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self._port}\n"
            f"HostKey {folder / 'host_key'}\n"
            f"AuthorizedKeysFile {folder / 'client_key.pub'}\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n"
            "Subsystem sftp internal-sftp\nForceCommand internal-sftp -R\nAllowTcpForwarding no\nPermitTTY no\n",
            encoding="utf-8",
        )
        if os.geteuid() == 0:
            # sshd needs this folder when it is started by hand as root.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        return subprocess.Popen(
            [server, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C must reach the exporter only, which stops sshd itself
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise DemoHostUnavailable(f"sshd does not listen; {self.folder / 'sshd.log'} says why")

    def source(self) -> dict[str, object]:
        """Return this host as a source of the exporter's configuration, without the paths of its files."""
        return {
            "name": "hpc1",
            "kind": "ssh",
            "host": "127.0.0.1",
            "port": self._port,
            "user": getpass.getuser(),
            "key_file": str(self.folder / "client_key"),
            "known_hosts_file": str(self.folder / "known_hosts"),
        }

    def stop(self) -> None:
        """Stop the server."""
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
