"""The exporter's own code within the benchmark's process, as it runs in the exporter's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.process import gc_tuning


@contextmanager
def as_in_the_exporter() -> Iterator[None]:
    """Garbage is looked for as seldom as there, whoever's code it is of."""
    before = gc.get_threshold()
    gc_tuning.collect_less_often()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
