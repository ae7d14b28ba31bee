"""How to reach an SSH host, as the configuration says it; apart from what connects, whose libraries are large."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

WeakAlgorithm = Literal[
    "3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"
]
"""Ciphers and MACs that are not offered unless the configuration allows one by name."""

WEAK_ALGORITHMS: tuple[str, ...] = get_args(WeakAlgorithm)


@dataclass(frozen=True, slots=True)
class SshHost:
    """How to reach a host.

    Args:
        host: name, address, or an alias of ``ssh_config_file``.
        port: ``None`` for the alias's, else 22.
        user: ``None`` for the alias's, else the exporter's own.
        key_file: private key; ``None`` for the alias's.
        passphrase_file: file with the key's passphrase.
        password_file: file with a password for the host; passwords are not used without it.
        jump_password_file: file with a password for the hosts of ``ProxyJump``; they never get another one.
        use_agent: whether keys of a running agent may be used (an agent is never forwarded).
        known_hosts_file: host keys that are trusted; ``None`` for the alias's, else ``~/.ssh/known_hosts`` and
            ``/etc/ssh/ssh_known_hosts``.
        ssh_config_file: OpenSSH client configuration, for aliases and ``ProxyJump``; ``None`` for none.
        connect_timeout_seconds: for the connection, the banner and the login, each.
        operation_timeout_seconds: the longest wait for an answer: a link that is dead is noticed so soon.
        keepalive_seconds: how often an idle connection is kept open.
        allow_algorithms: those of :data:`WEAK_ALGORITHMS` that may be used.
    """

    host: str
    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    passphrase_file: Path | None = None
    password_file: Path | None = None
    jump_password_file: Path | None = None
    use_agent: bool = False
    known_hosts_file: Path | None = None
    ssh_config_file: Path | None = None
    connect_timeout_seconds: float = 10.0
    operation_timeout_seconds: float = 10.0
    keepalive_seconds: float = 15.0
    allow_algorithms: tuple[str, ...] = ()
