"""A process in a terminal of its own (a pty): what it draws, keys, its size, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.process import PATIENCE_SECONDS, wait_for

# The terminal must be the process's controlling one, or Ctrl-C would be no signal.
_IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_HOME = "\x1b[H"
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class TerminalProcess:
    """``mqi-exporter`` with some arguments in a terminal of some size."""

    def __init__(self, *arguments: str | Path, columns: int = 140, lines: int = 20) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)
        self.settings_before = self.settings
        self._output = b""
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, sys.executable, "-m", "exporter.cli", *map(str, arguments)],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])},
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
            self._output += data

    def __enter__(self) -> TerminalProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE_SECONDS)
        os.close(self._slave)
        self._reader.join(PATIENCE_SECONDS)
        os.close(self._master)

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
        """Lines of the last complete frame, without colours."""
        frames = self.output.split(_HOME)
        # The last one may still be on its way; the one before it is whole.
        last = frames[-1] if len(frames) < 2 or frames[-1].count("\n") >= frames[-2].count("\n") else frames[-2]
        return [line.rstrip() for line in _SEQUENCE.sub("", last).replace("\r", "").split("\n")]

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
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        return self._process.wait(PATIENCE_SECONDS)
