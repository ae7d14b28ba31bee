"""The exporter with faults that quote ids: exceptions in each thread, and messages of libraries.

``python -m tests.privacy.faulty`` takes what ``mqi-exporter`` takes. Each fault happens once, when beams are known.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from exporter.beams.store import BeamStore
from exporter.cli.main import main
from exporter.metrics.collectors import StoreCollector

api: Any = import_module("exporter.web.api")
advance, cases, groups = BeamStore.advance, api.group_by_case, StoreCollector.__call__


def advance_and_fail(store: BeamStore, at: float) -> None:
    advance(store, at)
    quoted = str(sorted(store.keys()))
    if not store.keys():
        return
    BeamStore.advance = advance  # type: ignore[method-assign]
    logging.getLogger("paramiko.transport").error("Exception (client): %s", quoted)
    logging.getLogger("asyncio").error("Task exception was never retrieved: " + quoted)  # noqa: G003 - as they do
    warnings.warn(quoted, stacklevel=1)
    threading.Thread(target=_fail, args=(quoted,), name="faulty").start()
    sys.unraisablehook(_Unraisable(quoted))  # type: ignore[arg-type]
    print_in_a_handler(quoted)
    try:
        raise KeyError(quoted)
    except KeyError as error:
        raise ValueError(f"cannot advance {quoted}") from error


def cases_and_fail(snapshot: Any, _: Any) -> Any:
    api.group_by_case = cases
    raise LookupError(str([beam.key for beam in snapshot.beams]))


def groups_and_fail(self: StoreCollector) -> Iterator[Any]:
    StoreCollector.__call__ = groups  # type: ignore[method-assign]
    raise RuntimeError("groups of", [beam.key for beam in self._snapshot().beams])


def print_in_a_handler(quoted: str) -> None:
    """A line that cannot be written: the library prints it with its traceback."""
    logging.getLogger("paramiko").error("%d", quoted)


def _fail(quoted: str) -> None:
    raise OSError(2, "No such file", quoted)


class _Unraisable:
    def __init__(self, quoted: str) -> None:
        self.exc_value = ValueError(quoted)
        self.exc_type = ValueError
        self.exc_traceback = None
        self.err_msg = quoted
        self.object = quoted


if __name__ == "__main__":
    BeamStore.advance = advance_and_fail  # type: ignore[method-assign, assignment]
    api.group_by_case = cases_and_fail
    StoreCollector.__call__ = groups_and_fail  # type: ignore[method-assign]
    main()
