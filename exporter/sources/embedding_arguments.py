"""Checks what an embedding program passes: its logger, log paths and timeouts.

The functions return the value to use, or raise :class:`BadArgument` with a message for people. :class:`Reporter` logs
through the caller's logger, and never raises, whatever that logger does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

LOGGER_NAME = "exporter.embedding"
"""Standard logger for callers that give none, or one that raises."""

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class BadArgument(ValueError):
    """An argument is not usable; the message says why, and what to pass instead."""


class Logger(Protocol):
    """Logger of an embedding program; the communicator's own logger has these methods."""

    def info(self, message: str, context: Mapping[str, Any], /) -> Any: ...

    def warning(self, message: str, context: Mapping[str, Any], /) -> Any: ...

    def error(self, message: str, context: Mapping[str, Any], /) -> Any: ...


class Reporter:
    """Logs problems, each once. Never raises an ``Exception``.

    Args:
        logger: anything with ``info``, ``warning`` and ``error`` that take a message and a dictionary, or a message
            alone, or a logger of the standard library. ``None`` for the standard logger ``exporter.embedding``, which
            is also used when ``logger`` raises.
    """

    def __init__(self, logger: Logger | logging.Logger | None) -> None:
        self._logger = logger
        self._last: dict[str, Mapping[str, Any]] = {}
        self._fallback_explained = False

    def warning(self, message: str, context: Mapping[str, Any]) -> None:
        """Log ``message``, unless the last one of the same text had the same context."""
        self._report("warning", message, context)

    def error(self, message: str, context: Mapping[str, Any]) -> None:
        """See :meth:`warning`."""
        self._report("error", message, context)

    def is_over(self, message: str) -> None:
        """Note that the problem of ``message`` is over: the next one is logged again."""
        self._last.pop(message, None)

    def _report(self, level: str, message: str, context: Mapping[str, Any]) -> None:
        if self._last.get(message) == context:
            return
        self._last[message] = context
        logger = self._logger
        if logger is not None and not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
            try:
                _call(getattr(logger, level), message, context)
                return
            except Exception as error:  # noqa: BLE001 - the caller's logger, whatever it raises; logged elsewhere
                self._explain_fallback(error)
            logger = None
        # A handler of the caller's may raise, and then nothing is left to log with.
        with contextlib.suppress(Exception):
            standard = logger if logger is not None else logging.getLogger(LOGGER_NAME)
            standard.log(_LEVELS[level], "%s", _rendered(message, context))

    def _explain_fallback(self, error: Exception) -> None:
        if self._fallback_explained:
            return
        self._fallback_explained = True
        with contextlib.suppress(Exception):
            logging.getLogger(LOGGER_NAME).warning(
                "The given logger cannot be used (%s). Pass one whose info, warning and error take a message and a "
                "dictionary. Messages go to the standard logger %s meanwhile.",
                described(error),
                LOGGER_NAME,
            )


def _call(method: Callable[..., object], message: str, context: Mapping[str, Any]) -> None:
    try:
        method(message, dict(context))
    except TypeError:
        # A logger that takes a message only.
        method(_rendered(message, context))


def _rendered(message: str, context: Mapping[str, Any]) -> str:
    return f"{message}: {', '.join(f'{key}={value}' for key, value in context.items())}"


def described(error: BaseException) -> str:
    """Return type and text of an exception; the type alone if its ``__str__`` raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its __str__ raises
        return type(error).__name__


def shown(value: object) -> str:
    """Return a value as short text for a message; its type if its ``repr`` raises."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - its __repr__ raises
        return f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:97]}..."


def log_path_text(path: object) -> str:
    """Return a log's path as text.

    Args:
        path: text, bytes or anything with ``__fspath__``.

    Raises:
        BadArgument: it is not a path.
    """
    advice = "pass the log's path as text or as a pathlib.Path"
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise BadArgument(f"the log's path is {shown(path)}, a {type(path).__name__}; {advice}")
    try:
        text = os.fsdecode(path)
    except Exception as error:  # __fspath__ is the caller's
        raise BadArgument(f"the log's path cannot be read ({described(error)}); {advice}") from error
    if not text:
        raise BadArgument(f"the log's path is empty; {advice}")
    if "\0" in text:
        raise BadArgument(f"the log's path {text!r} contains a NUL character; {advice}")
    return text


def seconds_or_none(value: object, name: str) -> float | None:
    """Return a number of seconds.

    Args:
        value: a number or text with one; ``None`` or infinity for no limit. A negative one counts as 0.
        name: its name in the message.

    Returns:
        Seconds, 0 or more; ``None`` for no limit.

    Raises:
        BadArgument: it is not a number of seconds.
    """
    if value is None:
        return None
    seconds = math.nan
    if not isinstance(value, bool):
        with contextlib.suppress(Exception):
            seconds = float(value)  # type: ignore[arg-type]
    if math.isnan(seconds):
        raise BadArgument(f"{name} is {shown(value)}; pass a number of seconds, or None for no limit")
    return None if seconds == math.inf else max(0.0, seconds)
