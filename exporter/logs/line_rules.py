"""What a rule for one kind of log line is, and the helpers that the tables of such rules share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from exporter.logs.events import Event, RunFailed

PREFIX_LENGTH = 4
"""The first bytes of a line select the rules to try; the shortest beginning of a rule is this long."""

_TEXT_LIMIT = 500
_SAID_LIMIT = 2048

Match = re.Match[bytes]
Events = Callable[[Match], Iterable[Event]]


def to_text(text: bytes) -> str:
    """A line of a log as text for people: UTF-8 with replacement, at most 500 bytes of it."""
    return text[:_TEXT_LIMIT].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class LineRule:
    """One kind of line.

    Args:
        pattern: matched at the beginning of a line.
        events: what the line says.
        family: the engine that prints it (``smc`` or ``moqui``), where no other does.
        mode: the way of simulating that prints it (``beam``, ``spot`` or ``stat``), where no other does.
        beginning: what every such line begins with, literally.
        usual_mode: the way of simulating where no earlier line has told it. Each way announces its batches before its
            first batch, if it announces them at all.
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
    """A row of a table: the literal beginning of a line and a regular expression for what follows it."""
    pattern = re.compile(re.escape(beginning) + rest)
    return beginning[:PREFIX_LENGTH], LineRule(pattern, events, family, mode, beginning, usual_mode)


def always(*events: Event) -> Events:
    """Lines that say the same each time share their events: events never change."""
    return lambda _: events


def evidence(match: Match) -> bytes:
    """At most 2 KiB of the line, from the group ``said`` on, else from the match on.

    What stands before it is an unfinished line.
    """
    start = match.start("said") if "said" in match.re.groupindex else match.start()
    return match.string[start : start + _SAID_LIMIT]


def failed(reason: str) -> Events:
    """The line says that the run failed for this reason."""
    return lambda match: (RunFailed(reason, to_text(evidence(match))),)
