"""Reads an OpenSSH client configuration (ssh_config(5)) and never executes a command from it.

As in OpenSSH, the first value that applies to a host counts, and ``Include`` is followed. Keywords that run a command
(``ProxyCommand``, ``KnownHostsCommand``, ``LocalCommand``, ``Match exec``) are refused if they apply to the host. A
file that others may write is refused, too.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path

from exporter.process.user import login_user
from exporter.sources.ssh.config_values import (
    WHITESPACE,
    Jump,
    SshConfigError,
    expand_tokens,
    next_word,
    parse_jumps,
    parse_port,
    split_values,
)
from exporter.sources.ssh.files import UntrustedFile, read_trusted
from exporter.sources.ssh.known_hosts import matches

_DEPTH_LIMIT = 16
"""Deepest nesting of ``Include``, as in OpenSSH."""
_FILES_LIMIT = 200
_IDENTITIES_LIMIT = 100

_SINGLE = {
    "hostname",
    "user",
    "hostkeyalias",
    "canonicalizehostname",
    "revokedhostkeys",
    "permitlocalcommand",
}
_LISTS = {"userknownhostsfile": 32, "globalknownhostsfile": 32}
_COMMANDS = {
    "proxycommand": "use ProxyJump",
    "knownhostscommand": "write the host's key into a known_hosts file",
    "localcommand": "leave it out for this host",
}


@dataclass(slots=True)
class HostConfig:
    """The settings for one host; ``None`` or empty if not given.

    Args:
        hostname: the real name or address.
        port: SSH port.
        user: user to log in as.
        host_key_alias: the host's name in known_hosts files.
        identity_files: private keys as written, in the order in which they are tried.
        user_known_hosts, global_known_hosts: files of trusted keys, as written.
        jumps: jump hosts in the order in which they are connected to.
    """

    hostname: str | None = None
    port: int | None = None
    user: str | None = None
    host_key_alias: str | None = None
    identity_files: tuple[str, ...] = ()
    user_known_hosts: tuple[str, ...] | None = None
    global_known_hosts: tuple[str, ...] | None = None
    jumps: tuple[Jump, ...] = ()


def read_ssh_config(path: Path, host: str, *, user: str | None = None, port: int | None = None) -> HostConfig:
    """Read the settings for a host.

    Args:
        path: the file.
        host: the host as the user names it.
        user: the user if it is set elsewhere; ``Match user`` uses it.
        port: the port if it is set elsewhere.

    Raises:
        SshConfigError: the file cannot be used for the host.
    """
    reader = _Reader(host, user, port)
    reader.read(path)
    # As in OpenSSH, a later `Match final` cannot change HostName.
    hostname = reader.real_host() if reader.value("hostname") is not None else None
    if reader.wants_final:
        reader.final = True
        reader.files = 0
        reader.host = reader.real_host().lower()
        reader.read(path)
    return reader.result(hostname)


@dataclass
class _Reader:
    """The values for one host while files are read."""

    original: str
    user: str | None
    port: int | None
    host: str = ""
    final: bool = False
    wants_final: bool = False
    files: int = 0
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)
    jumps: tuple[Jump, ...] | None = None
    proxied: bool = False

    def __post_init__(self) -> None:
        self.host = self.original
        if self.user is not None:
            self.values["user"] = (self.user,)

    def value(self, key: str) -> str | None:
        found = self.values.get(key)
        return found[0] if found else None

    def real_host(self) -> str:
        """The host's name, replaced by ``HostName`` if that was read already."""
        name = self.value("hostname")
        return self.host if name is None else expand_tokens(name, {"h": self.host})

    def result(self, hostname: str | None) -> HostConfig:
        for key, advice in _COMMANDS.items():
            command = self.value(key)
            if command is not None and command.lower() != "none":
                raise SshConfigError(
                    f"{self.where[key]}: host {self.original} has a {_NAMES[key]}: no command is executed; {advice}"
                )
        if (self.value("canonicalizehostname") or "no").lower() in ("yes", "true", "always"):
            raise SshConfigError(
                f"{self.where['canonicalizehostname']}: CanonicalizeHostname is not supported; write the full name "
                "into HostName"
            )
        if (self.value("revokedhostkeys") or "none").lower() != "none":
            raise SshConfigError(
                f"{self.where['revokedhostkeys']}: RevokedHostKeys is not supported; mark the keys @revoked in "
                "known_hosts"
            )
        port = self.value("port")
        return HostConfig(
            hostname=hostname,
            port=int(port) if port is not None else None,
            user=self.value("user"),
            host_key_alias=(self.value("hostkeyalias") or "").lower() or None,
            identity_files=tuple(self.identities),
            user_known_hosts=self.values.get("userknownhostsfile"),
            global_known_hosts=self.values.get("globalknownhostsfile"),
            jumps=self.jumps or (),
        )

    def read(self, path: Path, depth: int = 0, *, applies: bool = True) -> None:
        """Read a file. If ``applies`` is false, it is only checked."""
        self.files += 1
        if depth > _DEPTH_LIMIT or self.files > _FILES_LIMIT:
            raise SshConfigError(f"{path}: too many files include one another; does one include itself?")
        try:
            data = read_trusted(path)
        except UntrustedFile as problem:
            raise SshConfigError(str(problem)) from None
        except OSError as error:
            raise SshConfigError(f"cannot read {path}: {error.strerror}; correct ssh_config_file") from None
        if b"\0" in data:
            raise SshConfigError(f"{path} is not a text file; correct ssh_config_file")
        text = data.decode("utf-8", "surrogateescape")
        active = applies
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            active = self._line(line, f"{path}:{number}", depth, active=active, applies=applies)

    def _line(self, line: str, where: str, depth: int, *, active: bool, applies: bool) -> bool:
        """Read one line; return whether the lines after it apply."""
        keyword, rest = next_word(line.rstrip(WHITESPACE + "\f").lstrip(WHITESPACE))
        keyword = keyword.lower()
        if not keyword or keyword.startswith("#"):
            return active
        rest = rest.lstrip(WHITESPACE)
        if keyword == "match":
            return self._match(rest, where, applies=applies)
        if keyword == "proxyjump" or keyword in _COMMANDS:
            raw = rest.lstrip(WHITESPACE + "=")
            if not raw:
                raise SshConfigError(f"{where}: {keyword} has no value")
            jumps = parse_jumps(raw, where) if keyword == "proxyjump" else None
            if active:
                self._proxy(keyword, raw, jumps, where)
            return active
        if keyword not in _KNOWN:
            return active
        words = [*split_values(rest, where)]
        if not words or not all(words):
            raise SshConfigError(f"{where}: {keyword} has no value")
        if keyword == "host":
            return applies and _matches_any(self.host, words)
        if keyword == "include":
            for pattern in words:
                for file in _included(pattern, where):
                    self.read(file, depth + 1, applies=active)
            return active
        if len(words) > 1 and keyword not in _LISTS:
            raise SshConfigError(f"{where}: {keyword} has more than one value; write a value with blanks in quotes")
        if keyword == "port":
            words = [str(parse_port(words[0], where))]
        elif keyword in _LISTS:
            if len(words) > _LISTS[keyword]:
                raise SshConfigError(f"{where}: {keyword} has more than {_LISTS[keyword]} files")
            if len(words) > 1 and "none" in (word.lower() for word in words):
                raise SshConfigError(f"{where}: none must stand alone")
        if active:
            self._set(keyword, words, where)
        return active

    def _set(self, keyword: str, words: list[str], where: str) -> None:
        if keyword == "identityfile":
            if words[0] not in self.identities:
                if len(self.identities) >= _IDENTITIES_LIMIT:
                    raise SshConfigError(f"{where}: more than {_IDENTITIES_LIMIT} IdentityFile lines")
                self.identities.append(words[0])
        elif keyword not in self.values:
            self.values[keyword] = tuple(words)
            self.where[keyword] = where

    def _proxy(self, keyword: str, raw: str, jumps: tuple[Jump, ...] | None, where: str) -> None:
        """Set ``ProxyCommand`` or ``ProxyJump``; the one that comes first counts."""
        if jumps is not None:
            if not self.proxied:
                self.jumps, self.proxied = jumps, True
            return
        if keyword == "proxycommand":
            if self.proxied:
                return
            self.proxied = True
        if keyword not in self.values:
            self.values[keyword] = (raw,)
            self.where[keyword] = where

    def _match(self, rest: str, where: str, *, applies: bool) -> bool:
        """Whether the lines after a ``Match`` line apply."""
        undecided, count, only_pass = "", 0, True
        while rest:
            criterion, rest = next_word(rest)
            if not criterion or criterion.startswith("#"):
                break
            negated = criterion.startswith("!")
            name = criterion.removeprefix("!").lower()
            count += 1
            if name == "all":
                if not only_pass or next_word(rest)[0][:1] not in ("", "#"):
                    raise SshConfigError(f"{where}: all stands beside other criteria of Match")
                return applies and not negated
            if name in ("final", "canonical"):
                self.wants_final |= name == "final"
                applies &= self.final != negated
                continue
            only_pass = False
            argument, rest = next_word(rest)
            if not argument or argument.startswith("#"):
                raise SshConfigError(f"{where}: {name} of Match has no value")
            if name in _MATCHED:
                applies &= self._criterion(name, argument) != negated
            else:
                undecided = undecided or name
        if not count:
            raise SshConfigError(f"{where}: Match has no criteria")
        if applies and undecided:
            raise SshConfigError(
                f"{where}: Match {undecided} may apply to host {self.original}: "
                + ("no command is executed" if undecided == "exec" else "this criterion is not supported")
                + "; use Host, or Match host"
            )
        return applies

    def _criterion(self, name: str, argument: str) -> bool:
        if name == "host":
            return _is_in_list(self.real_host().lower(), argument.lower())
        if name == "originalhost":
            return _is_in_list(self.original.lower(), argument.lower())
        return _is_in_list((self.value("user") if name == "user" else None) or login_user() or "", argument)


_MATCHED = {"host", "originalhost", "user", "localuser"}
_KNOWN = {"host", "include", "port", "identityfile", *_SINGLE, *_LISTS}
_NAMES = {"proxycommand": "ProxyCommand", "knownhostscommand": "KnownHostsCommand", "localcommand": "LocalCommand"}


def _included(pattern: str, where: str) -> list[Path]:
    """Return the files that an ``Include`` names; none if there are none, as in OpenSSH."""
    if not pattern.startswith(("/", "~")):
        pattern = f"~/.ssh/{pattern}"
    path = os.path.expanduser(pattern)
    if path.startswith("~"):
        raise SshConfigError(f"{where}: {pattern} is in no known home directory; write an absolute path")
    return [Path(found) for found in sorted(glob.glob(path))]


def _matches_any(host: str, patterns: list[str]) -> bool:
    """Whether a ``Host`` line matches the host. A negated pattern that matches excludes it."""
    if any(pattern.startswith("!") and matches(pattern[1:], host) for pattern in patterns):
        return False
    return any(not pattern.startswith("!") and matches(pattern, host) for pattern in patterns)


def _is_in_list(text: str, patterns: str) -> bool:
    return _matches_any(text, patterns.split(","))
