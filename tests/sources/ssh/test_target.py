"""Jump hosts, keys and users with and without an OpenSSH configuration."""

from __future__ import annotations

import getpass
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.config_values import Jump, parse_jumps
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from exporter.sources.ssh.target import resolve_route
from tests.support.sshd import Sshd, keygen


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


def write(folder: Path, text: str, name: str = "config") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def problem(folder: Path, text: str, host: str = "gpu") -> str:
    """Return the message for a configuration that cannot be used for a host."""
    with pytest.raises(SourceUnavailable) as caught:
        resolve_route(SshHost(host, user="mqi", ssh_config_file=write(folder, text)))
    assert caught.value.kind == "ssh_config"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


class TestJumps:
    @pytest.mark.parametrize(
        ("text", "jumps"),
        [
            ("gate", [Jump("gate")]),
            ("mqi@gate:2222", [Jump("gate", "mqi", 2222)]),
            ("ssh://mqi@gate:2222", [Jump("gate", "mqi", 2222)]),
            ("ssh://gate/", [Jump("gate")]),
            ("[fd00::1]:2222", [Jump("fd00::1", None, 2222)]),
            ("mqi@[fd00::1]", [Jump("fd00::1", "mqi")]),
            ("ssh://mqi@[fd00::1]:22", [Jump("fd00::1", "mqi", 22)]),
            ("a,b@c:3 # remark", [Jump("a"), Jump("c", "b", 3)]),
            ("NONE", []),
        ],
    )
    def test_every_way_to_write_a_proxy_jump_is_read(self, text: str, jumps: list[Jump]) -> None:
        assert list(parse_jumps(text, "config:1")) == jumps

    @pytest.mark.parametrize(
        "text", ["", "a,,b", "@gate", "gate:0", "gate:x", "gate:1:2", "[fd00::1", "fd00::1", "ssh://g/x"]
    )
    def test_an_invalid_proxy_jump_is_refused_with_its_line(self, tmp_path: Path, text: str) -> None:
        assert f"{tmp_path / 'config'}:1: " in problem(tmp_path, f"ProxyJump {text}\n")

    @pytest.mark.parametrize(
        "text",
        [
            "Host *\n  ProxyJump gpu\n",
            "Host *\n  ProxyJump gate\n",
            "Host gpu\n  ProxyJump gate\nHost gate\n  ProxyJump gpu\n",
            "Host gpu\n  ProxyJump a\nHost a\n  ProxyJump b\nHost b\n  ProxyJump a\n",
            "Host gpu\n  ProxyJump a,b\nHost a\n  ProxyJump a\n",
            "Host *\n  HostName gate\n  ProxyJump gate\n",
        ],
    )
    def test_a_proxy_jump_loop_gives_one_message(self, tmp_path: Path, text: str) -> None:
        said = problem(tmp_path, text)
        assert "ProxyJump" in said
        assert "via" in said or "itself" in said

    def test_jump_hosts_are_used_in_order_after_the_jumps_of_the_first_one(self, tmp_path: Path) -> None:
        config = write(
            tmp_path,
            "Host gpu\n  ProxyJump mqi@a:2222,b\nHost a\n  HostName a.example\n  ProxyJump outer\n"
            "Host b\n  ProxyJump never\n",
        )
        targets = resolve_route(SshHost("gpu", user="me", ssh_config_file=config))
        assert [each.address for each in targets] == ["outer", "a.example", "b", "gpu"]
        assert (targets[1].user, targets[1].port, targets[3].user) == ("mqi", 2222, "me")


class TestIdentities:
    def works(self, sshd: Sshd, folder: Path, text: str) -> None:
        config = write(
            folder,
            f"Host gpu  # a remark\n  HostName {sshd.address}\n  Port {sshd.port} # another\n"
            f"  User {getpass.getuser()}\n  UserKnownHostsFile {sshd.known_hosts}\n{text}",
        )
        source = SshLogSource("hpc1", SshHost("gpu", ssh_config_file=config))
        try:
            source.listing("/")
        finally:
            source.close()

    def test_the_next_key_is_tried_if_the_first_is_missing_refused_or_invalid(self, sshd: Sshd, tmp_path: Path) -> None:
        foreign, none = keygen(tmp_path / "foreign"), write(tmp_path, "no key", "none")
        keys = [tmp_path / "missing", none, foreign, sshd.client_key]
        self.works(sshd, tmp_path, "".join(f"  IdentityFile {key}\n" for key in keys))

    def test_a_path_may_be_quoted_and_hold_tokens(
        self, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / f"key of {getpass.getuser()} at gpu"
        key.write_bytes(sshd.client_key.read_bytes())
        key.chmod(0o600)
        monkeypatch.setenv("KEYS", str(tmp_path))
        self.works(sshd, tmp_path, '  IdentityFile "${KEYS}/key of %r at %n"   # remark\n')

    def test_if_every_key_is_missing_the_message_names_one_and_their_number(self, sshd: Sshd, tmp_path: Path) -> None:
        with pytest.raises(SourceUnavailable) as caught:
            self.works(sshd, tmp_path, f"  IdentityFile {tmp_path}/a\n  IdentityFile {tmp_path}/b\n")
        assert caught.value.kind == "key_file"
        assert f"{tmp_path}/a" in str(caught.value)
        assert "of 2 key files none" in str(caught.value)

    def test_a_key_that_others_can_read_is_refused_even_if_another_key_works(self, sshd: Sshd, tmp_path: Path) -> None:
        key = keygen(tmp_path / "open_key")
        key.chmod(0o644)
        with pytest.raises(SourceUnavailable, match=f"chmod 600 {key}"):
            self.works(sshd, tmp_path, f"  IdentityFile {key}\n  IdentityFile {sshd.client_key}\n")


class TestUserWithoutAName:
    """A container may run as a user id without a name."""

    @pytest.fixture(autouse=True)
    def nameless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nobody(uid: int) -> pwd.struct_passwd:
            raise KeyError(f"getpwuid(): uid not found: {uid}")

        monkeypatch.setattr(pwd, "getpwuid", nobody)
        for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)

    def test_a_user_without_a_name_is_asked_to_set_user(self) -> None:
        with pytest.raises(SourceUnavailable) as caught:
            resolve_route(SshHost("gpu"))
        assert caught.value.kind == "user"
        assert "set user" in str(caught.value)

    def test_with_user_set_the_known_hosts_of_the_system_are_used(self) -> None:
        [target] = resolve_route(SshHost("gpu", user="mqi"))
        assert target.known_hosts[0] == Path("/etc/ssh/ssh_known_hosts")

    @pytest.mark.parametrize("line", ["IdentityFile ~/.ssh/key", "Include parts/*", "UserKnownHostsFile ~/known"])
    def test_a_path_in_an_unknown_home_gives_one_message(self, tmp_path: Path, line: str) -> None:
        assert "write an absolute path" in problem(tmp_path, f"{line}\n")

    def test_a_source_without_a_user_name_is_unavailable_and_raises_nothing_else(self) -> None:
        source = SshLogSource("hpc1", SshHost("127.0.0.1", port=1))
        with pytest.raises(SourceUnavailable) as caught:
            source.listing("/")
        assert len(str(caught.value).splitlines()) == 1
