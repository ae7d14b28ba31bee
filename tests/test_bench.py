import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import BENCHMARKS, main
from tests.support.process import PATIENCE_SECONDS, wait_for


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_runs_in_its_short_form(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [name, "--short", "--json", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))[name]
    assert figures
    assert all(value >= 0 for value in figures.values())
    assert "\n| --- |" in result.output
    if name == "ssh":
        assert figures["poll 20 round trips"] <= 2
    if name == "soak":
        assert figures["runs counted"] == figures["runs ended"]


@pytest.mark.parametrize(
    ("benchmark", "ending"),
    [(["bench", "idle"], signal.SIGTERM), (["bench.soak"], signal.SIGTERM), (["bench.soak"], signal.SIGHUP)],
)
def test_an_interrupted_benchmark_stops_its_exporter(benchmark: list[str], ending: signal.Signals) -> None:
    # Whoever runs the tests may have them ignored, as nohup does, and what is started inherits that.
    command = ["env", "--default-signal=SIGTERM,SIGHUP", sys.executable, "-m", *benchmark]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        exporters: set[int] = set()

        def started() -> bool:
            assert process.poll() is None
            exporters.update(child for child in _children(process.pid) if _threads(child) > 1)
            return bool(exporters)

        try:
            wait_for(started, "an exporter beside the benchmark")
            process.send_signal(ending)
            assert process.wait(PATIENCE_SECONDS) == 128 + ending
            assert not [each for each in exporters if _threads(each)]
        finally:
            process.kill()
            for each in exporters:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)


def _children(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def _threads(process: int) -> int:
    try:
        return len(os.listdir(f"/proc/{process}/task"))
    except FileNotFoundError:
        return 0
