"""Accounts that may do less than the one that runs the tests, which is root as a rule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """As an account that may read what everybody may, and no more (tests run as root)."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)  # the real one, too, which os.access asks for
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def open_the_way_to(folder: Path) -> None:
    """Let every account reach a folder of a test."""
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)
