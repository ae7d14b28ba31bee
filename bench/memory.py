"""Measures the memory of an exporter that follows 1 000 and 10 000 beams and is scraped again and again."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

import httpx

from bench.figures import row, table
from tests.support.process import PATIENCE_SECONDS, ExporterProcess, wait_for

_HEAD = b"""\
MOQUI SMC Treatment machine model and log-file based MC
Uploading particles with batch.. : Particle count --> 172000000 with 18 batches
"""
_BATCH = b"Generating particles for (%d of 18 batches) in CPU ..\nParticle transportation complete!\n"
_REACH_MIB = {1000: 80, 10_000: 200}


def run(short: bool) -> tuple[str, dict[str, float]]:
    """Follow growing logs and scrape after each batch.

    Returns:
        A table for people, and MiB by beams.
    """
    figures: dict[str, float] = {}
    lines = []
    for beams in (20,) if short else (0, 1000, 10_000):
        with tempfile.TemporaryDirectory() as folder:
            resident, peak = _memory(Path(folder), beams, 1 if short else 5)
        figures |= {f"{beams} resident MiB": resident, f"{beams} peak MiB": peak}
        reach = f"{_REACH_MIB[beams]} MiB" if beams in _REACH_MIB else ""
        lines.append(row(f"{beams} beams", f"{resident:.0f} MiB", f"{peak:.0f} MiB", reach))
    return table(("what", "resident", "peak", "to reach"), lines), figures


def _memory(folder: Path, beams: int, batches: int) -> tuple[float, float]:
    logs = folder / "logs"
    logs.mkdir()
    paths = [logs / f"{70010000 + number // 10}_beam_{number}.log" for number in range(beams)]
    for path in paths:
        path.write_bytes(_HEAD)
    config = folder / "exporter.yaml"
    config.write_text(
        f"sources:\n  - {{name: local, kind: local, log_path: '{logs}/{{case_id}}_beam_{{beam_id}}.log'}}\n"
        "discovery: {kind: directory, name_pattern: '(?P<case_id>[0-9]+)_beam_(?P<beam_id>[0-9]+)[.]log'}\n"
        "web: {listen_address: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    with ExporterProcess("--config.file", config) as exporter:
        url = f"http://{exporter.address}/metrics"
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            for batch in range(1, batches + 1):
                for path in paths:
                    with path.open("ab") as file:
                        file.write(_BATCH % batch)
                shown = re.compile(rf"^mqi_beam_batches_completed\{{[^\n]*\}} {batch}$", re.MULTILINE)

                def all_seen(shown: re.Pattern[str] = shown) -> bool:
                    return len(shown.findall(client.get(url).text)) == beams

                wait_for(all_seen, f"batch {batch} of every log in a scrape", 120.0)
            time.sleep(0.0 if batches == 1 else 2.0)
            client.get(url)
        return _status_mib(exporter.pid, "VmRSS"), _status_mib(exporter.pid, "VmHWM")


def _status_mib(pid: int, key: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024
