"""Redaction of the exporter's own log while pseudonyms are used: the last line of defence.

An :class:`~exporter.privacy.identifiers.Identifiers` converts ids, paths and texts in known fields of a log line. Every
other text is redacted, except in fields that only hold words of the exporter or of its configuration. Messages of
libraries and of exceptions are redacted, because they quote the data that they could not handle. The types of an
exception and the code locations stay, for debugging.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from exporter.privacy.identifiers import Identifiers, Problem, SafeText
from exporter.privacy.pseudonyms import REDACTED

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
"""Fields that only contain words of the exporter or of its configuration."""


class Redactor:
    """A structlog processor: converts ids, paths, texts and problems, and redacts other texts of unknown origin.

    Callers log real values. The name of a field decides how its text is shown: ``case``, ``beam``, ``folder``,
    ``database`` and ``file`` (paths), ``status``, ``text`` (a line of a log), and ``error`` (a
    :class:`~exporter.privacy.identifiers.Problem`).

    Args:
        identifiers: how ids, paths, texts and problems are shown.
    """

    def __init__(self, identifiers: Identifiers) -> None:
        self._identifiers = identifiers
        self._converters: dict[str, Callable[[str], str]] = {
            "case": identifiers.case,
            "beam": identifiers.beam,
            "folder": identifiers.path,
            "database": identifiers.path,
            "file": identifiers.path,
            "status": identifiers.status,
            "text": identifiers.text,
        }

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: self._shown(key, value) for key, value in event.items()}

    def _shown(self, key: str, value: object) -> object:
        if value is None or isinstance(value, (bool, int, float, SafeText)):
            return value
        if key == "error" and isinstance(value, Problem):
            return self._identifiers.problem(value)
        if isinstance(value, str) and (convert := self._converters.get(key)) is not None:
            return convert(value)
        # Names that begin with _ are structlog's own.
        own = key.startswith("_") or (key in OWN_FIELDS and isinstance(value, str))
        return value if own else REDACTED


def redact_library_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor for records of libraries: keeps the logger and the code location only."""
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        if isinstance(record.msg, SafeText) and not record.args:
            return event
        event["where"] = f"{record.filename}:{record.lineno}"
    return {**event, "event": REDACTED}


def render_exception(exc_info: ExcInfo) -> str:
    """Render an exception and its causes without their messages, for structlog's ``ExceptionRenderer``."""
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
        yield f"{type(each).__module__}.{type(each).__qualname__}: {REDACTED}"


def catch_what_python_prints() -> None:
    """Log what Python would print itself: uncaught exceptions and warnings."""
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
