"""What a door is to those who try it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from zlib import crc32

NAMES = ("configuration", "database", "parser", "sftp", "tailer", "web")
FINDINGS = Path(__file__).parents[1] / "data" / "fuzz"

Check = Callable[[bytes], None]
"""Raises an ``AssertionError``, or what the exporter should not have raised, where an input breaks a promise."""


@dataclass(frozen=True)
class Target:
    """One door.

    Args:
        opened: what the check needs (files, a server) lives as long as this context; it gives the check.
        seeds: inputs that are as they should be; others are made from them.
        words: parts that inputs are made of.
        longest_bytes: longest input worth trying.
        examples: inputs tried in every test run.
    """

    opened: Callable[[], AbstractContextManager[Check]]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes]
    longest_bytes: int = 4096
    examples: int = 200


def target(name: str) -> Target:
    """The door of this name (one of :data:`NAMES`)."""
    found = import_module(f"tests.fuzz.{name}").TARGET
    assert isinstance(found, Target)
    return found


def findings(name: str) -> list[Path]:
    """Inputs that have found something."""
    return sorted((FINDINGS / name).glob("*"))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that does not outlive its context, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def draw(data: bytes, most: int) -> int:
    """A number below ``most`` that depends on the input alone, for what it should not have to spell out."""
    return crc32(data) % most
