"""Writes logs as ``tps_env`` does with all output enabled: few lines matter, and most are noise."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow
from exporter.beams.store import BeamStore
from exporter.logs.parser import SitePatterns
from exporter.polling.poller import SourcePoller
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource

HEAD = (
    b"MOQUI SMC Treatment machine model and log-file based MC\n"
    b"Starting process of loading basic information..\n"
    b"Starting process of creating world geometry and beam models..\n"
    b"Total histories (Particles) : 1000000000\n"
    b"Starting process of Monte Carlo simulation..\n"
    b"Uploading particles with batch.. : Particle count --> 10000 with 100000 batches\n"
)
NOISE_LINES_PER_BATCH = 400
"""About 20 KiB between two batches, so 50 batches per megabyte."""


def batch(number: int) -> bytes:
    """Return the lines that the engine prints when a batch starts."""
    return (
        b"Generating particles for (%d of 100000 batches) in CPU ..\nParticle generation complete!\n"
        b"Transporting particles...\n" % number
    )


FINISHED = b"Particle transportation complete!\n"


@lru_cache(maxsize=64)
def noise(lines: int, seed: int) -> bytes:
    """Return lines that do not matter; some begin like lines that do."""
    dice = random.Random(seed)
    made = []
    for number in range(lines):
        x, y, z, energy = (
            dice.uniform(-300, 300),
            dice.uniform(-300, 300),
            dice.uniform(-300, 300),
            dice.uniform(70, 230),
        )
        made.append(
            (
                b"Node specification of CPU printing.. : X --> %.3f to %.3f " % (x, y),
                b"Particle %d : position (%.4f, %.4f, %.4f) energy %.3f MeV" % (number, x, y, z, energy),
                b"(x, y, z) -> (%d, %d, %d)" % (x, y, z),
                b"Downloading node data.. : Scorer[%d] --> 0x%012x" % (number, dice.getrandbits(48)),
                b"Warning: Very low dose detected. Using scaling factor: %.6e Gy/uint" % abs(x),
                b"Sorting %d particles by energy..." % (number * 17),
                b"Relative ERROR: %.5f" % abs(y),
            )[dice.randrange(7)]
        )
    return b"\n".join(made) + b"\n"


def write(path: Path, size_bytes: int, seed: int = 0) -> int:
    """Write a noisy log of about ``size_bytes``.

    Returns:
        The number of batches that it has started.
    """
    blocks = [noise(NOISE_LINES_PER_BATCH, seed + each) for each in range(8)]
    number = written = 0
    with path.open("wb") as file:
        written += file.write(HEAD)
        while written < size_bytes:
            number += 1
            written += file.write(batch(number) + blocks[number % len(blocks)][: max(0, size_bytes - written)])
            written += file.write(b"\n" + FINISHED)
    return number


def watch(folder: Path, count: int, source: LogSource | None = None, at: float = 0.0) -> tuple[BeamStore, SourcePoller]:
    """Return a store with beams ``b0``, ``b1``, ... whose logs are in ``folder``, and the poller that follows them."""
    store = BeamStore(StoreRules(max_beams=count), at)
    store.update_rows([BeamRow(BeamKey("c", f"b{number}"), at, status="x") for number in range(count)], (), at)
    poller = SourcePoller(
        source if source is not None else LocalLogSource("local"),
        [LogPathTemplate(f"{folder}/{{beam_id}}.log")],
        store,
        site=SitePatterns(),
        clock=lambda: at,
    )
    return store, poller
