"""The mirror beside a second process that reads and writes the same database like the communicator."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from exporter.beams.snapshot import BeamKey
from exporter.database.beams_table import BeamsTable
from exporter.database.discovery import DatabaseDiscovery
from exporter.database.mirror import ROWS_PER_TRANSACTION, Mirror
from tests.database.test_mirror import snapshot, view
from tests.support import communicator_db as db


def make_mirror(table: BeamsTable, interval_seconds: float) -> Mirror:
    return Mirror(
        table,
        terminal_statuses=("completed",),
        completed_statuses=("completed",),
        reset_statuses=("pending",),
        value="batch",
        value_range=(0.0, 100.0),
        minimum_interval_seconds=interval_seconds,
        throttle_percent=0.0,
        timer=time.perf_counter,
    )


def write_beside(path: Path, neighbour: db.Neighbour, beams: int, interval_seconds: float) -> list[float]:
    """Write progress of some beams as often as allowed, and read rows, while the other process works.

    Returns:
        Seconds of each transaction.
    """
    keys = [BeamKey("c", f"b{number:03}") for number in range(beams)]
    table, reading = BeamsTable(path), BeamsTable(path)
    mirror = make_mirror(table, interval_seconds)
    discovery = DatabaseDiscovery(reading, retention_seconds=3600)
    seconds: list[float] = []
    current = 0
    while neighbour.running:
        current += 1
        mirror.update(snapshot(*(view(current, 10_000, key=key) for key in keys)))
        result = mirror.flush(time.time())
        assert result.error is None
        seconds += result.seconds
        assert len(discovery.find_beams(time.time(), keys).rows) == len(keys)
        time.sleep(0.02)
    mirror.flush(time.time(), now=True)
    for key in keys:
        assert db.progress(path, key.beam_id) == round(100 * current / 10_000, 2)
    table.close()
    reading.close()
    return sorted(seconds)


def make(folder: Path, beams: int) -> Path:
    path = db.make(folder / "mqi_communicator.db")
    for number in range(beams):
        db.add(path, f"b{number:03}")
    return path


def test_communicator_and_exporter_do_not_fail_each_other_at_a_far_too_high_rate(tmp_path: Path) -> None:
    path = make(tmp_path, ROWS_PER_TRANSACTION)
    neighbour = db.Neighbour(path, 3.0)
    seconds = write_beside(path, neighbour, ROWS_PER_TRANSACTION, 0.0)
    errors, rounds, longest, texts = neighbour.result()
    sys.stdout.write(
        f"\n{len(seconds)} transactions of {ROWS_PER_TRANSACTION} rows beside {rounds} rounds of the neighbour: median "
        f"{1000 * seconds[len(seconds) // 2]:.2f} ms, longest {1000 * seconds[-1]:.1f} ms (waiting included); the "
        f"neighbour's longest round {1000 * longest:.1f} ms\n"
    )
    assert rounds > 50
    assert errors == 0, texts


def test_our_commits_break_only_transactions_that_read_and_then_write(tmp_path: Path) -> None:
    """This is SQLite's rule, so the exporter commits rarely. The process searches GPUs more often than the real one."""
    path = make(tmp_path, 5)
    neighbour = db.Neighbour(path, 3.0, finds_gpus=True)
    seconds = write_beside(path, neighbour, 5, 0.5)
    errors, rounds, _, _ = neighbour.result()
    sys.stdout.write(f"\n{errors} of {rounds} searches for a GPU broken by {len(seconds)} commits in 3 s\n")
    assert rounds > 50
    assert errors <= len(seconds)


def test_many_rows_in_one_transaction_take_less_time_than_one_transaction_per_row(tmp_path: Path) -> None:
    path = make(tmp_path, ROWS_PER_TRANSACTION)
    keys = [BeamKey("c", f"b{number:03}") for number in range(ROWS_PER_TRANSACTION)]
    table = BeamsTable(path)
    together, singly = make_mirror(table, 0.0), [make_mirror(table, 0.0) for _ in keys]
    taken: dict[str, list[float]] = {"together": [], "singly": []}
    for current in range(1, 20, 2):
        together.update(snapshot(*(view(current, 10_000, key=key) for key in keys)))
        taken["together"].append(sum(together.flush(time.time()).seconds))
        total = 0.0
        for key, mirror in zip(keys, singly, strict=True):
            mirror.update(snapshot(view(current + 1, 10_000, key=key)))
            total += sum(mirror.flush(time.time()).seconds)
        taken["singly"].append(total)
    medians = {how: sorted(each)[len(each) // 2] for how, each in taken.items()}
    sys.stdout.write(
        f"\n{ROWS_PER_TRANSACTION} rows: {1000 * medians['together']:.2f} ms together, "
        f"{1000 * medians['singly']:.2f} ms one by one\n"
    )
    assert medians["together"] < medians["singly"]
    table.close()
