"""Measures following logs over SSH on a real sshd, beside the library's own client.

A relay on the loopback interface adds the round trip time, so figures are comparable between machines. Catch-up and
idle cost are measured without the relay.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paramiko

from bench.figures import median, percentile, row, table
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.logs.parser import SitePatterns
from exporter.polling.poller import SourcePoller
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import ReadRequest
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from tests.support.sshd import Sshd

ROUND_TRIP_SECONDS = 0.020
POLL_SECONDS = 0.5


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Run all measurements.

    Returns:
        A table for people, and the figures by name (milliseconds unless the name says otherwise).
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Sshd(folder / "sshd") as sshd, _relay(sshd) as port:
            sshd.trusted_ports.append(port)
            sshd.trust(sshd.host_key)
            far = replace(sshd.host, port=port)
            for logs in (20,) if short else (100, 1000):
                _polls(folder, far, logs, figures, lines)
            _append_to_snapshot(folder, far, 5 if short else 100, 3 if short else 60, figures, lines)
            _catch_up(folder, sshd.host, 2 if short else 100, figures, lines)
            _idle(folder, sshd.host, 50, 1.0 if short else 20.0, figures, lines)
    return table(("what", "paramiko's own calls", "ours", "ratio"), lines), figures


@contextmanager
def _relay(sshd: Sshd) -> Iterator[int]:
    """Run the relay that adds the round trip time in a process of its own; yield its port."""
    command = [sys.executable, "-m", "tests.support.relay", sshd.address, str(sshd.port), str(ROUND_TRIP_SECONDS / 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("")


def _client(host: SshHost) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    assert host.known_hosts_file is not None
    client.load_host_keys(str(host.known_hosts_file))
    client.connect(
        host.host, host.port or 22, host.user, key_filename=str(host.key_file), allow_agent=False, look_for_keys=False
    )
    return client


def _timed(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the median wall time and CPU time of this process in milliseconds."""
    wall, cpu = [], []
    for _ in range(times):
        began, began_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - began_cpu))
    return median(wall), median(cpu)


def _logs(folder: Path, count: int) -> list[str]:
    logs = folder / f"logs{count}"
    logs.mkdir()
    paths = [logs / f"{70010000 + number // 10}_beam_{number}.log" for number in range(count)]
    for path in paths:
        path.write_bytes(b"Particle generation complete!\n" * 200)
    return [str(path) for path in paths]


def _polls(folder: Path, host: SshHost, count: int, figures: dict[str, float], lines: list[str]) -> None:
    paths = _logs(folder, count)
    source = SshLogSource("far", host)
    source.stat(paths)
    before = source.round_trips
    source.stat(paths)
    trips = source.round_trips - before
    ours, cpu = _timed(lambda: source.stat(paths), 9)
    client = _client(host)
    sftp = client.open_sftp()
    listed, listed_cpu = _timed(lambda: sftp.listdir_attr(os.path.dirname(paths[0])), 5)
    single, _ = _timed(lambda: [sftp.stat(path) for path in paths[:20]], 1)
    single *= count / 20
    figures |= {f"poll {count}": ours, f"poll {count} cpu": cpu, f"poll {count} round trips": trips}
    lines.append(
        row(
            f"poll of {count} logs, none grown ({trips} round trips)",
            f"`stat` each {single:.0f} ms, `listdir_attr` {listed:.0f} ms, CPU {listed_cpu:.1f} ms",
            f"{ours:.0f} ms, CPU {cpu:.1f} ms",
            f"{listed / ours:.1f}",
        )
    )
    size = os.path.getsize(paths[0])
    requests = [ReadRequest(path, size - 4096, 4096 + 256) for path in paths[:10]]
    read, _ = _timed(lambda: source.read(requests), 9)

    def plainly() -> None:
        for request in requests:
            with sftp.open(request.path, "rb") as file:
                file.seek(request.offset)
                file.read(request.length)

    plain, _ = _timed(plainly, 3)
    figures[f"read 10 of {count}"] = read
    lines.append(
        row(
            f"and 10 of them grown by 4 KiB, of {count}", f"+ {plain:.0f} ms", f"+ {read:.0f} ms", f"{plain / read:.1f}"
        )
    )
    client.close()
    source.close()


def _watch(folder: Path, host: SshHost, count: int) -> tuple[BeamStore, SourcePoller, list[Path]]:
    logs = folder / f"watched{count}"
    logs.mkdir(exist_ok=True)
    store = BeamStore(StoreRules(), time.time())
    keys = [BeamKey("c", f"b{number}") for number in range(count)]
    store.update_rows([BeamRow(key, time.time(), status="simulation_running") for key in keys], (), time.time())
    poller = SourcePoller(
        SshLogSource("far", host),
        [LogPathTemplate(f"{logs}/{{beam_id}}.log")],
        store,
        site=SitePatterns(),
        clock=time.time,
    )
    paths = [logs / f"{key.beam_id}.log" for key in keys]
    for path in paths:
        path.write_bytes(b"Uploading particles with batch.. : Particle count --> 100 with 100000 batches\n")
    poller.poll()
    return store, poller, paths


def _append_to_snapshot(
    folder: Path, host: SshHost, count: int, bursts: int, figures: dict[str, float], lines: list[str]
) -> None:
    """Measure from a write on the host until a snapshot shows it, for bursts of one log, ten logs and all logs."""
    store, poller, paths = _watch(folder, host, count)
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            began = time.monotonic()
            if not poller.poll():
                stop.wait(max(0.0, POLL_SECONDS - (time.monotonic() - began)))

    thread = threading.Thread(target=follow)
    thread.start()
    delays = []
    for burst in range(bursts):
        batch = burst + 1
        # One log, ten or all; never in step with the polls.
        grown = paths[: (1, 10, count)[burst % 3]]
        time.sleep(0.013 * (burst % 37))
        began = time.perf_counter()
        for path in grown:
            with path.open("ab") as file:
                file.write(b"Generating particles for (%d of 100000 batches) in CPU ..\n" % batch)
        wanted = {path.stem for path in grown}
        while True:
            views = store.snapshot(time.time()).beams
            if sum(view.batch_current == batch for view in views if view.key.beam_id in wanted) == len(grown):
                break
            # An occasional snapshot, which adds no load of its own.
            time.sleep(0.01)
        delays.append(1000 * (time.perf_counter() - began))
    stop.set()
    thread.join()
    poller.close()
    limit = 1000 * (POLL_SECONDS + 3 * ROUND_TRIP_SECONDS) + 50
    figures |= {"append p50": percentile(delays, 50), "append p99": percentile(delays, 99), "append limit": limit}
    lines.append(
        row(
            f"a write on the host to a snapshot, {count} logs, poll every {POLL_SECONDS:g} s",
            "(the plan's tail: not within 5 s)",
            f"p50 {percentile(delays, 50):.0f} ms, p99 {percentile(delays, 99):.0f} ms (limit {limit:.0f} ms)",
            "",
        )
    )


def _catch_up(folder: Path, host: SshHost, megabytes: int, figures: dict[str, float], lines: list[str]) -> None:
    logs = folder / "bulk"
    logs.mkdir()
    line = b"Node specification of CPU printing.. : X --> -600.000 to 600.000 \n"
    paths = [logs / f"{number}.log" for number in range(10)]
    for path in paths:
        path.write_bytes(line * (megabytes * 100_000 // len(line)))
    total = sum(path.stat().st_size for path in paths) / 1e6
    store = BeamStore(StoreRules(), time.time())
    store.update_rows([BeamRow(BeamKey("c", path.stem), time.time(), status="x") for path in paths], (), time.time())
    poller = SourcePoller(
        SshLogSource("near", host),
        [LogPathTemplate(f"{logs}/{{beam_id}}.log")],
        store,
        site=SitePatterns(),
        clock=time.time,
    )
    began = time.perf_counter()
    while poller.poll():
        pass
    ours = total / (time.perf_counter() - began)
    poller.close()
    client = _client(host)
    sftp = client.open_sftp()
    began = time.perf_counter()
    for path in paths:
        with sftp.open(str(path), "rb") as file:
            while file.read(1 << 15):
                pass
    plain = total / (time.perf_counter() - began)
    client.close()
    figures["catch-up MB/s"] = ours
    lines.append(
        row(
            f"catch-up of {total:.0f} MB, parsed", f"`read` {plain:.0f} MB/s", f"{ours:.0f} MB/s", f"{ours / plain:.1f}"
        )
    )


def _idle(folder: Path, host: SshHost, count: int, seconds: float, figures: dict[str, float], lines: list[str]) -> None:
    _, poller, _ = _watch(folder, host, count)
    poller.poll()
    began, began_cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        poller.poll()
        time.sleep(POLL_SECONDS)
    share = 100 * (time.process_time() - began_cpu) / (time.perf_counter() - began)
    poller.close()
    figures["idle % of a core"] = share
    lines.append(row(f"idle, {count} logs, poll every {POLL_SECONDS:g} s", "", f"{share:.2f} % of a core", ""))
