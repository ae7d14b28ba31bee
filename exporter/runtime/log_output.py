"""The exporter's own log: one line per event on standard error, as logfmt or JSON.

Values may hold text from outside (ids, log lines, paths). So a value is escaped: it cannot end a line, forge a field or
send control characters to a terminal. Long values are cut, and above a limit per minute lines are counted instead of
written, so that the log cannot fill a disk. An exception is one field with its traceback, without the values of local
variables, which hold ids.
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
from exporter.privacy.identifiers import Identifiers, SafeText

if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    _TextHandler = logging.StreamHandler  # takes no type before Python 3.11

# Messages below these levels are routine (each request, each parser rule of a runbook), or the exporter logs the same
# in one line (paramiko writes a traceback line by line whenever a host closes a connection).
_LEAST_LEVELS = {"uvicorn.access": logging.WARNING, "markdown_it": logging.WARNING, "paramiko": logging.CRITICAL}
_UVICORN_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_FIRST_FIELDS = ("ts", "level", "msg")

LINES_PER_MINUTE = 10_000
"""Most lines per minute. So many beams start or end together at most; more lines come from a repeated problem."""
VALUE_CHARACTERS = 16_000
"""Longest value of a field; a traceback fits."""


def configure(
    level: Literal["debug", "info", "warning", "error"],
    format: Literal["logfmt", "json"],
    stream: TextIO | None = None,
    *,
    identifiers: Identifiers | None = None,
) -> None:
    """Send all log messages of structlog and of the standard library to one stream.

    It may be called again to change level and format.

    Args:
        level: lowest level that is written.
        format: format of each line; its first fields are ``ts`` (UTC, ISO 8601), ``level`` and ``msg``.
        stream: the stream; ``None`` for standard error.
        identifiers: how ids, paths and texts are shown; then other texts of unknown origin are redacted
            (:mod:`exporter.privacy.redaction`). ``None`` shows everything.
    """
    of_libraries: list[Processor] = [structlog.stdlib.add_logger_name]
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
    ]
    if identifiers is not None:
        of_libraries.append(redaction.redact_library_record)
        common += [structlog.processors.ExceptionRenderer(redaction.render_exception), redaction.Redactor(identifiers)]
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
    handler = _Output(sys.stderr if stream is None else stream, identifiers is not None)
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
    """Render an event as ``ts=... level=... msg="..." ...``; values are quoted if necessary."""
    return " ".join(f"{_logfmt_key(key)}={_logfmt_value(_cut(event[key]))}" for key in _ordered(event))


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Render an event as one JSON object in ASCII; values of unknown types become text."""
    fields = {key: _cut(_finite(event[key])) for key in _ordered(event)}
    return json.dumps(fields, default=str)


class _Output(_TextHandler):
    """Writes log lines, with a limit per minute. Its type distinguishes it from handlers of pytest or other programs.

    Args:
        stream: the stream.
        redact: whether the content of a line that cannot be written must not be shown either.
        clock: monotonic clock in seconds.
    """

    def __init__(self, stream: TextIO, redact: bool, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._redact = redact
        self._clock = clock
        self._minute_began = clock()
        self._lines = 0
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line unless the limit is reached. The caller holds the handler's lock."""
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
        """Report a line that could not be written, without its content, which the library would print."""
        if not self._redact:
            super().handleError(record)
            return
        # Standard error itself may fail.
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
    # JSON's escapes, also for characters that JSON does not escape: line separators, C1 controls, lone surrogates.
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in quoted)


def _cut(value: object) -> object:
    """Cut the middle out of a long value, because the ends of a traceback are the most useful."""
    if isinstance(value, (int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    if len(text) <= VALUE_CHARACTERS:
        return value
    half = VALUE_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


def _finite(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
