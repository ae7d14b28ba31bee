"""The exporter's own log: one line per event on standard error, as logfmt or JSON.

What is logged can hold text that other people wrote (ids, lines of logs, paths), so a value can never end a line, forge
another field, or send control characters to a terminal. Nor can it fill a disk: a value is cut, and lines beyond so
many a minute are counted instead of written. Exceptions are one field with their traceback and never with
the values of local variables, which hold ids.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from exporter.privacy import redaction
from exporter.privacy.identifiers import SafeText

if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    _TextHandler = logging.StreamHandler  # takes no type before Python 3.11

# What these say is routine here (each request, each rule tried on a line of a runbook), or said by us in one line (an
# SSH connection's end; paramiko writes a traceback, a line of it at a time, whenever a host hangs up).
_LEAST_LEVELS = {"uvicorn.access": logging.WARNING, "markdown_it": logging.WARNING, "paramiko": logging.CRITICAL}
_UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_FIRST_FIELDS = ("ts", "level", "msg")

LINES_PER_MINUTE = 10_000
"""As many as beams begin or end together at most; beyond, somebody's trouble comes and goes at every look."""
VALUE_CHARACTERS = 16_000
"""Longest value of a field: a traceback, but not the file that somebody keeps in a column."""


def configure(
    level: Literal["debug", "info", "warning", "error"],
    format: Literal["logfmt", "json"],
    stream: TextIO | None = None,
    *,
    redact: bool = False,
) -> None:
    """Send everything that is logged, by structlog or by the standard library, to one stream.

    May be called again to change level and format; loggers made before follow.

    Args:
        level: least severity that is written.
        format: form of each line; its first fields are ``ts`` (UTC, ISO 8601), ``level`` and ``msg``.
        stream: where to; standard error where ``None``.
        redact: whether texts of unknown origin are redacted (:mod:`exporter.privacy.redaction`), from now on.
    """
    of_libraries: list[Processor] = [structlog.stdlib.add_logger_name]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
    ]
    if redact:
        of_libraries.append(redaction.redact_library_record)
        common += [structlog.processors.ExceptionRenderer(redaction.render_exception), redaction.redact]
        redaction.catch_what_python_prints()
    else:
        common.append(structlog.processors.format_exc_info)
    common.append(structlog.processors.EventRenamer("msg"))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Output(sys.stderr if stream is None else stream, redact)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*of_libraries, *common],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render_json if format == "json" else render_logfmt,
            ],
        )
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Output)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _UVICORN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(least)


def render_logfmt(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """``ts=... level=... msg="..."`` and the other fields as given; a value is quoted where it has to be."""
    return " ".join(f"{_logfmt_key(key)}={_logfmt_value(_cut(event[key]))}" for key in _ordered(event))


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One JSON object in ASCII; what JSON has no word for is written as text."""
    fields = {key: _cut(_finite(event[key])) for key in _ordered(event)}
    return json.dumps(fields, default=str)


class _Output(_TextHandler):
    """Our handler, told apart from those of others (pytest's, an embedding program's) when configured again.

    Args:
        stream: where to.
        redact: whether a line that cannot be written is not to be shown on standard error either.
        clock: seconds of a clock that never steps.
    """

    def __init__(self, stream: TextIO, redact: bool, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._redact = redact
        self._clock = clock
        self._minute_began = clock()
        self._lines = 0
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, unless there have been too many in this minute. Called under the handler's lock."""
        now = self._clock()
        if now - self._minute_began >= 60:
            left_out, self._left_out, self._lines, self._minute_began = self._left_out, 0, 0, now
            if left_out:
                text = SafeText(f"log lines left out: {left_out}, more than {LINES_PER_MINUTE} came in a minute")
                super().emit(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))
        self._lines += 1
        if self._lines <= LINES_PER_MINUTE:
            super().emit(record)
        else:
            self._left_out += 1

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say that a line could not be written; the library would print what it was to say."""
        if not self._redact:
            super().handleError(record)
            return
        # Standard error may be what does not work.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"a log line of {record.filename}:{record.lineno} could not be written\n")


def _ordered(event: EventDict) -> list[str]:
    first = [key for key in _FIRST_FIELDS if key in event]
    return first + [key for key in event if key not in _FIRST_FIELDS]


def _logfmt_key(key: str) -> str:
    return "".join(character if character.isalnum() or character in "_.-" else "_" for character in key) or "_"


def _logfmt_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text.isprintable() and not any(character in ' ="\\' for character in text):
        return text or '""'
    # JSON's escapes, and the same for what JSON lets through: line separators, C1 controls, lone surrogates.
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in quoted)


def _cut(value: object) -> object:
    """Long texts, and what has a long text, without their middle: a traceback says most at its ends."""
    if isinstance(value, (int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    if len(text) <= VALUE_CHARACTERS:
        return value
    half = VALUE_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
