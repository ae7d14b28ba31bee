"""Measures how fast existing logs are read: one of a gigabyte, a thousand, ten thousand."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench import noisy
from bench.beside import mtail_catches_up
from bench.figures import median, row, table
from bench.inside import as_in_the_exporter

ROUNDS = 3
MTAIL_BYTES_AT_MOST = 128 << 20
"""mtail reads only this much of one large log: it takes minutes for a gigabyte, at a constant speed."""


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Catch up with logs of several sizes and numbers, alternating with mtail and with plain reads.

    Returns:
        A table for people, and the figures by name: seconds, and how many times as fast as mtail.
    """
    figures: dict[str, float] = {}
    lines: list[str] = []
    works = ((1, 1 << 20), (20, 10 << 10)) if short else ((1, 1 << 30), (1000, 100 << 10), (10_000, 10 << 10))
    for count, size_bytes in works:
        with tempfile.TemporaryDirectory() as name, as_in_the_exporter():
            _one(Path(name), count, size_bytes, 1 if short else ROUNDS, figures, lines)
    return table(("logs", "ours", "mtail", "`wc -l`", "`grep -c`", "times mtail", "ours of `wc -l`"), lines), figures


def _one(folder: Path, count: int, size_bytes: int, rounds: int, figures: dict[str, float], lines: list[str]) -> None:
    logs = folder / "logs"
    logs.mkdir()
    batches = [noisy.write(logs / f"b{number}.log", size_bytes, number % 5) for number in range(count)]
    megabytes = sum(entry.stat().st_size for entry in os.scandir(logs)) / 1e6
    ours, cpu, counted, searched = [], [], [], []
    for _ in range(rounds):
        counted.append(_command(f"find {logs} -name '*.log' -print0 | xargs -0 wc -l"))
        searched.append(_command(f"find {logs} -name '*.log' -print0 | xargs -0 grep -c 'Generating particles'"))
        store, poller = noisy.watch(logs, count)
        began, began_cpu = time.perf_counter(), time.process_time()
        while poller.poll():
            pass
        ours.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
        found = {view.key.beam_id: view.batch_current for view in store.snapshot(time.time()).beams}
        assert found == {f"b{number}": started for number, started in enumerate(batches)}
    theirs = _mtail(folder, logs, size_bytes, megabytes)
    key = f"{count} x {size_bytes >> 10} KiB"
    taken = median(ours)
    figures |= {f"{key} s": taken, f"{key} CPU s": median(cpu), f"{key} MB/s": megabytes / taken}
    figures[f"{key} wc s"], figures[f"{key} grep s"] = median(counted), median(searched)
    ratio = megabytes / taken / theirs if theirs is not None else None
    if theirs is not None and ratio is not None:
        figures |= {f"{key} mtail MB/s": theirs, f"{key} times mtail": ratio}
    lines.append(
        row(
            key,
            f"{taken:.2f} s, {megabytes / taken:.0f} MB/s",
            f"{theirs:.1f} MB/s" if theirs else "",
            f"{median(counted):.2f} s",
            f"{median(searched):.2f} s",
            f"{ratio:.0f}" if ratio else "",
            f"{taken / median(counted):.1f}",
        )
    )


def _mtail(folder: Path, logs: Path, size_bytes: int, megabytes: float) -> float | None:
    """Measure once how fast mtail reads the same logs, or the first part of a large one.

    Returns:
        MB/s; ``None`` without mtail.
    """
    if size_bytes > MTAIL_BYTES_AT_MOST:
        part = folder / "part"
        part.mkdir()
        for log in logs.iterdir():
            with log.open("rb") as whole:
                read = (part / log.name).write_bytes(whole.read(MTAIL_BYTES_AT_MOST))
        logs, megabytes = part, read / 1e6
    seconds = mtail_catches_up(folder, logs)
    return None if seconds is None else megabytes / seconds


def _command(command: str) -> float:
    began = time.perf_counter()
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
