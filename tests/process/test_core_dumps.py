from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

CRASH = """
import os, resource, sys
from exporter.process import core_dumps
core_dumps.disable()
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
os.chdir(sys.argv[1])
os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_process_that_crashes_leaves_no_core_dump(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-c", CRASH, str(tmp_path), str(int(number))]
    _, status = os.waitpid(os.posix_spawn(sys.executable, arguments, environment), 0)
    assert os.WTERMSIG(status) == number
    assert not os.WCOREDUMP(status)
    assert os.listdir(tmp_path) == []
