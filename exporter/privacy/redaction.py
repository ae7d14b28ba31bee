"""The last line of defence where ids are withheld: no text of unknown origin gets into the exporter's own log.

Whoever writes a log line passes ids and texts through an :class:`~exporter.privacy.identifiers.Identifiers`, and what
comes of that is :class:`~exporter.privacy.identifiers.Cleared`. Everything else is withheld here, unless it is a number
or stands in a field that only ever holds words of the exporter or of its configuration: the messages of libraries, and
those of exceptions, which like to quote what they could not handle. Of an exception the types and the places in the
code are kept, which is what finding a fault takes.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from exporter.privacy.identifiers import Cleared
from exporter.privacy.pseudonyms import WITHHELD

_log = structlog.get_logger(__name__)

OWN_FIELDS = frozenset(
    {
        "about",  # doubts about the configuration
        "address",
        "before",
        "event",
        "exception",  # made below
        "kind",
        "level",
        "logger",
        "not_set_aside",  # the system's word for why
        "part",
        "reason",
        "set_aside_as",
        "source",
        "stack",
        "state",
        "thread",
        "ts",
        "user",  # of the web configuration
        "version",
        "where",  # in the code of a library
    }
)
"""Fields whose texts are the exporter's own words, or its configuration's."""


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor for events of the exporter: texts of unknown origin are withheld."""
    return {key: value if _is_harmless(key, value) else WITHHELD for key, value in event.items()}


def withhold_message(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor for records of other libraries: which one has something to say stays, and where in its code."""
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        if isinstance(record.msg, Cleared) and not record.args:
            return event
        event["where"] = f"{record.filename}:{record.lineno}"
    return {**event, "event": WITHHELD}


def render_exception(exc_info: ExcInfo) -> str:
    """An exception, and those that led to it, without their messages; for structlog's ``ExceptionRenderer``."""
    return "\n".join(_described(exc_info[1]))


def _described(error: BaseException) -> Iterator[str]:
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    for each in reversed(chain):
        if each.__traceback__ is not None:
            yield "Traceback (most recent call last):"
            yield "".join(traceback.format_tb(each.__traceback__)).rstrip("\n")
        yield f"{type(each).__module__}.{type(each).__qualname__}: {WITHHELD}"


def _is_harmless(key: str, value: object) -> bool:
    if value is None or isinstance(value, (bool, int, float, Cleared)):
        return True
    # What begins with _ is structlog's, for its own processors.
    return key.startswith("_") or (key in OWN_FIELDS and isinstance(value, str))


def catch_what_python_prints() -> None:
    """Send to the log what Python would print by itself: exceptions that nobody has caught, and warnings."""
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("unexpected error, the exporter ends", exc_info=(kind, error, trace))


def _uncaught_in_thread(about: threading.ExceptHookArgs) -> None:
    if about.exc_type is SystemExit:
        return
    error = about.exc_value if about.exc_value is not None else about.exc_type()
    name = "" if about.thread is None else about.thread.name
    _log.critical("unexpected error, a thread ends", thread=name, exc_info=(about.exc_type, error, about.exc_traceback))


def _unraisable(about: sys.UnraisableHookArgs) -> None:
    error = about.exc_value if about.exc_value is not None else about.exc_type()
    _log.error("unexpected error, going on", exc_info=(about.exc_type, error, about.exc_traceback))
