"""Instructions of pieces of Python, counted by valgrind: the same at every run, whatever else the machine does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Work = Mapping[str, Callable[[], object]]


def serve(work: Work) -> None:
    """In the process that is counted: do each piece of work once, then those that standard input names."""
    for piece in work.values():
        piece()
    for line in _told(sys.stdin):
        work[line]()
        sys.stdout.write("done\n")
        sys.stdout.flush()


def _told(lines: Iterator[str]) -> Iterator[str]:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in lines:
        yield line.strip()


class Counted:
    """A process whose instructions are counted while it does what it is told.

    Args:
        process: it.
        dumps: where callgrind writes what it has counted.
    """

    def __init__(self, process: subprocess.Popen[str], dumps: Path) -> None:
        self._process = process
        self._dumps = dumps
        self._wait_for("ready")
        self._control("--instr=on")

    def instructions(self, piece: str) -> int:
        """How many it takes for one piece of its work."""
        assert self._process.stdin is not None
        for dump in self._dumps.iterdir():
            dump.unlink()
        self._control("--zero")
        self._process.stdin.write(f"{piece}\n")
        self._process.stdin.flush()
        self._wait_for("done")
        self._control(f"--dump={piece}")
        [dump] = self._dumps.iterdir()
        [total] = re.findall(r"^totals: (\d+)$", dump.read_text(encoding="utf-8"), re.MULTILINE)
        return int(total)

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == f"{word}\n", f"the counted process has ended: {line!r}"

    def _control(self, what: str) -> None:
        subprocess.run(
            ["callgrind_control", what, str(self._process.pid)], check=True, capture_output=True, text=True, timeout=60
        )


@contextmanager
def counted(folder: Path, program: Path, *arguments: str | Path) -> Iterator[Counted]:
    """Run a Python program that calls :func:`serve` under callgrind; ended at the end of the ``with`` block."""
    valgrind = shutil.which("valgrind")
    assert valgrind is not None, "valgrind is not installed; `make test` installs it"
    dumps = folder / "dumps"
    dumps.mkdir()
    command = [valgrind, "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={dumps}/counted"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONHASHSEED": "0"}
    with subprocess.Popen(
        [*command, sys.executable, str(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield Counted(process, dumps)
        process.communicate()
