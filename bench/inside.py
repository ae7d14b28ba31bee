"""Settings of the exporter's process for benchmarks that call its code directly."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.process import gc_tuning


@contextmanager
def as_in_the_exporter() -> Iterator[None]:
    """Collect garbage as seldom as the exporter does, within the block."""
    before = gc.get_threshold()
    gc_tuning.collect_less_often()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
