"""The exporter as its users start it: a process of its own, its log, its address."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_SECONDS = 30.0
"""How long a condition is waited for: far longer than it takes, since the machine is shared."""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until ``condition`` holds; fails the test, saying ``what`` was waited for, when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


class ExporterProcess:
    """``mqi-exporter`` with some arguments; ended at the end of the ``with`` block.

    Args:
        arguments: of the command.
        python: what runs Python; it must become it, as ``setpriv`` does, and not start it.
        module: what is run; one that becomes the exporter.
    """

    def __init__(
        self, *arguments: str | Path, python: Sequence[str] = (sys.executable,), module: str = "exporter.cli.main"
    ) -> None:
        self._process = subprocess.Popen(
            [*python, "-m", module, *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> ExporterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            # A demo ends its sshd only when it may.
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()

    @property
    def log(self) -> str:
        """What it has written on standard error."""
        return "\n".join(self.lines)

    def said(self, text: str) -> bool:
        """Whether a line of its log holds ``text``."""
        return any(text in line for line in self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        """Where it listens, once it has said so."""
        pattern = re.compile(r"exporter started.* address=(\S+)")

        def found() -> bool:
            assert self._process.poll() is None, f"it has ended:\n{self.log}"
            return pattern.search(self.log) is not None

        wait_for(found, "the exporter's address in its log")
        match = pattern.search(self.log)
        assert match is not None
        return match[1]

    def get(self, path: str) -> httpx.Response:
        """GET a path of it."""
        return httpx.get(f"http://{self.address}{path}", timeout=PATIENCE_SECONDS)

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").raise_for_status().text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample of this name whose labels include these; ``None`` where there is none."""
        found = [
            value
            for (each, its), value in self.metrics().items()
            if each == name and labels.items() <= dict(its).items()
        ]
        assert len(found) <= 1, f"{name}{labels} is not one sample but {len(found)}"
        return found[0] if found else None

    def state(self, beam_id: str) -> str | None:
        """The state of a beam."""
        for (name, labels), value in self.metrics().items():
            its = dict(labels)
            if name == "mqi_beam_state" and its["beam_id"] == beam_id and value == 1:
                return its["state"]
        return None

    def reaches(self, beam_id: str, state: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until a beam is in a state."""
        wait_for(lambda: self.state(beam_id) == state, f"{beam_id} {state}", seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        return self._process.wait(PATIENCE_SECONDS)
