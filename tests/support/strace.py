"""System calls of a process as they happen, by thread."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.process import PATIENCE_SECONDS

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$", re.MULTILINE)


class Call(NamedTuple):
    """One system call: in which thread, its name, its arguments as strace writes them."""

    thread: int
    name: str
    arguments: str


class Traced:
    """A process under ``strace``.

    Args:
        output: what strace writes.
        log: what the process writes on standard error.
    """

    def __init__(self, output: Path, log: Path) -> None:
        self._output = output
        self._log = log
        self._read = 0

    def said(self, text: str) -> int:
        """How often ``text`` is in its log."""
        return self._log.read_text(encoding="utf-8").count(text)

    def calls(self) -> list[Call]:
        """Those since the last time this was asked, in their order."""
        with self._output.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        return [
            Call(int(thread), name, rest) for thread, name, rest in _CALL.findall(complete.decode("utf-8", "replace"))
        ]


@contextmanager
def traced(output: Path, *arguments: str | Path) -> Iterator[Traced]:
    """Run ``mqi-exporter`` with some arguments under strace; ended at the end of the ``with`` block."""
    program = shutil.which("strace")
    assert program is not None, "strace is not installed; `make test` installs it"
    command = [program, "-f", "-qq", "-s", "256", "-o", str(output), sys.executable, "-m", "exporter.cli"]
    output.touch()
    log = output.with_suffix(".log")
    with log.open("wb") as errors:
        # A group of its own: strace ends with what it traces, which must be told itself.
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            yield Traced(output, log)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
