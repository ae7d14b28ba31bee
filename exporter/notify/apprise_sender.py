"""Sends messages through Apprise: mail, Teams, Slack, webhooks and a hundred other services, each named by a URL.

The URLs hold passwords. They are read from a file, and never shown.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from exporter.notify.messages import Message
from exporter.notify.notifier import SendFailed
from exporter.notify.occurrences import NotificationKind
from exporter.process.trusted_files import readable_by_others

_TYPES = {
    NotificationKind.CASE_DONE: "success",
    NotificationKind.CASE_FAILED: "failure",
    NotificationKind.BEAM_FAILED: "failure",
    NotificationKind.BEAM_STALLED: "warning",
    NotificationKind.SOURCE_DOWN: "warning",
}


_LONGEST_FILE = 1 << 20


class UrlFileError(Exception):
    """A file of URLs cannot be used: which, which line, and what to do."""


def _load_apprise() -> ModuleType:
    """Import Apprise, which takes a while, and keep its log lines to ourselves: they may show URLs."""
    import apprise

    logger = logging.getLogger("apprise")
    if logger.propagate:
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
    return apprise


def read_urls(path: Path) -> list[str]:
    """Read the URLs of a file: one per line; empty lines and lines that begin with ``#`` are comments.

    Args:
        path: the file.

    Raises:
        UrlFileError: it cannot be read, others may read it, or a line is not a URL that Apprise knows.
    """
    apprise = _load_apprise()
    try:
        with path.open(encoding="utf-8") as file:
            problem = readable_by_others(path, os.fstat(file.fileno()), group_may_read=True)
            lines = file.read(_LONGEST_FILE).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UrlFileError(f"{path}: {reason}; it should hold one Apprise URL per line") from None
    if problem is not None:
        raise UrlFileError(problem)
    urls: list[str] = []
    for number, line in enumerate(lines, 1):
        url = line.strip()
        if not url or url.startswith("#"):
            continue
        if not apprise.Apprise().add(url):
            advice = "see https://github.com/caronc/apprise/wiki for its form"
            raise UrlFileError(f"{path}, line {number}: is not a URL that Apprise can send to; {advice}")
        urls.append(url)
    if not urls:
        raise UrlFileError(f"{path}: holds no URL; write one per line")
    return urls


def url_id(url: str) -> str:
    """Name a destination without showing its URL."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def send(url: str, message: Message) -> None:
    """Send a message, waiting for the service's answer.

    Args:
        url: of the service, as Apprise writes it.
        message: what to send.

    Raises:
        SendFailed: the service did not accept it, or could not be reached.
    """
    apprise = _load_apprise()
    service = apprise.Apprise()
    if not service.add(url):
        raise SendFailed("Apprise does not know this kind of URL")
    try:
        accepted = service.notify(
            title=message.subject,
            body=message.body,
            notify_type=apprise.NotifyType(_TYPES[message.kind]),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception as error:
        raise SendFailed(f"the service raised {type(error).__name__}") from error
    if not accepted:
        raise SendFailed("the service did not accept it, or could not be reached")


def explain_failure(url: str, message: Message) -> Sequence[str]:
    """Send a message and return what Apprise logs about it, for a person at a terminal."""
    apprise = _load_apprise()
    with apprise.LogCapture(level=logging.INFO) as captured:
        try:
            send(url, message)
        except SendFailed as error:
            return [*captured.getvalue().splitlines(), str(error)]
    return []
