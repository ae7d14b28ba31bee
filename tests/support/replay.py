"""Captured logs revealed as they really grew, and how far the estimates were from the truth.

``python -m tests.support.replay`` prints the table of ``docs/accuracy.md``: for every captured log the mean and the
worst distance between the estimated progress and what was really done, in percentage points, sampled at every row of
its ``growth.csv`` (10 ms) from the first batch's beginning to the last one's end.
"""

from __future__ import annotations

import csv
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.beams.estimate import Forecast
from exporter.beams.run import BeamRun
from exporter.beams.runs import RunSequence
from exporter.logs.events import BatchFinished, BatchStarted, LogRead
from exporter.logs.parser import TpsLogParser
from tests.support import queue_replay

LOGS = Path(__file__).parents[1] / "data" / "logs"


@dataclass(frozen=True)
class Sample:
    """One moment of a replay: what the exporter shows."""

    at: float
    ratio: float
    estimated: float
    announcements: int


@dataclass(frozen=True)
class Batch:
    """When one batch really ran, seconds since the program's start."""

    began: float
    ended: float


def names() -> list[str]:
    """Every captured log."""
    return sorted(path.stem for path in LOGS.glob("*.log"))


def expected() -> dict[str, dict[str, str]]:
    """``expected.csv`` by log."""
    with (LOGS / "expected.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def growth(name: str) -> list[tuple[float, int]]:
    """Sizes of a log over time, where it existed."""
    with (LOGS / f"{name}.growth.csv").open(encoding="utf-8", newline="") as file:
        rows = [(float(row["t_s"]), int(row["size_bytes"])) for row in csv.DictReader(file)]
    return [(at, size) for at, size in rows if size >= 0]


def replay(name: str, poll_seconds: float = 0.0) -> Iterator[tuple[Sample, BeamRun]]:
    """Read a log as it grew, looking every ``poll_seconds`` (0: at every row of its growth)."""
    data = (LOGS / f"{name}.log").read_bytes()
    parser, runs, read, looked = TpsLogParser(), RunSequence(), 0, float("-inf")
    rows = growth(name)
    for row, (at, size) in enumerate(rows):
        if at < looked + poll_seconds and row + 1 < len(rows):
            continue
        looked = at
        if size > read:
            for event in parser.feed(data[read:size]):
                runs.apply(event, at)
            read = size
            runs.apply(LogRead(read, parser.line_complete, live=True), at)
        run = runs.run
        yield Sample(at, run.batches.ratio, Forecast.of(run, None).at(at)[0], run.batches.announcements), run


def true_batches(name: str) -> list[Batch]:
    """When each batch began and ended, from what the program printed and when; none where that was not recorded."""
    path = LOGS / f"{name}.truth.csv"
    if not path.exists():
        return []
    batches: list[Batch] = []
    began: float | None = None
    parser = TpsLogParser()
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] != "line":
                continue
            at = float(row["t_printed_s"])
            for event in parser.feed(row["text"].encode() + b"\n"):
                if isinstance(event, BatchStarted):
                    began = at
                elif isinstance(event, BatchFinished) and began is not None:
                    batches.append(Batch(began, at))
    return batches


@dataclass(frozen=True)
class Accuracy:
    """Distance of the estimate from the truth, in percentage points, and why it cannot be better where it cannot."""

    name: str
    batches: int
    mean: float
    worst: float
    mean_after_first: float | None
    worst_after_first: float | None
    remark: str


def accuracy(name: str, poll_seconds: float = 0.0) -> Accuracy | None:
    """Compare a replay with the truth; ``None`` where no batch ended."""
    batches = true_batches(name)
    if not batches:
        return None
    starts = [batch.began for batch in batches]
    known_total = expected()[name]["batches_total_true"]
    total = int(known_total) if known_total.isdigit() else len(batches)
    errors: list[tuple[float, float]] = []
    last: BeamRun | None = None
    for sample, run in replay(name, poll_seconds):
        last = run
        if not batches[0].began <= sample.at <= batches[-1].ended:
            continue
        index = bisect_right(starts, sample.at) - 1
        batch = batches[index]
        share = min(1.0, (sample.at - batch.began) / max(batch.ended - batch.began, 1e-9))
        # The truth counts the batches announced so far, as the log can: the beams still to come are not in it.
        errors.append((sample.at, 100 * abs(sample.estimated - (index + share) / total)))
    if not errors or last is None:
        return None
    later = [error for at, error in errors if at > batches[0].ended + max(poll_seconds, 0.05)]
    every = [error for _, error in errors]
    return Accuracy(
        name,
        total,
        sum(every) / len(every),
        max(every),
        sum(later) / len(later) if later else None,
        max(later, default=None),
        remark(last, total),
    )


def remark(run: BeamRun, total: int) -> str:
    """What keeps a log from being within 1 %."""
    remarks = []
    if run.buffered or run.dialect == "unknown":
        remarks.append("block-buffered log")
    if run.batches.announcements > 1:
        remarks.append("later beams or repetitions are not announced yet")
    if total == 1:
        remarks.append("its only batch is its first")
    elif total < 10:
        remarks.append(f"its first batch is {100 / total:.0f} % of it")
    return "; ".join(remarks) or "first batch"


def _points(error: float | None) -> str:
    return "–" if error is None else f"{error:.2f}"


def table(poll_seconds: float = 0.0) -> str:
    """The accuracy of every captured log as a Markdown table."""
    lines = [
        "| log | batches | mean error | worst error | mean after the first batch | worst after it | what limits it |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name in names():
        row = accuracy(name, poll_seconds)
        if row is not None:
            lines.append(
                f"| {row.name} | {row.batches} | {row.mean:.2f} | {row.worst:.2f} "
                f"| {_points(row.mean_after_first)} | {_points(row.worst_after_first)} | {row.remark} |"
            )
    return "\n".join(lines)


def document() -> str:
    """``docs/accuracy.md``."""
    return f"""# Accuracy of the estimates

Made by `python -m tests.support.replay`; do not edit.

Every captured log is replayed at its real pace (`NAME.growth.csv`, a poll every 10 ms). The estimated progress is
compared with the true progress (`NAME.truth.csv`): finished batches plus the share of the running one, divided by
all batches of the process. Errors are in percentage points of the whole run, from the start of the first batch to
the end of the last.

The development plan's target is an error of at most 1 %. It is met on average, and nearly always, for logs whose
batches arrive one by one (`smc`) after a first batch has finished, if there are enough batches. It cannot be met

- **in a run's first batch**: its duration is unknown, unless a run of the same source with as many particles per
  batch has ended before (a replay has none). The error grows to one batch's share: 5.6 points with 18 batches, 100
  points with a single one;
- **in the block-buffered dialects** (`smc-spot`, `moqui`...): the log does not grow until there are 4096 bytes or
  the process ends. With `stdbuf -oL` the same engines are as accurate as `smc`;
- **if several beams or repetitions run in one process**: the log does not say how many will follow, so the total
  is too small until the last announcement;
- **if batches differ**: a batch that takes twice as long as the earlier ones cannot be predicted. The captured
  runs were made on a shared machine, and some have batches of a few tens of milliseconds.

The default poll every 0.5 s instead of every 10 ms adds at most the share of a batch in that time, because growth is
dated by the log's modification time and not by the poll.

{table()}

## Expected ends of cases

While beams wait, the end of a case comes from earlier runs and the queue (`exporter/beams/forecast.py`). In simulated
queues of 60 beams (`python -m tests.support.queue_replay`) the mean error is this, absolute and relative to the time
left. "Spread" is the standard deviation of the durations. Runs last 20 minutes; up to 20 s pass between two of them, of
which the forecast knows nothing.

{queue_replay.table()}
"""


if __name__ == "__main__":
    sys.stdout.write(document())
