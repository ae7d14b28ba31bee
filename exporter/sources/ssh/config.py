"""Reads an OpenSSH client configuration (ssh_config(5)) without executing anything that stands in it.

As in OpenSSH the first value that applies to a host counts, and ``Include`` is followed. What would run a command
(``ProxyCommand``, ``KnownHostsCommand``, ``LocalCommand``, ``Match exec``) is refused where it applies to the host. A
file that others may write is refused, too.
"""

from __future__ import annotations

import glob
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from exporter.process.user import login_user
from exporter.sources.ssh.files import UntrustedFile, read_trusted
from exporter.sources.ssh.known_hosts import matches

_WHITESPACE = " \t\r\n"
_DEPTH_LIMIT = 16
"""How deep files may include others; OpenSSH's own limit."""
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


class SshConfigError(Exception):
    """A configuration cannot be used for a host.

    Args:
        message: what is wrong, with file and line, and what to do.
    """


@dataclass(frozen=True, slots=True)
class Jump:
    """One host of a ``ProxyJump``.

    Args:
        host: name, address or alias.
        user: ``None`` where it does not say.
        port: ``None`` where it does not say.
    """

    host: str
    user: str | None = None
    port: int | None = None


@dataclass(slots=True)
class HostConfig:
    """What a configuration says of one host; ``None`` or empty where it says nothing.

    Args:
        hostname: the real name or address.
        port: SSH port.
        user: the user to log in as.
        host_key_alias: the name that known_hosts files use for the host.
        identity_files: private keys, in the order in which they are tried; as written.
        user_known_hosts, global_known_hosts: files of trusted keys, as written.
        jumps: hosts to go through, the first one first.
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
    """What a configuration says of a host.

    Args:
        path: the file.
        host: the host as the user names it.
        user: the user that is given elsewhere, which ``Match user`` sees.
        port: the port that is given elsewhere.

    Raises:
        SshConfigError: the file cannot be used for the host.
    """
    reading = _Reading(host, user, port)
    reading.read(path)
    # What a later `Match final` says of HostName comes too late, as in OpenSSH.
    hostname = reading.real_host() if reading.value("hostname") is not None else None
    if reading.wants_final:
        reading.final = True
        reading.files = 0
        reading.host = reading.real_host().lower()
        reading.read(path)
    return reading.result(hostname)


def expand_tokens(text: str, tokens: dict[str, str]) -> str:
    """A value with ``%`` tokens replaced.

    Args:
        text: the value.
        tokens: what stands for which letter; ``%%`` is always a percent sign.

    Raises:
        SshConfigError: the value has a token that is not known.
    """

    def replaced(found: re.Match[str]) -> str:
        letter = found.group(1)
        if letter == "%":
            return "%"
        if letter not in tokens:
            raise SshConfigError(f"{text!r} has the token %{letter}, which is not supported; write the value out")
        return tokens[letter]

    return re.sub("%(.?)", replaced, text, flags=re.DOTALL)


@dataclass
class _Reading:
    """One host's values while files are read."""

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
        """The host's name with ``HostName`` applied, as far as it has been read."""
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
                f"{self.where['canonicalizehostname']}: CanonicalizeHostname is not supported; write the whole name "
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

    # Files

    def read(self, path: Path, depth: int = 0, *, applies: bool = True) -> None:
        """Read a file; nothing of it counts where ``applies`` is false."""
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
            raise SshConfigError(f"{path} is no text; correct ssh_config_file")
        text = data.decode("utf-8", "surrogateescape")
        active = applies
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            active = self._line(line, f"{path}:{number}", depth, active=active, applies=applies)

    def _line(self, line: str, where: str, depth: int, *, active: bool, applies: bool) -> bool:
        """Take one line; returns whether what follows it counts."""
        keyword, rest = _next_word(line.rstrip(_WHITESPACE + "\f").lstrip(_WHITESPACE))
        keyword = keyword.lower()
        if not keyword or keyword.startswith("#"):
            return active
        rest = rest.lstrip(_WHITESPACE)
        if keyword == "match":
            return self._match(rest, where, applies=applies)
        if keyword == "proxyjump" or keyword in _COMMANDS:
            raw = rest.lstrip(_WHITESPACE + "=")
            if not raw:
                raise SshConfigError(f"{where}: {keyword} has no value")
            jumps = parse_jumps(raw, where) if keyword == "proxyjump" else None
            if active:
                self._proxy(keyword, raw, jumps, where)
            return active
        if keyword not in _KNOWN:
            return active
        words = _words(rest, where)
        if not words or not all(words):
            raise SshConfigError(f"{where}: {keyword} has no value")
        if keyword == "host":
            return applies and _is_named(self.host, words)
        if keyword == "include":
            for pattern in words:
                for file in _included(pattern, where):
                    self.read(file, depth + 1, applies=active)
            return active
        if len(words) > 1 and keyword not in _LISTS:
            raise SshConfigError(f"{where}: {keyword} has more than one value; write a value with blanks in quotes")
        if keyword == "port":
            words = [str(_port(words[0], where))]
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
        """Of ``ProxyCommand`` and ``ProxyJump`` the one that comes first counts."""
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

    # Match

    def _match(self, rest: str, where: str, *, applies: bool) -> bool:
        """Whether what follows a ``Match`` line counts; never where its file does not apply."""
        undecided, count, only_pass = "", 0, True
        while rest:
            criterion, rest = _next_word(rest)
            if not criterion or criterion.startswith("#"):
                break
            negated = criterion.startswith("!")
            name = criterion.removeprefix("!").lower()
            count += 1
            if name == "all":
                if not only_pass or _next_word(rest)[0][:1] not in ("", "#"):
                    raise SshConfigError(f"{where}: all stands beside other criteria of Match")
                return applies and not negated
            if name in ("final", "canonical"):
                self.wants_final |= name == "final"
                applies &= self.final != negated
                continue
            only_pass = False
            argument, rest = _next_word(rest)
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
            return _is_listed(self.real_host().lower(), argument.lower())
        if name == "originalhost":
            return _is_listed(self.original.lower(), argument.lower())
        return _is_listed((self.value("user") if name == "user" else None) or login_user() or "", argument)


_MATCHED = {"host", "originalhost", "user", "localuser"}
_KNOWN = {"host", "include", "port", "identityfile", *_SINGLE, *_LISTS}
_NAMES = {"proxycommand": "ProxyCommand", "knownhostscommand": "KnownHostsCommand", "localcommand": "LocalCommand"}


def parse_jumps(text: str, where: str) -> tuple[Jump, ...]:
    """The hosts of a ``ProxyJump``, the first one first.

    Args:
        text: its value; what follows a ``#`` is a comment.
        where: the line, for messages.

    Raises:
        SshConfigError: a part of it is not a host.
    """
    text = text.partition("#")[0].rstrip(_WHITESPACE)
    if text.lower() == "none":
        return ()
    return tuple(_jump(part, where) for part in text.split(","))


def _jump(part: str, where: str) -> Jump:
    address = part.removeprefix("ssh://")
    is_uri = address != part
    if is_uri and (slash := address.find("/", address.find("]") + 1)) >= 0:
        if address[slash + 1 :]:
            raise SshConfigError(f"{where}: ProxyJump {part!r} has a path; write ssh://USER@HOST:PORT")
        address = address[:slash]
    user, at, rest = address.rpartition("@")
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        good = bool(closed) and port[:1] in ("", ":")
        port = port[1:]
    else:
        host, _, port = rest.partition(":")
        good = ":" not in port
    if is_uri:
        user = unquote(user.partition(";")[0])
    if not good or not host or (at and not user) or any(sign in host for sign in " \t\"'"):
        raise SshConfigError(f"{where}: ProxyJump {part!r} is not USER@HOST:PORT; write an IPv6 address as [ADDRESS]")
    return Jump(host, user or None, _port(port, where) if port else None)


def _port(text: str, where: str) -> int:
    try:
        number = int(text) if text.isascii() and text.isdigit() else socket.getservbyname(text, "tcp")
    except (OSError, ValueError):
        number = 0
    if not 0 < number < 65536:
        raise SshConfigError(f"{where}: {text!r} is not a port; write a number from 1 to 65535")
    return number


def _included(pattern: str, where: str) -> list[Path]:
    """The files that an ``Include`` names; none where there are none, as in OpenSSH."""
    if not pattern.startswith(("/", "~")):
        pattern = f"~/.ssh/{pattern}"
    path = os.path.expanduser(pattern)
    if path.startswith("~"):
        raise SshConfigError(f"{where}: {pattern} is in no known home directory; write an absolute path")
    return [Path(found) for found in sorted(glob.glob(path))]


def _is_named(host: str, patterns: list[str]) -> bool:
    """Whether a ``Host`` line names the host; a negated pattern that matches decides."""
    if any(pattern.startswith("!") and matches(pattern[1:], host) for pattern in patterns):
        return False
    return any(not pattern.startswith("!") and matches(pattern, host) for pattern in patterns)


def _is_listed(text: str, patterns: str) -> bool:
    return _is_named(text, patterns.split(","))


def _next_word(text: str) -> tuple[str, str]:
    """A line's next word and what follows it; blanks and one ``=`` part words, and quotes hold blanks."""
    for at, sign in enumerate(text):
        if sign == '"':
            end = text.find('"', at + 1)
            if end < 0:
                return "", ""
            return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(_WHITESPACE)
        if sign in _WHITESPACE or sign == "=":
            rest = text[at + 1 :].lstrip(_WHITESPACE)
            if sign != "=" and rest.startswith("="):
                rest = rest[1:].lstrip(_WHITESPACE)
            return text[:at], rest
    return text, ""


def _words(text: str, where: str) -> list[str]:
    return [*_split(text, where)]


def _split(text: str, where: str) -> Iterator[str]:
    """The values of a line, without quotes and without a comment at its end."""
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            return
        word, quote = "", ""
        while at < len(text):
            sign, following = text[at], text[at + 1 : at + 2]
            if sign == "\\" and following and (following in "'\"\\" or (not quote and following == " ")):
                word += following
                at += 1
            elif not quote and sign in " \t":
                break
            elif not quote and sign in "\"'":
                quote = sign
            elif sign == quote:
                quote = ""
            else:
                word += sign
            at += 1
        if quote:
            raise SshConfigError(f"{where}: a quote is not closed")
        yield word
