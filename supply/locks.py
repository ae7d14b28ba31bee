"""Reads lock files: pinned releases and the digests of their files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
RUNTIME_LOCK = ROOT / "requirements-runtime.lock"
"""Lock of the packages that the exporter needs at run time."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned release.

    Args:
        name: name of the package, normalised.
        version: the pinned version.
        digests: digests of its files, as ``sha256:...``; other files are refused.
    """

    name: str
    version: str
    digests: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """The release as a line of pip's requirements."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={digest}" for digest in self.digests)])


def pins(lock: Path, python: str) -> list[Pin]:
    """Return the pins of a lock, sorted by name.

    Args:
        lock: the lock file.
        python: version of Python, such as ``3.11``; some packages are pinned for some versions only.
    """
    found = []
    for text in re.findall(r"^[^#\s].*(?:(?<=\\)\n.*)*", lock.read_text(encoding="utf-8"), re.MULTILINE):
        requirement = Requirement(text.partition(" \\\n")[0])
        python_is = {"python_version": python, "python_full_version": f"{python}.99"}
        if requirement.marker is None or requirement.marker.evaluate(python_is):
            [specifier] = requirement.specifier
            digests = re.findall(r"--hash=(\S+)", text)
            found.append(Pin(canonicalize_name(requirement.name), specifier.version, tuple(digests)))
    return sorted(found, key=lambda pin: pin.name)
