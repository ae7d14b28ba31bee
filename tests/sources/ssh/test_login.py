"""Refused logins: messages, backoff, and which host gets which password."""

from __future__ import annotations

import getpass
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_PARTIALLY_SUCCESSFUL, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from tests.support.sshd import Sshd, free_port, keygen

MINUTE = 60.0


class Door(paramiko.ServerInterface):
    """The login of an SSH server, which records the credentials that it receives.

    Args:
        after_key: what it demands once it was shown a key; nothing where it is to be let in.
        take_keys: whether it takes any key at all.
    """

    def __init__(self, after_key: str = "", *, take_keys: bool = True) -> None:
        self.passwords: list[str] = []
        self.keys: list[str] = []
        self.prompts = 0
        self.hang_up: Callable[[], object] = lambda: None
        self._after_key = after_key
        self._take_keys = take_keys

    def get_allowed_auths(self, username: str) -> str:
        return self._after_key if self.keys and self._after_key else "publickey,password,keyboard-interactive"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.keys.append(key.get_name())
        self.hang_up()
        if not self._take_keys:
            return AUTH_FAILED
        return AUTH_PARTIALLY_SUCCESSFUL if self._after_key else AUTH_SUCCESSFUL

    def check_auth_password(self, username: str, password: str) -> int:
        self.passwords.append(password)
        return AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> int:
        self.prompts += 1
        return AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED


@contextmanager
def serving(folder: Path, make: Callable[[], Door], *, hang_up: bool = False) -> Iterator[tuple[SshHost, list[Door]]]:
    """A scripted SSH server. With ``hang_up`` it closes the connection when a login starts."""
    host_key, client_key = keygen(folder / "host_key"), keygen(folder / "client_key")
    known = folder / "known_hosts"
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    known.write_text(f"[127.0.0.1]:{port} {Path(f'{host_key}.pub').read_text(encoding='utf-8')}", encoding="utf-8")
    doors: list[Door] = []
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(link)
            transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(host_key)))
            door = make()
            if hang_up:
                door.hang_up = transport.close
            doors.append(door)
            transports.append(transport)
            try:
                transport.start_server(server=door)
            except (paramiko.SSHException, EOFError):
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield (
            SshHost(
                "127.0.0.1",
                port=port,
                user=getpass.getuser(),
                key_file=client_key,
                known_hosts_file=known,
                connect_timeout_seconds=10.0,
            ),
            doors,
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for transport in transports:
            transport.close()
        thread.join(10)


def refused(source: SshLogSource) -> SourceUnavailable:
    with pytest.raises(SourceUnavailable) as caught:
        source.listing("/")
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def secret(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return path


class TestBackoff:
    def pauses(self, host: SshHost, tries: int, jitter: float = 0.0) -> list[float]:
        """Return the backoff after each of so many attempts."""
        now = [0.0]
        source = SshLogSource("hpc1", host, clock=lambda: now[0], jitter=lambda: jitter)
        found = []
        for _ in range(tries):
            first = refused(source)
            found.append(source._next_at - now[0])
            now[0] = source._next_at - 0.01
            assert refused(source) is first, "the host is left alone until then"
            now[0] = source._next_at
        source.close()
        return found

    @pytest.mark.parametrize("jitter", [0.0, 1.0])
    def test_a_refused_login_is_retried_after_minutes(self, tmp_path: Path, jitter: float) -> None:
        with Sshd(tmp_path / "sshd") as server:
            host = replace(server.host, key_file=keygen(tmp_path / "foreign"))
            pauses = self.pauses(host, 6, jitter)
            failures = server.log.read_text(encoding="utf-8").count("Connection closed by authenticating user")
        assert [round(pause / MINUTE / (1 + 0.25 * jitter), 3) for pause in pauses] == [2, 4, 8, 15, 15, 15]
        assert failures <= 6

    def test_a_network_failure_between_refused_logins_has_its_own_short_backoff(self, tmp_path: Path) -> None:
        now = [0.0]
        with Sshd(tmp_path / "sshd") as server:
            host = replace(server.host, key_file=keygen(tmp_path / "foreign"))
            source = SshLogSource("hpc1", host, clock=lambda: now[0], jitter=lambda: 0.0)
            assert refused(source).kind == "authentication"
            server.kill()
            now[0] = source._next_at
            assert refused(source).kind == "unreachable"
            assert source._next_at - now[0] < 1
            server.start()
            now[0] = source._next_at
            assert refused(source).kind == "authentication"
            assert source._next_at - now[0] == 4 * MINUTE
            (server.folder / "authorized_keys").write_bytes(Path(f"{host.key_file}.pub").read_bytes())
            now[0] = source._next_at
            source.listing("/")
            assert source._logins.next_pause() == 2 * MINUTE, "a login that succeeded begins anew"
            source.close()

    def test_connections_that_repeatedly_end_during_the_login_count_as_a_refused_login(self, tmp_path: Path) -> None:
        with serving(tmp_path, Door, hang_up=True) as (host, _):
            pauses = self.pauses(host, 4)
        assert pauses[0] < 1
        assert [pause / MINUTE for pause in pauses[1:]] == [2, 4, 8]

    def test_an_unreachable_host_has_the_short_backoff(self, tmp_path: Path) -> None:
        known = secret(tmp_path / "known", "")
        host = SshHost("127.0.0.1", port=free_port(), user="mqi", known_hosts_file=known)
        assert max(self.pauses(host, 9)) <= 30


class TestSecondFactor:
    @pytest.mark.parametrize(
        "demanded", ["keyboard-interactive", "password", "password,keyboard-interactive", "publickey"]
    )
    def test_a_demanded_second_factor_is_reported(self, tmp_path: Path, demanded: str) -> None:
        with serving(tmp_path, lambda: Door(demanded)) as (host, doors):
            source = SshLogSource("hpc1", host)
            found = refused(source)
            source.close()
        assert found.kind == "second_factor"
        assert f"has accepted {host.key_file}, but demands a second factor" in str(found)
        assert all(part in str(found) for part in demanded.split(","))
        assert doors[0].passwords == []
        assert doors[0].prompts == 0, "nobody is asked on a terminal"

    def test_a_real_sshd_that_also_demands_a_password_is_reported(self, tmp_path: Path) -> None:
        server = Sshd(tmp_path / "sshd", extra="AuthenticationMethods publickey,password")
        config = server.folder / "sshd_config"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("PasswordAuthentication no", "PasswordAuthentication yes"), encoding="utf-8")
        with server:
            source = SshLogSource("hpc1", server.host)
            found = refused(source)
            assert found.kind == "second_factor"
            assert "(password)" in str(found)
            assert source._next_at - source._clock() > MINUTE
            source.close()

    def test_a_refused_key_is_not_reported_as_a_second_factor(self, tmp_path: Path) -> None:
        with serving(tmp_path, lambda: Door(take_keys=False)) as (host, _):
            source = SshLogSource("hpc1", host)
            assert refused(source).kind == "authentication"
            source.close()


class TestPasswordsOfJumps:
    def through(self, folder: Path, gate: SshHost, **more: Path) -> SshHost:
        config = secret(
            folder / "ssh_config",
            f"Host gpu\n  HostName 127.0.0.1\n  Port {free_port()}\n  ProxyJump gate\n"
            f"Host gate\n  HostName 127.0.0.1\n  Port {gate.port}\n",
        )
        password = secret(folder / "password", "of-the-target")
        return replace(
            gate,
            host="gpu",
            port=None,
            ssh_config_file=config,
            password_file=password,
            **more,  # type: ignore[arg-type]
        )

    def test_a_jump_host_never_gets_the_targets_password(self, tmp_path: Path) -> None:
        with serving(tmp_path, lambda: Door(take_keys=False)) as (gate, doors):
            source = SshLogSource("hpc1", self.through(tmp_path, gate))
            assert refused(source).kind == "authentication"
            source.close()
        assert doors[0].keys, "it was asked to let us in"
        assert [door.passwords for door in doors] == [[]]

    def test_a_jump_host_gets_its_own_password(self, tmp_path: Path) -> None:
        with serving(tmp_path, lambda: Door(take_keys=False)) as (gate, doors):
            own = secret(tmp_path / "jump_password", "of-the-gate")
            source = SshLogSource("hpc1", self.through(tmp_path, gate, jump_password_file=own))
            assert refused(source).kind == "authentication"
            source.close()
        assert doors[0].passwords == ["of-the-gate"]

    def test_a_passphrase_is_never_sent(self, tmp_path: Path) -> None:
        with serving(tmp_path, lambda: Door(take_keys=False)) as (host, doors):
            source = SshLogSource("hpc1", replace(host, passphrase_file=secret(tmp_path / "passphrase", "open sesame")))
            assert refused(source).kind == "authentication"
            source.close()
        assert [door.passwords for door in doors] == [[]]
