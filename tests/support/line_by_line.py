"""The parser's reference: every complete line against every rule, one after the other, with nothing clever."""

from __future__ import annotations

import re

from exporter.logs import parser as parser_module
from exporter.logs.events import Anomaly, Event, RunFailed
from exporter.logs.line_prefix import without_escapes
from exporter.logs.parser import TpsLogParser, foreign_events
from exporter.logs.patterns import LINES

_RULES = tuple(rule for rules in LINES.values() for rule in rules)
_ANY_RULE = re.compile(b"|".join(b"(?:%s)" % rule.pattern.pattern for rule in _RULES))
"""Saves asking sixty rules about each line that none of them knows."""


class LineByLine(TpsLogParser):
    """What :class:`TpsLogParser` must say of a log, read whole."""

    def feed(self, data: bytes, start: int = 0) -> list[Event]:
        limit = parser_module.LINE_LIMIT
        text = (self.state.unfinished + data[start:]).replace(b"\0", b"").replace(b"\r", b"\n")
        *lines, self.state.unfinished = text.split(b"\n")
        if len(self.state.unfinished) > limit:
            # A line that is too long says what it says when that is known: nobody waits for its end.
            lines.append(self.state.unfinished)
        events: list[Event] = []
        for line in lines:
            if len(line) > limit:
                events.append(Anomaly("line_too_long"))
            self._match_every_rule(self.state.prefixes.line(without_escapes(line[:limit])), events)
        return events

    def _match_every_rule(self, line: bytes, events: list[Event]) -> None:
        said: list[Event] = []
        for rule in _RULES if _ANY_RULE.match(line) else ():
            if match := rule.pattern.match(line):
                self._update_dialect(rule, said)
                said.extend(rule.events(match))
                break
        told = [event for event in said if isinstance(event, RunFailed)]
        if all(event.reason == "error" for event in told) and (foreign := foreign_events(line)):
            said = [*(event for event in said if event not in told), *foreign]
        events.extend(said)
