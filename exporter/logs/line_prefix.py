"""Removes line prefixes of other programs and terminal colours before lines are matched.

``srun --label`` writes ``0: `` before each line. Other programs write a time stamp, a host or the name of a stream.
The first line that only an engine prints (:data:`~exporter.logs.patterns.DECISIVE_BEGINNINGS`) decides whether the log
has prefixes. Until then, prefixes are removed from every line. In a log without prefixes nothing is removed afterwards.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from exporter.logs.patterns import DECISIVE_BEGINNINGS

ESCAPE = b"\x1b"
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[()][0-9A-B]|[=>78cDEHM])")
"""Terminal sequences: colours, cursor movements, window titles, character sets."""

_ZONE = rb"(?: ?(?:Z|[+-]\d\d:?\d\d)\b| (?:UTC|GMT|KST|JST|CES?T|[ECMP][SD]T)\b)?"
_TIME = rb"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_WEEKDAY = rb"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) )?"
_STAMP = rb"(?:%s)" % rb"|".join(
    (
        rb"\d{4}[-/]\d\d[-/]\d\d[T ]" + _TIME + _ZONE,  # ISO 8601 and its relatives
        rb"\d{8}T\d{6}Z?",
        _WEEKDAY + _MONTH + rb" [ \d]?\d " + _TIME + rb"(?:(?: [A-Z]{3,4})? \d{4}\b)?",  # syslog, date, ts
        _TIME,
        rb"\d{10}\.\d{1,9}\b",  # seconds since 1970
        rb"\[(?!\d{1,4}\] *[-+] |ERROR\]|Error\]|error\]|FATAL\])[^\]\n]{1,100}\]",  # a time, a host, [INFO]
    )
)
_SYSLOG_TAG = rb"(?:[\w.-]{1,100} )?[\w./@-]{1,100}\[\d{1,9}\]: "
_BEHIND_STAMP = rb"(?:%s)?" % rb"|".join(
    (
        _SYSLOG_TAG,
        rb"std(?:out|err) [FP] ",  # Kubernetes' container runtimes
        rb"[\w.-]{1,100} tps_env: ",  # syslog without a process id
        rb"(?:- )?(?:[\w.]{1,60} - )?(?:DEBUG|INFO|NOTICE)(?: -|:)? ",  # Python's logging
    )
)
# mpirun writes one blank after the stream's name, or none. Then an even number of blanks belongs to the line.
_STREAM = rb"<std(?:out|err)>:?(?: (?=(?:  )*[^ ]))?"
# At most one blank belongs to the prefix: some engine lines begin with two.
_PREFIX = rb"(?:%s)" % rb"|".join(
    (
        _STAMP + _STREAM,
        _STAMP + rb"(?: ?[:|>-])?[ \t]?" + _BEHIND_STAMP,
        rb"<\d{1,3}>\d? ?",  # syslog's priority
        _STREAM,
        _SYSLOG_TAG,
        rb" {0,6}\d{1,7}: ",  # srun --label
        rb"[\w.-]{1,80} +\| ",  # docker compose
    )
)
_PREFIXES = _PREFIX + rb"{1,4}"
_AT_LINE_START = re.compile(rb"\n" + _PREFIXES)
_DECISIVE = re.compile(rb"\n(" + _PREFIXES + rb")?(?:" + rb"|".join(map(re.escape, DECISIVE_BEGINNINGS)) + rb")")


def without_escapes(text: bytes) -> bytes:
    """Return ``text`` without terminal sequences. Newlines stay."""
    return _ESCAPES.sub(b"", text) if ESCAPE in text else text


class Prefixes(Enum):
    """Whether the lines of a log have prefixes."""

    UNDECIDED = "undecided"
    PRESENT = "present"
    ABSENT = "absent"


@dataclass(slots=True)
class PrefixFilter:
    """Removes the prefixes of one log's lines.

    Attributes:
        prefixes: whether the log has prefixes, as decided so far.
    """

    prefixes: Prefixes = Prefixes.UNDECIDED

    def line(self, line: bytes) -> bytes:
        """Return one complete line without its prefixes."""
        if self.prefixes is Prefixes.ABSENT:
            return line
        return self.lines(b"\n" + line)[1:]

    def lines(self, lines: bytes) -> bytes:
        """Return several lines without their prefixes. Each line is complete and has its newline before it."""
        if self.prefixes is Prefixes.ABSENT:
            return lines
        if self.prefixes is Prefixes.UNDECIDED:
            decisive = _DECISIVE.search(lines)
            if decisive is not None and decisive[1] is None:
                self.prefixes = Prefixes.ABSENT
                at = decisive.start()
                return _AT_LINE_START.sub(b"\n", lines[:at]) + lines[at:]
            if decisive is not None:
                self.prefixes = Prefixes.PRESENT
        return _AT_LINE_START.sub(b"\n", lines)
