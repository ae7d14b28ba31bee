"""A process in a terminal of its own (a pty): what it draws, keys, its size, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte

from tests.support.process import PATIENCE_SECONDS, wait_for

# The terminal must be the process's controlling one, or Ctrl-C would be no signal.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class TerminalProcess:
    """``mqi-exporter`` in a terminal of its own.

    Args:
        arguments: of the command.
        columns, lines: the terminal's size.
        code: Python code to run instead of ``mqi-exporter``.
        environment: further variables.
    """

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 140,
        lines: int = 20,
        code: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, self._slave = pty.openpty()
        self._closed = False
        self._output = b""
        self._lock = threading.Lock()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, lines)
        self.settings_before = self.settings
        inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        program = ["-c", code] if code else ["-m", "exporter.cli"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, sys.executable, *program, *map(str, arguments)],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={
                **inherited,
                "TERM": "xterm-256color",
                "PYTHONPATH": str(Path(__file__).parents[2]),
                **(environment or {}),
            },
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._output += data
                self._stream.feed(data)

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._slave)
            os.close(self._master)
            self._reader.join(PATIENCE_SECONDS)

    @property
    def settings(self) -> list[Any]:
        """The terminal's settings (echo, line mode, special characters)."""
        return termios.tcgetattr(self._slave)

    @property
    def output(self) -> str:
        """Everything written so far."""
        return self._output.decode("utf-8", "replace")

    @property
    def screen(self) -> list[str]:
        """Lines that a terminal shows now, without colours."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    def shows(self, *texts: str) -> bool:
        """Whether the screen has all these texts."""
        screen = "\n".join(self.screen)
        return all(text in screen for text in texts)

    def waits_for(self, *texts: str) -> None:
        """Wait until the screen has all these texts."""
        try:
            wait_for(lambda: self.shows(*texts), f"{texts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is\n" + "\n".join(self.screen)) from None

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the window's size."""
        with self._lock:
            self._screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal."""
        self._close()

    @property
    def is_stopped(self) -> bool:
        """Whether the process was stopped and may be continued."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(")")[2].split()[0] == "T"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        return self._process.wait(PATIENCE_SECONDS)
