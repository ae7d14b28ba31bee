"""Logins to a real sshd: keys, trusted hosts, and messages of failures."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from paramiko import buffered_pipe

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.connection import SshConnection
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_messages import SftpEnded, SftpError
from exporter.sources.ssh.source import SshLogSource
from tests.support.files import open_the_way_to, unprivileged
from tests.support.process import wait_for
from tests.support.sshd import Sshd, keygen


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "a.log").write_bytes(b"x")
    return tmp_path


def works(host: SshHost, folder: Path) -> None:
    source = SshLogSource("hpc1", host)
    try:
        assert "a.log" in source.listing(str(folder))
    finally:
        source.close()


def trouble(host: SshHost) -> SourceUnavailable:
    source = SshLogSource("hpc1", host)
    with pytest.raises(SourceUnavailable) as caught:
        source.listing("/")
    source.close()
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def allow(sshd: Sshd, public_key: Path) -> None:
    with (sshd.folder / "authorized_keys").open("a", encoding="utf-8") as file:
        file.write(public_key.read_text(encoding="utf-8"))


class TestLogin:
    def test_login_with_a_key(self, sshd: Sshd, here: Path) -> None:
        works(sshd.host, here)

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
    def test_login_with_other_types_of_keys(self, sshd: Sshd, here: Path, kind: str) -> None:
        key = keygen(here / kind, kind=kind)
        allow(sshd, Path(f"{key}.pub"))
        works(replace(sshd.host, key_file=key), here)

    def test_login_with_an_encrypted_key_and_its_passphrase(self, sshd: Sshd, here: Path) -> None:
        key = keygen(here / "locked", passphrase="open sesame")
        allow(sshd, Path(f"{key}.pub"))
        secret = here / "passphrase"
        secret.write_text("open sesame\n", encoding="utf-8")
        secret.chmod(0o600)
        works(replace(sshd.host, key_file=key, passphrase_file=secret), here)
        without = trouble(replace(sshd.host, key_file=key))
        assert without.kind == "key_file"
        assert "passphrase_file" in str(without)
        secret.write_text("wrong\n", encoding="utf-8")
        assert trouble(replace(sshd.host, key_file=key, passphrase_file=secret)).kind in ("key_file", "authentication")

    def test_an_agent_is_used_only_if_configured(self, sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        address = here / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL)
        try:
            wait_for(address.exists, "the agent")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
            subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, timeout=30)
            works(replace(sshd.host, key_file=None, use_agent=True), here)
            assert trouble(replace(sshd.host, key_file=None)).kind == "authentication"
        finally:
            agent.terminate()
            agent.wait(10)

    @pytest.mark.parametrize("secret", ["passphrase_file", "password_file"])
    def test_a_secret_that_others_can_read_is_refused_with_the_fix(self, sshd: Sshd, here: Path, secret: str) -> None:
        path = here / "secret"
        path.write_text("x", encoding="utf-8")
        path.chmod(0o644)
        found = trouble(replace(sshd.host, **{secret: path}))  # type: ignore[arg-type]
        assert found.kind == "secret"
        assert f"chmod 600 {path}" in str(found)

    def test_a_key_that_others_can_read_is_refused_with_the_fix(self, sshd: Sshd, here: Path) -> None:
        key = keygen(here / "open_key")
        key.chmod(0o644)
        found = trouble(replace(sshd.host, key_file=key))
        assert found.kind == "key_file"
        assert f"chmod 600 {key}" in str(found)

    def test_a_key_of_another_user_is_refused_with_the_fix(self, sshd: Sshd, here: Path) -> None:
        key = keygen(here / "another's_key")
        open_the_way_to(here)
        host = replace(sshd.host, key_file=key, known_hosts_file=here / "known_hosts")
        (here / "known_hosts").write_bytes(sshd.known_hosts.read_bytes())
        with unprivileged():
            found = trouble(host)
        assert found.kind == "key_file"
        assert f"chown nobody {key}" in str(found)

    @pytest.mark.parametrize("content", [None, b"", b"this is no key", b"\x00\xff" * 100])
    def test_a_file_that_is_not_a_key_is_reported(self, sshd: Sshd, here: Path, content: bytes | None) -> None:
        key = here / "key"
        if content is not None:
            key.write_bytes(content)
            key.chmod(0o600)
        found = trouble(replace(sshd.host, key_file=key))
        assert found.kind == "key_file"
        assert str(key) in str(found)

    def test_a_refused_login_names_user_host_and_key(self, sshd: Sshd, here: Path) -> None:
        key = keygen(here / "other")
        found = trouble(replace(sshd.host, key_file=key))
        assert found.kind == "authentication"
        for part in (getpass.getuser(), sshd.address, str(sshd.port), str(key), "authorized_keys"):
            assert part in str(found)

    def test_a_user_that_does_not_exist_is_refused(self, sshd: Sshd) -> None:
        assert trouble(replace(sshd.host, user="nobody-of-that-name")).kind == "authentication"


class TestHostKeys:
    def test_hashed_names_in_known_hosts_are_read(self, sshd: Sshd, here: Path) -> None:
        hashed = here / "known_hosts"
        hashed.write_bytes(sshd.known_hosts.read_bytes())
        subprocess.run(["ssh-keygen", "-H", "-f", str(hashed)], check=True, timeout=30, capture_output=True)
        assert b"127.0.0.1" not in hashed.read_bytes()
        works(replace(sshd.host, known_hosts_file=hashed), here)

    def test_a_missing_file_is_reported(self, sshd: Sshd, here: Path) -> None:
        found = trouble(replace(sshd.host, known_hosts_file=here / "none"))
        assert found.kind == "known_hosts"
        assert str(here / "none") in str(found)

    def test_a_known_hosts_file_that_everybody_may_write_is_not_trusted(self, sshd: Sshd, here: Path) -> None:
        written = here / "known_hosts"
        written.write_bytes(sshd.known_hosts.read_bytes())
        written.chmod(0o666)
        found = trouble(replace(sshd.host, known_hosts_file=written))
        assert found.kind == "known_hosts"
        assert f"chmod go-w {written}" in str(found)

    def test_a_key_for_another_port_does_not_count(self, sshd: Sshd, here: Path) -> None:
        kind, key, *_ = Path(f"{sshd.host_key}.pub").read_text(encoding="utf-8").split()
        other = here / "known_hosts"
        other.write_text(f"127.0.0.1 {kind} {key}\n", encoding="utf-8")
        assert trouble(replace(sshd.host, known_hosts_file=other)).kind == "host_key_unknown"


class TestOpenSshConfiguration:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "ssh_config"
        path.write_text(text, encoding="utf-8")
        return path

    def test_an_alias_can_set_everything(self, sshd: Sshd, here: Path) -> None:
        config = self.write(
            here,
            f"Host gpu\n  HostName {sshd.address}\n  Port {sshd.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {sshd.client_key}\n  UserKnownHostsFile {sshd.known_hosts}\n",
        )
        works(SshHost("gpu", ssh_config_file=config), here)

    def test_proxy_jump_goes_through_another_host_whose_key_is_checked_too(
        self, sshd: Sshd, here: Path, tmp_path: Path
    ) -> None:
        with Sshd(tmp_path / "gate", forwarding=True) as gate:
            allow(gate, Path(f"{sshd.client_key}.pub"))
            known = here / "known"
            config = self.write(
                here,
                f"Host gpu\n  HostName {sshd.address}\n  Port {sshd.port}\n  ProxyJump gate\n"
                f"Host gate\n  HostName {gate.address}\n  Port {gate.port}\n"
                f"Host *\n  User {getpass.getuser()}\n  IdentityFile {sshd.client_key}\n  UserKnownHostsFile {known}\n",
            )
            known.write_bytes(sshd.known_hosts.read_bytes() + gate.known_hosts.read_bytes())
            works(SshHost("gpu", ssh_config_file=config), here)
            assert "direct-tcpip" in gate.log.read_text(encoding="utf-8") or "Accepted" in gate.log.read_text(
                encoding="utf-8"
            )
            known.write_bytes(sshd.known_hosts.read_bytes())
            found = trouble(SshHost("gpu", ssh_config_file=config))
            assert found.kind == "host_key_unknown"
            assert str(gate.port) in str(found)

    def test_a_proxy_command_is_refused(self, here: Path) -> None:
        config = self.write(here, "Host gpu\n  ProxyCommand touch executed\n")
        found = trouble(SshHost("gpu", ssh_config_file=config))
        assert found.kind == "ssh_config"
        assert "ProxyJump" in str(found)
        assert not Path("executed").exists()

    def test_a_missing_file_is_reported(self, here: Path) -> None:
        assert str(here / "none") in str(trouble(SshHost("gpu", ssh_config_file=here / "none")))


class TestUnreachable:
    def test_a_host_is_reached_over_ipv6(self, tmp_path: Path, here: Path) -> None:
        with Sshd(tmp_path / "six", address="::1") as six:
            works(six.host, here)

    def test_an_unknown_host_name_is_reported(self) -> None:
        assert trouble(SshHost("no-such-host.invalid")).kind == "unknown_name"

    @pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "\udcff"])
    def test_an_invalid_host_name_is_reported(self, name: str) -> None:
        assert trouble(SshHost(name, user="mqi")).kind == "unknown_name"

    def test_a_closed_port_is_reported(self, sshd: Sshd) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        found = trouble(replace(sshd.host, port=port))
        assert found.kind == "unreachable"
        assert "refused" in str(found)

    def test_a_server_that_does_not_speak_ssh_is_reported(self, sshd: Sshd) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host = replace(sshd.host, port=server.getsockname()[1], connect_timeout_seconds=1.0)
            source = SshLogSource("hpc1", host)
            import threading

            def answer() -> None:
                peer, _ = server.accept()
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 300)
                peer.close()

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(SourceUnavailable) as caught:
                source.listing("/")
            thread.join(10)
            assert caught.value.kind in ("protocol", "unreachable")


def test_the_backoff_grows_to_a_minute_with_jitter(sshd: Sshd) -> None:
    now = [0.0]
    host = replace(sshd.host, user="nobody-of-that-name", port=1)
    for jitter, first, longest in ((0.0, 0.5, 30.0), (1.0, 1.0, 60.0)):
        source = SshLogSource("hpc1", host, clock=lambda: now[0], jitter=lambda value=jitter: value)  # type: ignore[misc]
        pauses = []
        for _ in range(10):
            with pytest.raises(SourceUnavailable) as caught:
                source.listing("/")
            pauses.append(source._next_at - now[0])
            now[0] = source._next_at - 0.01
            with pytest.raises(SourceUnavailable) as again:
                source.listing("/")
            assert again.value is caught.value, "left alone meanwhile"
            now[0] = source._next_at
        assert pauses[0] == pytest.approx(first)
        assert max(pauses) == pauses[-1] == pytest.approx(longest)


@pytest.mark.parametrize(
    ("raised", "reconnects"),
    [(EOFError("gone"), 1), (SftpEnded("gone"), 1), (SftpError("nonsense"), 0), (TimeoutError(), 0)],
)
def test_a_request_that_fails_twice_makes_the_source_unavailable(
    sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, reconnects: int
) -> None:
    now = [0.0]
    source = SshLogSource("hpc1", sshd.host, clock=lambda: now[0])
    source.listing(str(here))

    def fail(*_: object) -> None:
        now[0] += sshd.host.operation_timeout_seconds
        raise raised

    with monkeypatch.context() as patched:
        patched.setattr(SftpSession, "listings", fail)
        with pytest.raises(SourceUnavailable) as caught:
            source.listing(str(here))
        assert source.reconnects == reconnects
        with pytest.raises(SourceUnavailable) as again:
            source.listing(str(here))
        assert again.value is caught.value, "left alone for a while"
    now[0] += 60
    assert "a.log" in source.listing(str(here))
    source.close()


def test_a_request_that_waits_while_the_clock_is_set_is_repeated(
    sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SshLogSource("hpc1", sshd.host)
    source.listing(str(here))
    set_by, calls = [0.0], []

    def time_of_day() -> float:
        calls.append(set_by[0])
        if len(calls) == 2:
            set_by[0] = 3600.0
        return time.time() + set_by[0]

    monkeypatch.setattr(buffered_pipe, "time", SimpleNamespace(time=time_of_day))
    _signal(sshd, signal.SIGSTOP)  # else the answer may be there before anybody waits for it
    going_on = threading.Timer(0.5, _signal, (sshd, signal.SIGCONT))
    going_on.start()
    assert "a.log" in source.listing(str(here))
    going_on.join()
    assert set_by[0], "the library has asked for the time while it waited"
    assert source.reconnects == 1
    source.close()


def test_no_process_or_file_is_left_on_the_host(tmp_path: Path, here: Path) -> None:
    with Sshd(tmp_path / "host") as server:
        source = SshLogSource("hpc1", server.host)
        source.listing(str(here))
        assert server.children, "the connection's processes"
        source.close()
        wait_for(lambda: not server.children, "the end of the connection's processes")


def test_closing_from_another_thread_ends_a_wait(tmp_path: Path, here: Path) -> None:
    with Sshd(tmp_path / "host") as server:
        source = SshLogSource("hpc1", replace(server.host, operation_timeout_seconds=25.0))
        source.listing(str(here))
        _signal(server, signal.SIGSTOP)
        try:
            timer = threading.Timer(0.3, source.close)
            timer.start()
            began = time.monotonic()
            with pytest.raises(SourceUnavailable):
                source.listing(str(here))
            assert time.monotonic() - began < 15
            timer.join()
            assert source.reconnects == 0, "who ends a wait wants no other connection"
        finally:
            _signal(server, signal.SIGCONT)


def _signal(server: Sshd, number: signal.Signals) -> None:
    """Send a signal to every process of its connections. One may end meanwhile."""
    for pid in server.children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_closing_a_connection_while_it_is_opened_is_no_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = SshConnection(SshHost("127.0.0.1"))

    def trip(_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute '_log'")

    monkeypatch.setattr(connection, "_connect", trip)
    with pytest.raises(AttributeError):
        connection.open()
    connection.close()
    with pytest.raises(SourceUnavailable, match="was closed while it was made"):
        connection.open()
