"""The restricted account of the guide: everything that SSH offers is tried and refused."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from exporter.sources.source import ReadRequest
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from tests.support.process import wait_for
from tests.support.sshd import Sshd

CHANNEL_REQUEST = b"\x62"
SFTP_SERVER = "/usr/lib/openssh/sftp-server"
GUIDE = (Path(__file__).parents[3] / "docs" / "remote-logs.md").read_text(encoding="utf-8")


def shown(pattern: str) -> str:
    """The guide's sshd_config lines, for the account that runs the tests."""
    (found,) = re.findall(pattern, GUIDE, re.MULTILINE)
    return re.sub(r"^ {3}", "", found, flags=re.MULTILINE).replace("mqi-progress", getpass.getuser())


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A host that allows everything except for the restricted account of the guide."""
    everything = (
        "AllowAgentForwarding yes\nPermitTTY yes\nPermitTunnel yes\nX11Forwarding yes\nPermitUserEnvironment yes\n"
    )
    restricted = shown(r"^ {3}Match User mqi-progress\n(?: {7}.*\n)+")
    folder = tmp_path_factory.mktemp("host")
    with Sshd(folder / "sshd", extra=everything + restricted, forwarding=True) as server:
        line = shown(r"^ {3}(restrict .*)$")
        key = Path(f"{server.client_key}.pub").read_text(encoding="utf-8").split()[1]
        authorized = server.folder / "authorized_keys"
        authorized.write_text(line.replace("AAAA...", key) + "\n", encoding="utf-8")
        yield server


@pytest.fixture
def client(host: Sshd) -> Iterator[paramiko.SSHClient]:
    client = paramiko.SSHClient()
    client.load_host_keys(str(host.known_hosts))
    client.connect(
        host.address,
        host.port,
        host.host.user,
        key_filename=str(host.client_key),
        allow_agent=False,
        look_for_keys=False,
    )
    yield client
    client.close()


def transport(client: paramiko.SSHClient) -> paramiko.Transport:
    found = client.get_transport()
    assert found is not None
    return found


def test_the_restricted_account_can_read_logs(host: Sshd, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    source = SshLogSource("hpc1", host.host, [str(tmp_path)])
    try:
        assert "a.log" in source.listing(str(tmp_path))
        assert len(source.stat([str(log)])) == 1
        assert source.read([ReadRequest(str(log), 0, 9)]) == [b"one\n"]
    finally:
        source.close()


@pytest.mark.parametrize("ask", ["exec_command", "invoke_shell"])
def test_the_restricted_account_runs_no_command_and_no_shell(
    client: paramiko.SSHClient, tmp_path: Path, ask: str
) -> None:
    channel = transport(client).open_session(timeout=10)
    channel.settimeout(10)
    if ask == "exec_command":
        channel.exec_command(f"touch {tmp_path}/executed; echo executed")
    else:
        channel.invoke_shell()
        channel.sendall(f"touch {tmp_path}/executed; echo executed\n".encode())
    channel.shutdown_write()
    # The SFTP server answers every request; to it, this one is malformed.
    output = b""
    while data := channel.recv(4096):
        output += data
    assert b"executed" not in output
    assert not (tmp_path / "executed").exists()


def request_agent(session: Any) -> None:
    """Request agent forwarding with a reply (the library's own request has none)."""
    message = paramiko.Message()
    message.add_byte(CHANNEL_REQUEST)
    message.add_int(session.remote_chanid)
    message.add_string("auth-agent-req@openssh.com")
    message.add_boolean(True)
    session._event_pending()
    session.transport._send_user_message(message)
    session._wait_for_event()


@pytest.mark.parametrize(
    "ask",
    [paramiko.Channel.get_pty, paramiko.Channel.request_x11, request_agent],
    ids=["terminal", "X11", "agent"],
)
def test_a_session_of_the_restricted_account_gets_sftp_only(
    client: paramiko.SSHClient, ask: Callable[[paramiko.Channel], object]
) -> None:
    session = transport(client).open_session(timeout=10)
    with pytest.raises(paramiko.SSHException, match="closed"):
        ask(session)


def test_the_restricted_account_forwards_no_connection(client: paramiko.SSHClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = other.getsockname()
        with pytest.raises(paramiko.ChannelException):
            transport(client).open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=10)
        other.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            other.accept()
    with pytest.raises(paramiko.SSHException):
        transport(client).request_port_forward("127.0.0.1", 0)


@pytest.mark.parametrize("attempt", ["write", "append", "make", "remove", "rename", "chmod", "truncate", "link"])
def test_the_restricted_account_changes_no_file(client: paramiko.SSHClient, tmp_path: Path, attempt: str) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    log.chmod(0o666)
    path, other = str(log), str(tmp_path / "other")
    with client.open_sftp() as sftp:
        attempts: dict[str, Callable[[], object]] = {
            "write": lambda: sftp.open(path, "w"),
            "append": lambda: sftp.open(path, "a"),
            "make": lambda: sftp.mkdir(other),
            "remove": lambda: sftp.remove(path),
            "rename": lambda: sftp.rename(path, other),
            "chmod": lambda: sftp.chmod(path, 0o777),
            "truncate": lambda: sftp.truncate(path, 0),
            "link": lambda: sftp.symlink(path, other),
        }
        with pytest.raises(PermissionError):
            attempts[attempt]()
    assert os.listdir(tmp_path) == ["a.log"]
    assert (log.read_bytes(), log.stat().st_mode & 0o777) == (b"one\n", 0o666)


def test_an_agent_is_used_for_the_login_and_never_forwarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper on the host records its environment and the requested command."""
    noted = tmp_path / "noted"
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nenv > {noted}\nexec {SFTP_SERVER} -R\n", encoding="utf-8")
    wrapper.chmod(0o755)
    extra = f"AllowAgentForwarding yes\nSubsystem sftp {SFTP_SERVER}\nForceCommand {wrapper}\n"
    address = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
    try:
        wait_for(address.exists, "the agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        with Sshd(tmp_path / "sshd", sftp=False, extra=extra, forwarding=True) as server:
            subprocess.run(["ssh-add", "-q", str(server.client_key)], check=True, timeout=30)
            config = tmp_path / "ssh_config"
            config.write_text(
                f"Host gpu\n  HostName {server.address}\n  Port {server.port}\n  User {getpass.getuser()}\n"
                f"  UserKnownHostsFile {server.known_hosts}\n  ForwardAgent yes\n  ForwardX11 yes\n"
                "  RequestTTY force\n  SendEnv *\n  RemoteForward 0 localhost:22\n",
                encoding="utf-8",
            )
            command = [
                "ssh",
                "-F",
                str(config),
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "RequestTTY=no",
                "gpu",
                "sftp",
            ]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
            assert "SSH_AUTH_SOCK=" in noted.read_text(encoding="utf-8"), "OpenSSH's own client does forward it"
            noted.unlink()
            source = SshLogSource("hpc1", SshHost("gpu", ssh_config_file=config, use_agent=True))
            try:
                assert "noted" in source.listing(str(tmp_path))
            finally:
                source.close()
    finally:
        agent.terminate()
        agent.wait(10)
    seen = dict(line.partition("=")[::2] for line in noted.read_text(encoding="utf-8").splitlines())
    assert not seen.keys() & {"SSH_AUTH_SOCK", "SSH_TTY", "DISPLAY"}
    assert seen["SSH_ORIGINAL_COMMAND"] == SFTP_SERVER
