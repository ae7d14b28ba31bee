"""Resolves a configured host: its alias in the OpenSSH configuration, and the hosts of its ``ProxyJump``."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.process.user import login_user
from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.config import HostConfig, read_ssh_config
from exporter.sources.ssh.config_values import Jump, SshConfigError, expand_tokens
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.known_hosts import host_name

_HOPS_LIMIT = 8

_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")


@dataclass(frozen=True, slots=True)
class LoginTarget:
    """A host to log in to.

    Args:
        given: the configured host whose route this is.
        address: name or address to connect to.
        port: its SSH port.
        user: user to log in as.
        key_files: private keys in the order in which they are tried.
        known_hosts: files of trusted host keys. A missing one is skipped unless it was configured.
        known_as: the host's name in those files.
        password_file: file with a password for this host; ``None`` if no password may be used.
    """

    given: SshHost
    address: str
    port: int
    user: str
    key_files: tuple[Path, ...]
    known_hosts: tuple[Path, ...]
    known_as: str
    password_file: Path | None

    @property
    def shown(self) -> str:
        """The target for messages, ``USER@ADDRESS``."""
        return f"{self.user}@{self.address}" + (f" port {self.port}" if self.port != 22 else "")


def resolve_route(host: SshHost) -> tuple[LoginTarget, ...]:
    """Find the hosts to log in to one after another.

    Args:
        host: the configured host.

    Returns:
        The jump hosts in order, then the configured host.

    Raises:
        SourceUnavailable: the OpenSSH configuration cannot be used for it.
    """
    try:
        return tuple(_hops(host, Jump(host.host, host.user, host.port), None, ()))
    except SshConfigError as problem:
        raise SourceUnavailable("ssh_config", f"cannot connect to {host.host}: {problem}") from None


def _hops(
    host: SshHost, to: Jump, through: tuple[Jump, ...] | None, before: tuple[tuple[Jump, int], ...]
) -> list[LoginTarget]:
    """Find the hosts up to and including ``to``.

    Args:
        host: the configured host.
        to: the last of these hosts.
        through: jump hosts to use; ``None`` to use those of ``to`` itself.
        before: the targets of the enclosing calls, with the number of their jumps, to detect loops.
    """
    config = HostConfig()
    if host.ssh_config_file is not None:
        config = read_ssh_config(host.ssh_config_file, to.host, user=to.user, port=to.port)
    target = _target(host, to, config, is_jump=bool(before))
    jumps = config.jumps if through is None else through
    step = (to, len(jumps) if through is not None else -1)
    way = " via ".join(each.host for each, _ in (*before, step))
    if step in before or len(before) >= _HOPS_LIMIT:
        raise SshConfigError(
            f"{host.ssh_config_file}: ProxyJump forms a loop or leads through more than {_HOPS_LIMIT} "
            f"hosts ({way}); leave the jump host out, as with `Host * !{to.host}`"
        )
    if not jumps:
        return [target]
    *rest, last = (_expanded_jump(jump, target, to.host) for jump in jumps)
    if through is None and not rest and _same(last, target):
        raise SshConfigError(
            f"{host.ssh_config_file}: ProxyJump of {way} leads through {last.host} itself; leave the jump host out, as "
            f"with `Host * !{last.host}`"
        )
    return [*_hops(host, last, tuple(rest) or None, (*before, step)), target]


def _same(jump: Jump, target: LoginTarget) -> bool:
    """Whether a host is its own jump host, by the rule of OpenSSH."""
    return (jump.host, jump.port or 22, jump.user or target.user) == (target.address, target.port, target.user)


def _expanded_jump(jump: Jump, target: LoginTarget, original: str) -> Jump:
    tokens = {"h": target.address, "n": original, "p": str(target.port), "r": target.user}
    user = None if jump.user is None else expand_tokens(jump.user, tokens)
    return replace(jump, host=expand_tokens(jump.host, tokens), user=user)


def _target(host: SshHost, to: Jump, config: HostConfig, *, is_jump: bool) -> LoginTarget:
    user = to.user or config.user or login_user()
    if user is None:
        raise SourceUnavailable(
            "user",
            f"cannot log in to {to.host}: the exporter's own user {os.getuid()} has no name on this machine; set user",
        )
    address, port = config.hostname or to.host, to.port or config.port or 22
    known_as = config.host_key_alias or host_name(address, port)
    home = os.path.expanduser("~")
    tokens = {
        "d": home,
        "h": address,
        "i": str(os.getuid()),
        "k": config.host_key_alias or to.host,
        "L": socket.gethostname().partition(".")[0],
        "l": socket.gethostname(),
        "n": to.host,
        "p": str(port),
        "r": user,
        "u": login_user() or str(os.getuid()),
    }
    identities = [host.key_file] if host.key_file else _files(config.identity_files, tokens)
    return LoginTarget(
        given=host,
        address=address,
        port=port,
        user=user,
        # A public key only selects a key of an agent, so it cannot be loaded.
        key_files=tuple(path for path in identities if path.suffix != ".pub"),
        known_hosts=_known_hosts(host.known_hosts_file, config, tokens),
        known_as=known_as,
        password_file=host.jump_password_file if is_jump else host.password_file,
    )


def _known_hosts(given: Path | None, config: HostConfig, tokens: dict[str, str]) -> tuple[Path, ...]:
    if given is not None:
        return (given,)
    paths: list[Path] = []
    for names, usual in (
        (config.user_known_hosts, _USER_KNOWN_HOSTS),
        (config.global_known_hosts, _SYSTEM_KNOWN_HOSTS),
    ):
        if names is not None:
            paths += _files(names, tokens)
        else:
            # Without a home directory the user has no such file.
            found = [Path(os.path.expanduser(name)) for name in usual]
            paths += [path for path in found if path.is_absolute() and (not path.name.endswith("2") or path.exists())]
    return tuple(path for number, path in enumerate(paths) if path not in paths[:number])


def _files(names: tuple[str, ...], tokens: dict[str, str]) -> list[Path]:
    """Expand ``~``, ``%`` and ``${...}`` in file names; ``none`` stands for no file."""
    paths = []
    for name in names:
        if name.lower() == "none":
            continue
        path = os.path.expanduser(_with_environment(expand_tokens(name, tokens)))
        if path.startswith("~"):
            raise SshConfigError(f"{name} is in no known home directory; write an absolute path")
        paths.append(Path(path))
    return paths


def _with_environment(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in os.environ:
            raise SshConfigError(f"{text}: the environment has no {name}; write the value out")
        return os.environ[name]

    return re.sub(r"\$\{([^}]*)\}", value, text)
