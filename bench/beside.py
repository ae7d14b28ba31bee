"""Runs the exporter and its competitors as processes: mtail with the same patterns, and a loop of ``stat``."""

from __future__ import annotations

import gzip
import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from exporter.logs.patterns import FOREIGN_LINES, LINES

MTAIL = shutil.which("mtail")
"""From Debian's package ``mtail``. Without it, the benchmarks leave mtail out."""

_CLOCK_TICKS = 100.0
_UNIT_NICE = 10
"""The niceness in ``config/mqi-exporter.service``."""
_PATIENCE_SECONDS = 120.0

_POLLING_ONLY = (
    "from exporter.sources import inotify; inotify.open_watcher = lambda: None; "
    "from exporter.cli.main import main; main()"
)
_STAT_LOOP = """
import os, sys, time
paths = [os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1])]
while True:
    for path in paths:
        os.stat(path)
    time.sleep(0.5)
"""
_AS_SHIPPED = "from exporter.cli.main import main; main()"


def write_mtail_program(folder: Path) -> Path:
    """Write our patterns as a program for mtail, two of them with values; mtail does not support look-arounds."""
    program = [
        "gauge batches_total by log",
        "gauge batch_current by log",
        "counter lines_total by log, rule",
        r"/^Uploading particles with batch.. : Particle count --> \d+ with (?P<total>\d+) batches/ {",
        "  batches_total[getfilename()] = $total",
        "}",
        r"/^Generating particles for \((?P<number>\d+) of \d+ batches\)/ {",
        "  batch_current[getfilename()] = $number",
        "}",
    ]
    patterns = [b"^" + line.pattern.pattern for lines in LINES.values() for line in lines]
    patterns += [line.pattern.pattern for line in FOREIGN_LINES]
    for number, pattern in enumerate(patterns):
        text = re.sub(r"\(\?<?[=!][^)]*\)|(?<!\\)\{\d[^}]*\}\??", "", pattern.decode())
        text = re.sub(r"\\([^\w.()*+?|\[\]^$\\{}])", r"\1", text).replace("/", r"\/")
        program += [f"/{text}/ {{", f'  lines_total[getfilename()]["r{number}"]++', "}"]
    path = folder / "tps_env.mtail"
    path.write_text("\n".join(program) + "\n", encoding="utf-8")
    return path


def mtail_catches_up(folder: Path, logs: Path) -> float | None:
    """Return the seconds that mtail takes to read all logs once; ``None`` without mtail."""
    if MTAIL is None:
        return None
    program = write_mtail_program(folder)
    began = time.perf_counter()
    subprocess.run(
        [MTAIL, "--one_shot", "--progs", program, "--logs", f"{logs}/*.log", "--log_dir", folder],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


class Running:
    """A process that serves metrics.

    Args:
        process: the process.
        url: the URL of its metrics.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url
        self._connection: http.client.HTTPConnection | None = None

    def metrics(self, *names: str) -> str:
        """Scrape the process as Prometheus does: with gzip, over one connection for all scrapes.

        Args:
            names: names of metrics; all metrics if none is given.

        Raises:
            OSError: the process does not answer.
        """
        address, path = self.url.removeprefix("http://").split("/", 1)
        if self._connection is None:
            self._connection = http.client.HTTPConnection(address, timeout=_PATIENCE_SECONDS)
        try:
            query = urllib.parse.urlencode([("name[]", name) for name in names])
            self._connection.request("GET", f"/{path}?{query}", headers={"Accept-Encoding": "gzip"})
            answer = self._connection.getresponse()
            body = answer.read()
        except OSError:
            self.close()
            raise
        return (gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body).decode()

    def close(self) -> None:
        """Close the connection; the next scrape opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def memory_mib(self) -> float:
        """Return its resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def wakeups(self) -> int:
        """Return how often its threads have waited and gone on so far (voluntary context switches)."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        status = "".join((task / "status").read_text(encoding="ascii") for task in tasks)
        return sum(map(int, re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)))

    def wait_until(self, ready: Callable[[str], bool], every_seconds: float = 0.1) -> None:
        """Scrape until the metrics meet a condition.

        Args:
            ready: the condition; gets the text of the metrics.
            every_seconds: the interval between scrapes.

        Raises:
            TimeoutError: the metrics did not meet the condition in time.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if ready(self.metrics()):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise
            time.sleep(every_seconds)
        raise TimeoutError(f"{self.url} is not as expected after {_PATIENCE_SECONDS:g} s")

    def idle_percent(self, seconds: float) -> float:
        """Return the percentage of one core that the process uses during the next ``seconds``."""
        began, cpu = time.perf_counter(), self.cpu_seconds()
        time.sleep(seconds)
        return 100 * (self.cpu_seconds() - cpu) / (time.perf_counter() - began)


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP end this process as Ctrl-C does: through every ``with`` block.

    Otherwise the signals would leave the started processes running.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    # A signal that is ignored, for instance by nohup, stays ignored.
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    ours = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
    for each in ours:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, before[each])


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@contextmanager
def _running(command: list[str | Path], url: str, output: Path, code: Path | None = None) -> Iterator[Running]:
    with output.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=code) as process:
        running = Running(process, url)
        try:
            yield running
        finally:
            running.close()
            process.terminate()


@contextmanager
def configured(
    config: Path, output: Path, *, polling_only: bool, nice: bool = False, port: int = 0, code: Path | None = None
) -> Iterator[Running]:
    """Run the exporter with a configuration.

    Args:
        config: the configuration file.
        output: the file for its output.
        polling_only: run without inotify.
        nice: run with the priority of the systemd unit.
        port: the port of its metrics.
        code: a checkout of another version to run; ``None`` for this one.
    """
    program = _POLLING_ONLY if polling_only else _AS_SHIPPED
    command: list[str | Path] = ["nice", "-n", str(_UNIT_NICE)] if nice else []
    command += [sys.executable, "-c", program, "run", "--config.file", config]
    with _running(command, f"http://127.0.0.1:{port}/metrics", output, code) as running:
        yield running


@contextmanager
def starting(
    folder: Path, logs: Path, *, polling_only: bool = False, nice: bool = False, code: Path | None = None
) -> Iterator[Running]:
    """Run the exporter with default settings, which finds beams by the names of their logs; do not wait for it.

    Args:
        folder: the folder for its configuration and output.
        logs: the folder of the logs.
        polling_only: see :func:`configured`.
        nice: see :func:`configured`.
        code: see :func:`configured`.
    """
    port = free_port()
    config = folder / "exporter.yaml"
    config.write_text(
        f'sources: [{{name: local, kind: local, log_path: "{logs}/{{case_id}}_{{beam_id}}.log"}}]\n'
        f'discovery: {{kind: directory}}\nweb: {{listen_address: "127.0.0.1:{port}"}}\n',
        encoding="utf-8",
    )
    output = folder / "exporter.out"
    with configured(config, output, polling_only=polling_only, nice=nice, port=port, code=code) as running:
        yield running


@contextmanager
def exporter(
    folder: Path, logs: Path, count: int, *, polling_only: bool = False, nice: bool = False, code: Path | None = None
) -> Iterator[Running]:
    """Run the exporter as :func:`starting` does, and wait until it has polled ``count`` beams once."""

    def ready(text: str) -> bool:
        return text.count("\nmqi_beam_batch_current{") >= count and "\nmqi_source_poll_seconds_count{" in text

    with starting(folder, logs, polling_only=polling_only, nice=nice, code=code) as running:
        running.wait_until(ready)
        yield running


@contextmanager
def stat_loop(folder: Path, logs: Path) -> Iterator[Running]:
    """Run a Python loop that calls ``stat`` for each log every half second: the least that polling can cost."""
    command: list[str | Path] = [sys.executable, "-c", _STAT_LOOP, logs]
    with _running(command, "", folder / "floor.out") as running:
        yield running


@contextmanager
def mtail(folder: Path, logs: Path) -> Iterator[Running | None]:
    """Run mtail on the same logs and wait until it has opened them; ``None`` without mtail."""
    if MTAIL is None:
        yield None
        return
    port = free_port()
    command: list[str | Path] = [MTAIL, "--address", "127.0.0.1", "--port", str(port), "--log_dir", folder]
    command += ["--progs", write_mtail_program(folder), "--logs", f"{logs}/*.log"]
    with _running(command, f"http://127.0.0.1:{port}/metrics", folder / "mtail.out") as running:
        running.wait_until(bool)
        # mtail serves before it has found its logs, and does not report when it has.
        time.sleep(3.0)
        yield running
