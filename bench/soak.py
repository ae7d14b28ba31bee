"""Simulates a week in which 10 000 beams come and go, 200 at a time. Whatever grows during it is a leak.

Time runs faster by a factor: logs grow faster, and all retention times are shorter by it. The intervals of the exporter
(polls of logs and of the table) stay as they are, so no retention time is shorter than several of them. Beams are rows
of the communicator's table; mirror and state file are on. Every run that ends must be counted.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection

import click

from bench.beside import Running, free_port, signals_as_exit
from bench.figures import row, table
from exporter.demo.simulator import Player, Script, Simulation, simulate
from tests.support import communicator_db

AT_ONCE = 200
HOURS = 7 * 24
RUN_HOURS = 3.36
"""Duration of one beam's run: 200 at a time are then 10 000 in a week."""
MINUTES = 40.0
_SHORT_SECONDS = 6.0
_FAILING_OF = 10
_MAX_BEAMS = 1000
_LEAST_RETENTION_SECONDS = 20.0
"""Several polls of the table: a beam must not be forgotten before its log has been read."""
_SETTLE_SECONDS = 60.0
"""After this long without a newly counted run, the missing ones count as lost."""
_SAMPLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The exporter's resources at one time.

    Args:
        hour: hour of the simulated week.
        beams: number of beams in the store.
        resident_mib: memory as the kernel counts it.
        traced_mib: memory as Python counts it.
        threads: number of threads.
        files: number of open files.
    """

    hour: float
    beams: int
    resident_mib: float
    traced_mib: float
    threads: int
    files: int


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Simulate the week.

    Returns:
        A table for people, and the figures by name.
    """
    samples, begun, counted = week(_SHORT_SECONDS if short else 60 * MINUTES, 5 if short else AT_ONCE)
    return report(samples, begun, counted)


def week(seconds: float, at_once: int) -> tuple[list[Sample], int, float]:
    """Simulate a week within ``seconds``.

    Returns:
        Samples in order of time, the number of ended runs, and the number that the exporter has counted.
    """
    factor = HOURS * 3600 / seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _exporter(folder, factor) as running:
            site = _Site(folder, at_once, factor, HOURS / RUN_HOURS)
            samples = [_sample(running, folder, elapsed * factor / 3600) for elapsed in site.work(seconds)]
            counted, deadline = _runs(running), time.monotonic() + _SETTLE_SECONDS
            # On a busy machine the exporter may be late: only runs that it never counts are lost.
            while counted < site.ended and time.monotonic() < deadline:
                time.sleep(0.5)
                before, counted = counted, _runs(running)
                if counted > before:
                    deadline = time.monotonic() + _SETTLE_SECONDS
    return samples, site.ended, counted


def report(samples: list[Sample], ended: int, counted: float) -> tuple[str, dict[str, float]]:
    """Return the table and figures of a week. Growth is the slope of a line through the later samples."""
    later = [sample for sample in samples if sample.hour > min(1 + RUN_HOURS, HOURS / 2)] or samples
    figures = {"runs ended": float(ended), "runs counted": counted}
    lines = [row("runs that ended, counted", str(ended), f"{counted:.0f}", "", "")]
    for what in ("resident_mib", "traced_mib", "threads", "files", "beams"):
        values = [float(getattr(sample, what)) for sample in later]
        growth = _slope([sample.hour for sample in later], values) * (later[-1].hour - later[0].hour)
        first, last = _mean(values[: len(values) // 10 + 1]), _mean(values[-(len(values) // 10) - 1 :])
        figures |= {f"{what} first": first, f"{what} last": last, f"{what} most": max(values)}
        lines.append(row(what, f"{first:.1f}", f"{last:.1f}", f"{max(values):.1f}", f"{growth:+.2f}"))
    return table(("what", "first tenth", "last tenth", "most", "growth of a fitted line"), lines), figures


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _slope(at: list[float], values: list[float]) -> float:
    middle, mean = _mean(at), _mean(values)
    spread = sum((each - middle) ** 2 for each in at)
    return sum((x - middle) * (y - mean) for x, y in zip(at, values, strict=True)) / spread if spread else 0.0


class _Site:
    """Plays the engines and the communicator: logs grow, rows appear and end, old logs are deleted."""

    def __init__(self, folder: Path, at_once: int, factor: float, generations: float) -> None:
        self._folder = folder
        self._factor = factor
        self._database = folder / "communicator.db"
        self._scripts = _scripts()
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, str, Player | None]] = []
        self.ended = 0
        dice = random.Random(7)
        life = HOURS * 3600 / generations / factor
        began = time.monotonic()
        for _ in range(at_once):
            heapq.heappush(self._due, (began + dice.uniform(0, life), self._new(), None))

    def _new(self) -> str:
        number = next(self._numbers)
        return f"{number:06}"

    def work(self, seconds: float) -> Iterator[float]:
        """Do the due work for ``seconds``; yield the seconds passed whenever a sample is due, and at the end."""
        began = time.monotonic()
        sample_at = began + _SAMPLE_SECONDS
        with closing(communicator_db.connect(self._database)) as database:
            while (now := time.monotonic()) < began + seconds or any(player for _, _, player in self._due):
                if self._due and self._due[0][0] <= now:
                    due, beam, player = heapq.heappop(self._due)
                    self._step(database, due, beam, player, now < began + seconds)
                    continue
                if now >= sample_at:
                    sample_at = now + _SAMPLE_SECONDS
                    yield now - began
                next_due = self._due[0][0] if self._due else now + 0.1
                time.sleep(max(0.0, min(next_due - now, 0.1)))
        yield time.monotonic() - began

    def _step(self, database: Connection, due: float, beam: str, player: Player | None, more: bool) -> None:
        log = self._folder / f"c{beam}_{beam}.log"
        if player is None:
            if not more:
                return
            database.execute("INSERT INTO cases (case_id, status) VALUES (?, 'processing')", (f"c{beam}",))
            database.execute(
                "INSERT INTO beams (beam_id, parent_case_id, beam_path, status)"
                " VALUES (?, ?, '/x', 'simulation_running')",
                (beam, f"c{beam}"),
            )
            script = self._scripts[int(beam) % len(self._scripts)]
            player = Player(script, log, started_at=due, speed=self._factor)
        following = player.step(due)
        if following is not None:
            heapq.heappush(self._due, (following, beam, player))
            return
        player.close()
        self.ended += 1
        status = "completed" if player.exit_code == 0 else "failed"
        database.execute(
            "UPDATE beams SET status = ?, updated_at = CURRENT_TIMESTAMP WHERE beam_id = ?", (status, beam)
        )
        heapq.heappush(self._due, (due, self._new(), None))
        old = self._folder / f"c{int(beam) - 2 * AT_ONCE:06}_{int(beam) - 2 * AT_ONCE:06}.log"
        old.unlink(missing_ok=True)


def _scripts() -> list[Script]:
    """Return ten runs of equal length in different dialects; one of them fails."""
    base = Simulation(batch_seconds=RUN_HOURS * 3600 / 18.5, loading_seconds=600.0, saving_seconds=200.0)
    kinds = (
        base,
        replace(base, dialect="smc-spot", line_buffered=True),
        replace(base, dialect="moqui", line_buffered=True),
        replace(base, gpu=True),
        replace(base, dialect="moqui-spot", line_buffered=True),
    )
    made = [simulate(replace(kinds[number % len(kinds)], seed=number)) for number in range(_FAILING_OF - 1)]
    return [*made, simulate(replace(base, failure="segmentation_fault", at_batch=7))]


@contextmanager
def _exporter(folder: Path, factor: float) -> Iterator[Running]:
    communicator_db.make(folder / "communicator.db")
    port = free_port()
    config = folder / "exporter.yaml"
    config.write_text(
        f"sources: [{{name: local, kind: local, log_path: '{folder}/{{case_id}}_{{beam_id}}.log'}}]\n"
        f"database: {{path: '{folder}/communicator.db'}}\n"
        f"retention_seconds: {max(_LEAST_RETENTION_SECONDS, 3600 / factor)}\n"
        f"failed_retention_seconds: {max(_LEAST_RETENTION_SECONDS, 86400 / factor)}\n"
        # The number of remembered beams: it is reached in the first tenth of the week and does not grow later.
        f"max_beams: {_MAX_BEAMS}\n"
        f"state: {{file: '{folder}/state.db'}}\nweb: {{listen_address: '127.0.0.1:{port}'}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "bench.traced", str(folder / "traced"), "run", "--config.file", str(config)]
    with (folder / "exporter.out").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        running = Running(process, f"http://127.0.0.1:{port}/metrics")
        try:
            running.wait_until(lambda text: "mqi_exporter_build_info" in text)
            yield running
        finally:
            running.close()
            process.terminate()


def _sample(running: Running, folder: Path, hour: float) -> Sample:
    text = running.metrics()
    status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii")
    traced = (folder / "traced").read_text(encoding="ascii") or "0"
    return Sample(
        hour=hour,
        beams=text.count("\nmqi_beam_run{"),
        resident_mib=running.memory_mib(),
        traced_mib=int(traced) / 2**20,
        threads=int(re.findall(r"Threads:\s+(\d+)", status)[0]),
        files=len(os.listdir(f"/proc/{running.process.pid}/fd")),
    )


def _runs(running: Running) -> float:
    return sum(map(float, re.findall(r"^mqi_beam_runs_total\{[^}]*\} (\S+)", running.metrics(), re.MULTILINE)))


@click.command()
@click.option("--minutes", default=MINUTES, help="How long the week takes.")
@click.option("--samples", type=click.Path(path_type=Path), help="Write all samples there, as CSV.")
def main(minutes: float, samples: Path | None) -> None:
    """Simulate the week within ``minutes``."""
    with signals_as_exit():
        taken, ended, counted = week(60 * minutes, AT_ONCE)
    if samples is not None:
        names = tuple(Sample.__dataclass_fields__)
        rows = [names, *(tuple(f"{getattr(each, name):.3f}" for name in names) for each in taken)]
        samples.write_text("".join(",".join(each) + "\n" for each in rows), encoding="ascii")
    click.echo(report(taken, ended, counted)[0])


if __name__ == "__main__":
    main()
