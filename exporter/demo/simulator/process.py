"""Simulates output buffering of a process whose output is redirected to a file.

printf and std::cout share one 4096-byte buffer. It is written when it is full (cut anywhere), at a ``std::endl``, or at
a normal exit. Standard error is not buffered. A process that aborts or is killed loses its buffer; then the shell
(dash) adds its message, because its own standard error is the log. With ``stdbuf -oL`` every line is written at once.
All of this was checked with captured logs.
"""

from __future__ import annotations

from typing import NoReturn

from exporter.demo.simulator.script import Step
from exporter.demo.simulator.simulation import Shell

BLOCK_BYTES = 4096
"""Size of the C library's buffer for a redirected standard output (st_blksize; measured on every captured log)."""


class ProcessEnded(Exception):
    """The simulated process ended (``None``: it hangs for ever)."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Process:
    """Standard output and error of a process, redirected to a file."""

    def __init__(self, *, line_buffered: bool, shell: Shell) -> None:
        self.elapsed_seconds = 0.0
        self._line_buffered = line_buffered
        self._shell = shell
        self._buffer = b""
        self._waited = 0.0
        self._steps: list[Step] = []

    def steps(self) -> tuple[Step, ...]:
        trailing = (Step(self._waited, b""),) if self._waited else ()
        return (*self._steps, *trailing)

    def wait(self, seconds: float) -> None:
        self.elapsed_seconds += seconds
        self._waited += seconds

    def print(self, line: str, *, flush: bool = False) -> None:
        """Print text; ``flush``: as with ``std::cout`` and ``std::endl``, otherwise as with ``printf``."""
        self._buffer += line.encode() + b"\n"
        while len(self._buffer) > BLOCK_BYTES:
            self._write(self._buffer[:BLOCK_BYTES])
            self._buffer = self._buffer[BLOCK_BYTES:]
        if flush or self._line_buffered:
            self._flush()

    def error(self, line: str) -> None:
        self._write(line.encode() + b"\n")

    def exit(self, code: int) -> NoReturn:
        self._flush()
        raise ProcessEnded(code)

    def die(self, word: str, code: int) -> NoReturn:
        """End by a signal: the buffer is lost."""
        if self._shell == "dash":
            self.error(word)
        raise ProcessEnded(code)

    def hang(self) -> NoReturn:
        raise ProcessEnded(None)

    def _flush(self) -> None:
        if self._buffer:
            self._write(self._buffer)
            self._buffer = b""

    def _write(self, data: bytes) -> None:
        self._steps.append(Step(self._waited, data))
        self._waited = 0.0
