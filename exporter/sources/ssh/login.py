"""Logs in to an SSH host with keys, an agent's keys or a password, and explains refusals.

The SSH library's own client is not used: it asks on the terminal for a second factor, and it reports success when the
host demands another key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import paramiko

from exporter.process.trusted_files import readable_by_others
from exporter.process.user import own_user
from exporter.sources.source import SourceUnavailable
from exporter.sources.ssh.target import LoginTarget

_KEY_CLASSES = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


class LoginRefused(SourceUnavailable):
    """The host has refused the login. Trying again soon may lock the account."""


class Credentials:
    """Keys, agent and password for one host.

    Args:
        target: the host, whose key files and secrets are read.

    Raises:
        SourceUnavailable: no credential can be used, or a file is readable by others.
    """

    def __init__(self, target: LoginTarget) -> None:
        given = target.given
        self.keys: list[tuple[str, paramiko.PKey]] = []
        self.password = read_secret(target.password_file)
        passphrase = read_secret(given.passphrase_file)
        troubles: list[SourceUnavailable] = []
        for path in target.key_files:
            try:
                self.keys.append((str(path), _load(path, passphrase, target)))
            except SourceUnavailable as trouble:
                # Like OpenSSH, skip an unusable key if there are others. But a key readable by others is an error.
                if trouble.kind == "key_open":
                    raise SourceUnavailable("key_file", str(trouble)) from None
                troubles.append(trouble)
        self.agent = paramiko.Agent() if given.use_agent else None
        if troubles and not self.keys and self.agent is None and self.password is None:
            others = f" (of {len(target.key_files)} key files none can be used)" if len(target.key_files) > 1 else ""
            raise SourceUnavailable("key_file", f"{troubles[0]}{others}")

    def close(self) -> None:
        """Close the connection to the agent."""
        if self.agent is not None:
            with contextlib.suppress(Exception):
                self.agent.close()

    def every_key(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Yield the keys to try, each with its name."""
        yield from self.keys
        if self.agent is not None:
            for number, key in enumerate(self.agent.get_keys(), 1):
                yield f"key {number} of the agent", key


def log_in(transport: paramiko.Transport, target: LoginTarget, credentials: Credentials) -> None:
    """Log in.

    Args:
        transport: a connection to the host, whose own key has been checked.
        target: the host.
        credentials: what to log in with.

    Raises:
        LoginRefused: the host refuses.
        SourceUnavailable: there are no credentials, or the host has ended the connection.
        paramiko.SSHException, OSError, EOFError: the connection is lost.
    """
    tried: list[str] = []
    accepted: list[str] = []
    wanted: list[str] = []
    reason = ""
    for name, key in credentials.every_key():
        tried.append(name)
        try:
            wanted = list(transport.auth_publickey(target.user, key))
        except paramiko.AuthenticationException as error:
            reason, wanted = _refusal(error, target, wanted)
            continue
        accepted.append(name)
        if not wanted:
            return
        if "publickey" not in wanted:
            break
    # Send no password if the host has accepted a key and demands something other than a password.
    if credentials.password is not None and (not accepted or {"password", "keyboard-interactive"} & {*wanted}):
        tried.append("the password")
        try:
            wanted = list(transport.auth_password(target.user, credentials.password))
            if not wanted:
                return
            accepted.append("the password")
        except paramiko.AuthenticationException as error:
            reason, wanted = _refusal(error, target, wanted)
    if accepted:
        raise LoginRefused(
            "second_factor",
            f"cannot log in to {target.shown}: the host has accepted {' and '.join(accepted)}, but demands a second "
            f"factor ({', '.join(wanted) or 'unknown'}); make the key sufficient for this account "
            "(`AuthenticationMethods publickey` in the host's sshd_config); the next attempt is in some minutes (a "
            "reload tries at once)",
        )
    if not tried:
        raise SourceUnavailable(
            "authentication",
            f"cannot log in to {target.shown}: there are no credentials; set key_file, or use_agent",
        )
    allowed = f" (the host allows {', '.join(wanted)})" if wanted else ""
    raise LoginRefused(
        "authentication",
        f"cannot log in to {target.shown} with {', '.join(tried)}: {reason}{allowed}; check the user, and that the "
        "public key is in the account's authorized_keys; the next attempt is in some minutes, since refused logins "
        "lock accounts (a reload tries at once)",
    )


def _refusal(error: paramiko.AuthenticationException, target: LoginTarget, wanted: list[str]) -> tuple[str, list[str]]:
    """Return the host's reason and the methods that it allows; raise if the connection is lost."""
    if "timeout" in str(error).lower():
        raise TimeoutError from None
    if "transport shut down" in str(error):
        raise SourceUnavailable(
            "login_ended",
            f"cannot log in to {target.shown}: the host has ended the connection during the login; its log says why",
        ) from None
    if isinstance(error, paramiko.BadAuthenticationType):
        return "the host does not allow this kind of login", list(error.allowed_types)
    return "the host refuses it", wanted


def _load(path: Path, passphrase: str | None, target: LoginTarget) -> paramiko.PKey:
    """Load a private key, and its certificate if there is one beside it."""
    cannot = f"cannot log in to {target.shown}"
    try:
        if (problem := readable_by_others(path, path.stat())) is not None:
            raise SourceUnavailable("key_open", f"{cannot}: {problem}")
        path.read_bytes()
    except PermissionError:
        raise SourceUnavailable(
            "key_file",
            f"{cannot}: {path} cannot be read; it must be the exporter's own: run `chown {own_user()} {path}`",
        ) from None
    except OSError as error:
        raise SourceUnavailable("key_file", f"{cannot}: key file {path}: {error.strerror}; check key_file") from None
    encrypted = False
    reason = "it is not a private key"
    for key_class in _KEY_CLASSES:
        try:
            key = key_class.from_private_key_file(str(path), passphrase)
            certificate = path.with_name(f"{path.name}-cert.pub")
            if certificate.exists():
                key.load_certificate(str(certificate))
            return key
        except paramiko.PasswordRequiredException:
            encrypted = True
        except Exception as error:  # noqa: BLE001 - the library raises any exception of its parsers
            message = " ".join(str(error).split())[:200] or type(error).__name__
            # That the key is of another type is not the reason.
            reason = reason if message.startswith("not a valid") else message
    if encrypted:
        raise SourceUnavailable("key_file", f"{cannot}: the key in {path} is encrypted; set passphrase_file")
    raise SourceUnavailable(
        "key_file", f"{cannot}: cannot use the key in {path}: {reason}; check key_file and passphrase_file"
    )


def read_secret(path: Path | None) -> str | None:
    """Read a secret from a file that only its owner may read.

    Args:
        path: the file; ``None`` for no secret.

    Raises:
        SourceUnavailable: it cannot be read, or others can read it.
    """
    if path is None:
        return None
    try:
        if (problem := readable_by_others(path, path.stat())) is not None:
            raise SourceUnavailable("secret", problem)
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceUnavailable("secret", f"cannot read the secret in {path}: {error}; correct the file") from None
