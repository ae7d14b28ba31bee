"""Rules that turn one kind of log line into events, and helpers for tables of such rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter.logs.events import Event, RunFailed

PREFIX_LENGTH = 4
"""Number of leading bytes that select the rules to try. No rule has a shorter beginning."""

_TEXT_LIMIT = 500
_SAID_LIMIT = 2048

Match = re.Match[bytes]
Events = Callable[[Match], Iterable[Event]]


def to_text(text: bytes) -> str:
    """Decode a log line for people: at most 500 bytes, as UTF-8 with replacement characters."""
    return text[:_TEXT_LIMIT].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class LineRule:
    """Rule for one kind of line.

    Args:
        pattern: matched at the beginning of a line.
        events: makes the events from the match.
        family: the only engine family that prints the line (``smc`` or ``moqui``); ``None`` if several do.
        mode: the only simulation mode that prints the line (``beam``, ``spot`` or ``stat``); ``None`` if several do.
        beginning: literal text at the beginning of every such line.
        usual_mode: simulation mode to assume if no earlier line has shown it.
    """

    pattern: re.Pattern[bytes]
    events: Events
    family: str | None = None
    mode: str | None = None
    beginning: bytes = b""
    usual_mode: str | None = None


def line_rule(
    beginning: bytes,
    events: Events,
    rest: bytes = b"",
    *,
    family: str | None = None,
    mode: str | None = None,
    usual_mode: str | None = None,
) -> tuple[bytes, LineRule]:
    """Make a table row from the literal beginning of a line and a regular expression for the rest."""
    pattern = re.compile(re.escape(beginning) + rest)
    return beginning[:PREFIX_LENGTH], LineRule(pattern, events, family, mode, beginning, usual_mode)


def always(*events: Event) -> Events:
    """Return the same events for every match. Events are immutable, so lines can share them."""
    return lambda _: events


def evidence(match: Match) -> bytes:
    """Return at most 2 KiB of the line, starting at the group ``message`` or else at the match.

    The text before it is an unfinished line of the engine.
    """
    start = match.start("message") if "message" in match.re.groupindex else match.start()
    return match.string[start : start + _SAID_LIMIT]


def failed(reason: str) -> Events:
    """Make the events for a rule whose lines always mean a failure with this reason."""
    return lambda match: (RunFailed(reason, to_text(evidence(match))),)
