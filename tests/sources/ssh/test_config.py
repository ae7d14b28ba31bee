"""The OpenSSH configuration is read like ``ssh -G`` does, and nothing in it is executed."""

from __future__ import annotations

import os
import pwd
import random
import subprocess
from pathlib import Path

import pytest

from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh import files as ssh_files
from exporter.sources.ssh.config import HostConfig, read_ssh_config
from exporter.sources.ssh.config_values import Jump, SshConfigError
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.target import resolve_route

HOSTS = ("gpu", "gpu1.example", "gpu2.example", "GPU", "10.0.0.7", "gate")
USERS = (None, "root", "mqi")
ME, HOME = (pwd.getpwuid(os.getuid()).pw_name, pwd.getpwuid(os.getuid()).pw_dir)
"""The home folder as OpenSSH finds it, not from the environment."""


def write(folder: Path, text: str, name: str = "config") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def by_openssh(config: Path, host: str, user: str | None = None) -> dict[str, list[str]] | None:
    """Return the output of ``ssh -G``; ``None`` if it refuses."""
    login = ["-l", user] if user else []
    done = subprocess.run(
        ["ssh", "-G", "-F", str(config), *login, host],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        return None
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def jump_of(jump: Jump) -> str:
    """Format a host of a ``ProxyJump`` like ``ssh -G``."""
    bracketed = f"[{jump.host}]" if ":" in jump.host or not jump.host.strip("1234567890.") else jump.host
    return (f"{jump.user}@" if jump.user else "") + bracketed + (f":{jump.port}" if jump.port else "")


def assert_alike(config: Path, host: str, user: str | None = None) -> None:
    """Check that both read the same, or both refuse."""
    expected = by_openssh(config, host, user)
    ours: HostConfig | SshConfigError
    try:
        ours = read_ssh_config(config, host, user=user)
    except SshConfigError as problem:
        ours = problem
    if isinstance(ours, HostConfig) and ours.jumps and ours.jumps[-1].host == (ours.hostname or host):
        return  # OpenSSH ends here; that is tested by itself
    if expected is None or isinstance(ours, SshConfigError):
        assert expected is None, f"{ours}\n{config.read_text()}"
        assert isinstance(ours, SshConfigError), f"{ours}\n{config.read_text()}"
        return
    about = f"{host} as {user}\n{ours}\n{config.read_text()}"
    assert (ours.hostname or host).lower() == expected["hostname"][0], about
    assert (ours.user or ME) == expected["user"][0], about
    assert (ours.port or 22) == int(expected["port"][0]), about
    assert ours.host_key_alias == expected.get("hostkeyalias", [None])[0], about
    identities = [] if expected["identityfile"][0] == "~/.ssh/id_rsa" else expected["identityfile"]
    assert list(ours.identity_files) == identities, about
    if ours.user_known_hosts is not None:
        assert [os.path.expanduser(" ".join(ours.user_known_hosts))] == expected["userknownhostsfile"], about
    else:
        assert expected["userknownhostsfile"] == [f"{HOME}/.ssh/known_hosts {HOME}/.ssh/known_hosts2"], about
    last = jump_of(ours.jumps[-1]) if ours.jumps else None
    shown = expected.get("proxyjump", [None])[0]
    assert last == (shown.split(",")[-1] if shown not in (None, "none") else None), about


class Writer:
    """Writes random configurations that use everything that the format allows."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.files = 0

    def one_of(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def line(self, keyword: str, value: str) -> str:
        keyword = self.one_of(keyword, keyword, keyword.lower(), keyword.upper())
        between = self.one_of(" ", " ", "\t", "=", " = ", "  ", " =")
        after = self.one_of("", "", "", "  ", "\t", " # remark", " #remark", "\r")
        return f"{self.one_of('', '  ', chr(9))}{keyword}{between}{value}{after}\n"

    def quoted(self, text: str) -> str:
        return self.one_of(text, text, f'"{text}"')

    def setting(self) -> str:
        host = self.one_of("gate", "10.0.0.1", "h.example", "[fd00::1]")
        match self.chance.randrange(11):
            case 0:
                return self.line("HostName", self.quoted(self.one_of("real.example", "%h.example", "10.1.1.1")))
            case 1:
                return self.line("Port", self.one_of("22", "2222", "65535", "ssh", "0", "nine", "70000"))
            case 2:
                return self.line("User", self.quoted(self.one_of("mqi", "other")))
            case 3 | 4:
                key = self.one_of("~/.ssh/a", "/keys/b", "/keys/with blank", "%d/c", "none", "'single'")
                return self.line("IdentityFile", f'"{key}"' if " " in key else self.quoted(key))
            case 5:
                return self.line("UserKnownHostsFile", self.one_of("~/k", "/k1 /k2", '"/k 1" /k2', "none", "none /k"))
            case 6:
                return self.line("HostKeyAlias", self.one_of("Alias", "alias.example"))
            case 7:
                user, port = self.one_of("", "u@", "a@b@"), self.one_of("", ":2222", ":ssh", ":0")
                return self.line("ProxyJump", f"{user}{host}{port}")
            case 8:
                host = host if "[" not in host else "v6.example"  # OpenSSH 9.2 refuses addresses in brackets here
                uri = f"ssh://{self.one_of('', 'u@', 'u%40x@', 'u;p=1@')}{host}{self.one_of('', ':2222', '/', '/x')}"
                return self.line("ProxyJump", self.one_of(uri, f"first,{uri}", f"{uri},last:99", "none"))
            case 9:
                return self.one_of("\n", "# a remark\n", "   \n", "\t# another\n")
            case _:
                return self.line("ServerAliveInterval", "15")

    def block(self, depth: int) -> str:
        match self.chance.randrange(8):
            case 0 | 1 | 2:
                head = self.line(
                    "Host", self.one_of("gpu", "gpu*", "*", "gpu? !gpu2*", '"gpu" gate', "!gpu *", "*.example")
                )
            case 3:
                head = self.line(
                    "Match",
                    self.one_of(
                        "host gpu*",
                        "!host gpu*",
                        "host real.example",
                        "originalhost gpu,gate",
                        "user mqi",
                        "!user root",
                        "localuser root host *.example",
                        "all",
                        "host=gpu",
                        'host "gpu,gate" user root',
                        "final",
                        "!final host gpu*",
                        "canonical",
                        "final all",
                        "all host gpu",
                        "host",
                    ),
                )
            case 4 if depth < 2:
                self.files += 1
                name = f"part{self.files}"
                write(self.folder, self.text(depth + 1), name)
                return self.line("Include", self.one_of(f"{self.folder}/{name}", f"{self.folder}/{name}*", "/none/*"))
            case _:
                head = ""
        return head + "".join(self.setting() for _ in range(self.chance.randrange(4)))

    def text(self, depth: int = 0) -> str:
        return "".join(self.block(depth) for _ in range(self.chance.randrange(1, 5)))


@pytest.mark.parametrize("start", range(0, 400, 50))
def test_generated_configurations_are_read_as_openssh_reads_them(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 50):
        folder = tmp_path / str(seed)
        folder.mkdir()
        writer = Writer(seed, folder)
        config = write(folder, writer.text())
        for _ in range(2):
            assert_alike(config, writer.chance.choice(HOSTS), writer.chance.choice(USERS))


def problem(folder: Path, text: str, host: str = "gpu") -> str:
    """Return the message for a configuration that cannot be used for a host."""
    with pytest.raises(SourceUnavailable) as caught:
        resolve_route(SshHost(host, user="mqi", ssh_config_file=write(folder, text)))
    assert caught.value.kind == "ssh_config"
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


class TestCommands:
    @pytest.mark.parametrize(
        "text",
        [
            "Host gpu\n  ProxyCommand touch {mark}\n",
            "Host *\n  KnownHostsCommand /usr/bin/touch {mark}\n",
            "PermitLocalCommand yes\nLocalCommand touch {mark}\n",
            'Match exec "touch {mark}"\n  User other\n',
            'Match host gpu exec "touch {mark}"\n  User other\n',
            'Match exec "touch {mark}" host gpu\n  User other\n',
            'match !exec="touch {mark}"\n  User other\n',
            "Include {folder}/part\n",
        ],
    )
    def test_a_command_is_refused_with_its_line_and_never_executed(self, tmp_path: Path, text: str) -> None:
        mark = tmp_path / "executed"
        part = write(tmp_path, f'Match exec "touch {mark}"\n', "part")
        said = problem(tmp_path, text.format(mark=mark, folder=tmp_path))
        assert not mark.exists()
        assert "no command is executed" in said
        assert f"{part if 'Include' in text else tmp_path / 'config'}:" in said

    @pytest.mark.parametrize(
        "text",
        [
            "Host other\n  ProxyCommand touch {mark}\n",
            'Match host other exec "touch {mark}"\n',
            'Match exec "touch {mark}" user nobody\n',
            "ProxyCommand none\nKnownHostsCommand none\n",
            "Host other\n  Include {folder}/part\n",
            "ProxyJump none\nProxyCommand touch {mark}\n",
        ],
    )
    def test_a_command_for_another_host_is_ignored(self, tmp_path: Path, text: str) -> None:
        mark = tmp_path / "executed"
        write(tmp_path, f'Match exec "touch {mark}"\n', "part")
        config = write(tmp_path, text.format(mark=mark, folder=tmp_path))
        assert len(resolve_route(SshHost("gpu", user="mqi", ssh_config_file=config))) == 1
        assert not mark.exists()

    @pytest.mark.parametrize("line", ["CanonicalizeHostname yes", "RevokedHostKeys /etc/revoked", "Match tagged x"])
    def test_an_unsupported_keyword_is_refused_with_its_line(self, tmp_path: Path, line: str) -> None:
        assert f"{tmp_path / 'config'}:2: " in problem(tmp_path, f"# remark\n{line}\n")


class TestFiles:
    @pytest.mark.parametrize("which", ["config", "part"])
    @pytest.mark.parametrize(("mode", "who"), [(0o620, "its group"), (0o666, "everybody")])
    def test_a_file_that_others_may_write_is_refused(self, tmp_path: Path, which: str, mode: int, who: str) -> None:
        part = write(tmp_path, "User mqi\n", "part")
        config = write(tmp_path, f"Include {part}\n")
        (tmp_path / which).chmod(mode)
        with pytest.raises(SourceUnavailable) as caught:
            resolve_route(SshHost("gpu", ssh_config_file=config))
        assert f"{tmp_path / which}: {who} can change it (mode {mode:04o}); run `chmod go-w " in str(caught.value)

    @pytest.mark.parametrize("which", ["config", "part"])
    def test_a_file_of_another_user_is_refused(self, tmp_path: Path, which: str) -> None:
        part = write(tmp_path, "User mqi\n", "part")
        config = write(tmp_path, f"Include {part}\n")
        os.chown(tmp_path / which, 12345, -1)
        with pytest.raises(SourceUnavailable) as caught:
            resolve_route(SshHost("gpu", ssh_config_file=config))
        assert f"{tmp_path / which}: belongs to user 12345" in str(caught.value)

    def test_an_include_may_be_relative_to_the_ssh_folder_and_have_wildcards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".ssh" / "parts").mkdir(parents=True)
        write(tmp_path / ".ssh" / "parts", "Host gpu\n  User second\n  Port 2222\n", "b.conf")
        write(tmp_path / ".ssh" / "parts", "Host gpu\n  User first\n", "a.conf")
        write(tmp_path / ".ssh" / "parts", "User third\n", "c.other")
        [target] = resolve_route(SshHost("gpu", ssh_config_file=write(tmp_path, "Include parts/*.conf nothing\n")))
        assert (target.user, target.port) == ("first", 2222)

    def test_a_file_that_is_too_long_or_includes_itself_gives_one_message(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "config"
        assert "does one include itself" in problem(tmp_path, f"Include {config}\n")
        monkeypatch.setattr(ssh_files, "FILE_LIMIT_BYTES", 100)
        assert "longer than 100 bytes" in problem(tmp_path, "# remark\n" * 20)

    @pytest.mark.parametrize("content", [b"\x00\xff\xfe" * 50, b"Host gpu\n  Port \xff\n", b'Host "gpu\n', b"Port\n"])
    def test_a_missing_or_binary_file_gives_one_message(self, tmp_path: Path, content: bytes) -> None:
        config = write(tmp_path, "")
        config.write_bytes(content)
        try:
            resolve_route(SshHost("gpu", ssh_config_file=config))
        except SourceUnavailable as trouble:
            assert len(str(trouble).splitlines()) == 1  # noqa: PT017 - it may also be read as a file that says nothing
