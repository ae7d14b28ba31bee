"""What is logged meanwhile, by every thread (structlog's own ``capture_logs`` sees one context only)."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import LogCapture


@contextmanager
def recorded_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """Everything logged in the ``with`` block, in order."""
    capture = LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    try:
        yield capture.entries
    finally:
        structlog.reset_defaults()
