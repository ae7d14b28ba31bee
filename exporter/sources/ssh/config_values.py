"""Parses the words and values of ssh_config(5) lines."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

WHITESPACE = " \t\r\n"


class SshConfigError(Exception):
    """The configuration cannot be used for a host. The message names file and line and says what to do."""


@dataclass(frozen=True, slots=True)
class Jump:
    """One host of a ``ProxyJump``.

    Args:
        host: name, address or alias.
        user: user to log in as; ``None`` if not given.
        port: SSH port; ``None`` if not given.
    """

    host: str
    user: str | None = None
    port: int | None = None


def expand_tokens(text: str, tokens: dict[str, str]) -> str:
    """Replace the ``%`` tokens in a value.

    Args:
        text: the value.
        tokens: replacement by letter; ``%%`` is always a percent sign.

    Raises:
        SshConfigError: the value has an unknown token.
    """

    def replaced(found: re.Match[str]) -> str:
        letter = found.group(1)
        if letter == "%":
            return "%"
        if letter not in tokens:
            raise SshConfigError(f"{text!r} has the token %{letter}, which is not supported; write the value out")
        return tokens[letter]

    return re.sub("%(.?)", replaced, text, flags=re.DOTALL)


def parse_jumps(text: str, where: str) -> tuple[Jump, ...]:
    """Parse a ``ProxyJump``.

    Args:
        text: its value; a ``#`` starts a comment.
        where: the line, for messages.

    Returns:
        The jump hosts in the order in which they are connected to.

    Raises:
        SshConfigError: a part of it is not a host.
    """
    text = text.partition("#")[0].rstrip(WHITESPACE)
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
    return Jump(host, user or None, parse_port(port, where) if port else None)


def parse_port(text: str, where: str) -> int:
    """Parse a port number or the name of a service.

    Raises:
        SshConfigError: it is neither.
    """
    try:
        number = int(text) if text.isascii() and text.isdigit() else socket.getservbyname(text, "tcp")
    except (OSError, ValueError):
        number = 0
    if not 0 < number < 65536:
        raise SshConfigError(f"{where}: {text!r} is not a port; write a number from 1 to 65535")
    return number


def next_word(text: str) -> tuple[str, str]:
    """Return the next word of a line and the rest. Blanks or one ``=`` separate words; quoted words may hold blanks."""
    for at, sign in enumerate(text):
        if sign == '"':
            end = text.find('"', at + 1)
            if end < 0:
                return "", ""
            return text[:at] + text[at + 1 : end], text[end + 1 :].lstrip(WHITESPACE)
        if sign in WHITESPACE or sign == "=":
            rest = text[at + 1 :].lstrip(WHITESPACE)
            if sign != "=" and rest.startswith("="):
                rest = rest[1:].lstrip(WHITESPACE)
            return text[:at], rest
    return text, ""


def split_values(text: str, where: str) -> Iterator[str]:
    """Yield the values of a line, without quotes and without a comment.

    Raises:
        SshConfigError: a quote is not closed.
    """
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
