"""Hypothesis profiles: ``ci`` (the default) tries the same examples each time, ``thorough`` looks for new ones.

Logging is configured once per process; tests that do so must not change what others see.
"""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    structlog.reset_defaults()
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # a server that was started here has set it
    structlog.reset_defaults()
