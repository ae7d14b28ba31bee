"""Work that must not be disturbed, in a process of its own; prints the work done per second.

Usage: ``python -m bench.neighbour append FILE SECONDS`` or ``python -m bench.neighbour spin SECONDS``.
"""

from __future__ import annotations

import os
import sys
import time

import click

_LINE = b"Node specification of CPU printing.. : X --> -600.000 to 600.000 \n"
_LOOK_EVERY = 1000
"""Steps of work between two readings of the clock."""


def append(log: str, seconds: float) -> float:
    """Write lines as fast as possible, each with one system call, as an unbuffered engine does.

    Returns:
        Lines per second.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    began = time.perf_counter()
    lines, elapsed = 0, 0.0
    while elapsed < seconds:
        for _ in range(_LOOK_EVERY):
            os.write(descriptor, _LINE)
        lines += _LOOK_EVERY
        elapsed = time.perf_counter() - began
    os.close(descriptor)
    return lines / elapsed


def spin(seconds: float) -> float:
    """Keep one core busy, as a process does while it waits for its GPU.

    Returns:
        Millions of steps per second.
    """
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    began = time.perf_counter()
    steps, elapsed = 0, 0.0
    while elapsed < seconds:
        for _ in range(_LOOK_EVERY):
            steps += 1
        elapsed = time.perf_counter() - began
    return steps / elapsed / 1e6


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["append", log, seconds]:
            result = append(log, float(seconds))
        case ["spin", seconds]:
            result = spin(float(seconds))
        case _:
            sys.exit(__doc__)
    click.echo(result)
