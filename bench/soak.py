"""A simulated week: ten thousand beams come and go, 200 at a time; what grows, leaks.

The logs are written so many times as fast as the engine would write them, and what the exporter remembers for an hour
or a day is configured shorter by the same factor, but not shorter than several of the exporter's own rhythms (a poll, a
look at the table), which stay as they are. Beams are rows of the communicator's table, with progress mirrored and the
state file on. Every run that ends must be counted.
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

from bench.beside import Running, ending_what_was_started, free_port
from bench.figures import row, table
from exporter.demo.simulator import Player, Script, Simulation, simulate
from tests.support import communicator_db

AT_ONCE = 200
HOURS = 7 * 24
RUN_HOURS = 3.36
"""Of one beam: 200 at a time are then 10 000 in a week."""
MINUTES = 40.0
_SHORT_SECONDS = 6.0
_FAILING_OF = 10
_MAX_BEAMS = 1000
_LEAST_RETENTION_SECONDS = 20.0
"""Several looks at the table: a beam must not be forgotten before its log has been read."""
_SETTLE_SECONDS = 60.0
"""So long without another run counted, and the others are lost."""
_SAMPLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the exporter held at a moment.

    Args:
        hour: of the simulated week.
        beams: on the store.
        resident_mib, traced_mib: memory by the kernel's count and by Python's.
        threads, files: how many.
    """

    hour: float
    beams: int
    resident_mib: float
    traced_mib: float
    threads: int
    files: int


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Have the week go by.

    Returns:
        A table for people, and the figures by name.
    """
    samples, begun, counted = week(_SHORT_SECONDS if short else 60 * MINUTES, 5 if short else AT_ONCE)
    return report(samples, begun, counted)


def week(seconds: float, at_once: int) -> tuple[list[Sample], int, float]:
    """A week in so many seconds.

    Returns:
        Samples in order of time; how many runs have ended; how many of them the exporter has counted.
    """
    factor = HOURS * 3600 / seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _exporter(folder, factor) as running:
            site = _Site(folder, at_once, factor, HOURS / RUN_HOURS)
            samples = [_sample(running, folder, elapsed * factor / 3600) for elapsed in site.work(seconds)]
            counted, deadline = _runs(running), time.monotonic() + _SETTLE_SECONDS
            # On a busy machine the exporter may be behind: what counts is what it never counts.
            while counted < site.ended and time.monotonic() < deadline:
                time.sleep(0.5)
                before, counted = counted, _runs(running)
                if counted > before:
                    deadline = time.monotonic() + _SETTLE_SECONDS
    return samples, site.ended, counted


def report(samples: list[Sample], ended: int, counted: float) -> tuple[str, dict[str, float]]:
    """The table and the figures of a week; growth is that of a straight line through all but the first hour."""
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
    """The engines and the communicator: logs that grow, rows that come and end, logs that are tidied away."""

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
        """Do what is due for so long; yields the seconds gone by whenever a sample is, and in the end."""
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
    """Ten runs of different dialects, one of which fails; each as long as the others."""
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
        # So many beams that have left are remembered: reached in the first tenth, it grows no more.
        f"max_beams: {_MAX_BEAMS}\n"
        f"state: {{file: '{folder}/state.json'}}\nweb: {{listen_address: '127.0.0.1:{port}'}}\n",
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
    """The week in so many minutes."""
    with ending_what_was_started():
        taken, ended, counted = week(60 * minutes, AT_ONCE)
    if samples is not None:
        names = tuple(Sample.__dataclass_fields__)
        rows = [names, *(tuple(f"{getattr(each, name):.3f}" for name in names) for each in taken)]
        samples.write_text("".join(",".join(each) + "\n" for each in rows), encoding="ascii")
    click.echo(report(taken, ended, counted)[0])


if __name__ == "__main__":
    main()
