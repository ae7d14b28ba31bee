"""Measures scrapes while another address floods the exporter with ten thousand requests per second.

The flood sends each request when it is due, even if earlier ones have not been answered, over as many connections as
one address may have. It reads and drops the answers. Half of the requests ask for the metrics, half for the page. The
flood has a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from bench.beside import Running, exporter
from bench.figures import median, row, table
from exporter.demo.simulator import Simulation, simulate

REQUESTS_PER_SECOND = 10_000
CONNECTIONS = 96
_PATHS = ("/metrics", "/")
_TICK_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0
_SCRAPED_FROM = "127.0.0.2"


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Scrape without and during a flood.

    Returns:
        A table for people, and the figures by name.
    """
    beams, seconds, rate = (5, 1.0, 500) if short else (1000, 20.0, REQUESTS_PER_SECOND)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs = folder / "logs"
        logs.mkdir()
        data = simulate(Simulation(batches=(18,))).data
        for number in range(beams):
            (logs / f"c{number}_{number}.log").write_bytes(data)
        with exporter(folder, logs, beams, polling_only=False) as running:
            alone = _scrapes(running, seconds / 4)
            memory = running.memory_mib()
            with _flood(running, rate) as flood:
                beside = _scrapes(running, seconds)
                grown = running.memory_mib() - memory
    figures = {
        "requests sent per second": flood["sent"],
        "requests answered per second": flood["answered"],
        "scrape alone, median ms": 1000 * median(alone),
        "scrape beside, median ms": 1000 * median(beside),
        "scrape beside, longest ms": 1000 * max(beside),
        "memory grown MiB": grown,
    }
    return table(("what", "figure"), [row(what, f"{figure:.1f}") for what, figure in figures.items()]), figures


def _scrapes(running: Running, seconds: float) -> list[float]:
    """Return the seconds of each scrape. Scrapes follow each other, each over a new connection."""
    until, taken = time.monotonic() + seconds, list[float]()
    while time.monotonic() < until:
        began = time.monotonic()
        own = httpx.HTTPTransport(local_address=_SCRAPED_FROM)
        with httpx.Client(transport=own, timeout=_PATIENCE_SECONDS, headers={"Accept-Encoding": "gzip"}) as client:
            client.get(running.url).raise_for_status()
        taken.append(time.monotonic() - began)
        time.sleep(0.05)
    return taken


@contextlib.contextmanager
def _flood(running: Running, rate: int) -> Iterator[dict[str, float]]:
    """Flood within the block; afterwards the result has the requests sent and answered per second."""
    command = [sys.executable, "-m", "bench.flood", urlsplit(running.url).netloc, str(rate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        figures: dict[str, float] = {}
        try:
            yield figures
        finally:
            process.stdin.close()
            figures |= json.loads(process.stdout.read())


class _Flood:
    """The attacker: connections that send due requests and drop the answers."""

    def __init__(self, host: str, port: int, rate: int) -> None:
        self._host, self._port, self._rate = host, port, rate
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self.sent = self.answered = 0

    async def attack(self, until_closed: asyncio.Event) -> None:
        """Until told to stop."""
        tasks = [asyncio.create_task(self._connection(number)) for number in range(CONNECTIONS)]
        began, due = time.monotonic(), 0
        while not until_closed.is_set():
            await asyncio.sleep(_TICK_SECONDS)
            wanted = int((time.monotonic() - began) * self._rate)
            writers = list(self._writers.values())
            for number in range(due, wanted if writers else due):
                path = _PATHS[number % len(_PATHS)]
                writers[number % len(writers)].write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                self.sent += 1
            due = wanted
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, number: int) -> None:
        """One connection after another."""
        while True:
            with contextlib.suppress(OSError):
                reader, self._writers[number] = await asyncio.open_connection(self._host, self._port)
                try:
                    while data := await reader.read(1 << 16):
                        self.answered += data.count(b"HTTP/1.1 200")
                finally:
                    self._writers.pop(number).close()
            await asyncio.sleep(_TICK_SECONDS)


async def main(address: str, rate: int) -> None:
    """Flood an address until standard input ends; print what came of it."""
    host, _, port = address.rpartition(":")
    flood, closed = _Flood(host, int(port), rate), asyncio.Event()
    sys.stdout.write("attacking\n")
    sys.stdout.flush()
    began = time.monotonic()
    asyncio.get_running_loop().add_reader(sys.stdin, closed.set)
    await flood.attack(closed)
    seconds = time.monotonic() - began
    sys.stdout.write(json.dumps({"sent": flood.sent / seconds, "answered": flood.answered / seconds}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
