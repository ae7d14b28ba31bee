"""Settings for reaching an SSH host. The module imports no SSH library, so that loading it is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

WeakAlgorithm = Literal[
    "3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"
]
"""Weak ciphers and MACs, which are used only if the configuration allows them by name."""

WEAK_ALGORITHMS: tuple[str, ...] = get_args(WeakAlgorithm)


@dataclass(frozen=True, slots=True)
class SshHost:
    """Settings for reaching a host.

    Args:
        host: name, address, or an alias of ``ssh_config_file``.
        port: SSH port; ``None`` for that of the alias, else 22.
        user: user to log in as; ``None`` for that of the alias, else the exporter's own user.
        key_file: private key; ``None`` for those of the alias.
        passphrase_file: file with the key's passphrase.
        password_file: file with a password for the host. Without it no password is used.
        jump_password_file: file with a password for the hosts of ``ProxyJump``. They never get another password.
        use_agent: whether keys of a running agent may be used. The agent is never forwarded.
        known_hosts_file: file of trusted host keys; ``None`` for those of the alias, else ``~/.ssh/known_hosts`` and
            ``/etc/ssh/ssh_known_hosts``.
        ssh_config_file: OpenSSH client configuration for aliases and ``ProxyJump``; ``None`` to use none.
        connect_timeout_seconds: longest wait for each of connection, banner and login.
        operation_timeout_seconds: longest wait for an answer.
        keepalive_seconds: interval of keepalive messages on an idle connection.
        allow_algorithms: the :data:`WEAK_ALGORITHMS` that may be used.
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
