"""The notifier of a configuration: its destinations, and what it has sent before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from exporter.beams.snapshot import StoreSnapshot
from exporter.config import Settings
from exporter.notify.apprise_sender import UrlFileError, read_urls, send, url_id
from exporter.notify.notifier import Destination, Notifier, SentInMemory, SentMessages
from exporter.notify.occurrences import NotificationKind
from exporter.persistence.sent import SentOnDisk
from exporter.persistence.writer import StateWriter
from exporter.privacy.identifiers import Identifiers


def destinations(settings: Settings) -> list[Destination]:
    """Return every destination of a configuration: one for each URL of each entry of ``notifications``.

    Raises:
        ConfigError: a file of URLs cannot be used; the message names key and line of the configuration.
    """
    return list(_destinations(settings))


def _destinations(settings: Settings) -> Iterator[Destination]:
    for position, entry in enumerate(settings.notifications):
        try:
            urls = read_urls(Path(entry.url_file))
        except UrlFileError as error:
            raise settings.error_at((("notifications", position, "url_file"), str(error))) from None
        for url in urls:
            kinds = frozenset(NotificationKind(kind) for kind in entry.on)
            yield Destination(
                entry.name, f"{entry.name} {url_id(url)}", kinds, re.compile(entry.cases), partial(send, url)
            )


def sent_messages(settings: Settings, state_writer: StateWriter | None) -> SentMessages:
    """Return the memory of what has been sent: on disk where the state is kept, else until the process ends."""
    if state_writer is None:
        return SentInMemory()
    return SentOnDisk(state_writer.path, settings.state.keep_history_days, state_writer.encryption)


def make_notifier(
    settings: Settings,
    snapshot: Callable[[], StoreSnapshot],
    ready: Callable[[], bool],
    identifiers: Identifiers,
    sent: SentMessages,
    counts: dict[tuple[str, str], int],
) -> Notifier | None:
    """Build the notifier of a configuration; ``None`` where nothing is to be sent.

    Raises:
        ConfigError: a file of URLs cannot be used.
    """
    found = destinations(settings)
    return Notifier(found, snapshot, ready, identifiers, sent, time.monotonic, counts) if found else None
