"""Writes ``docs/licences.md``: the licence of each package that is delivered with the exporter.

Usage: python -m supply.licences > docs/licences.md
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import metadata

from packaging.utils import canonicalize_name

from supply.locks import RUNTIME_LOCK, pins

DOCUMENTED_PYTHON = "3.11"
"""Version of Python in Debian 12 and in the image; others install other releases of some packages."""

ALLOWED = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "LGPL-2.1",
        "LGPL-3.0-only",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
    }
)
"""Who runs the exporter owes nothing for these; who hands it on keeps their notices, and for LGPL and MPL publishes
what he has changed in that very package."""

_NAMES = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

_HEAD = f"""# Licences

Packages that are installed with the exporter on Python {DOCUMENTED_PYTHON}, and the licence that its makers state.
The exporter itself is under Apache-2.0. Made by `make licences`; a test fails while it is not current, or a licence
comes in that is none of these: {{allowed}}.

paramiko (LGPL-2.1) and psycopg (LGPL-3.0) must be replaceable by other releases: they are packages of their own, no
part of the exporter.

| package | version | licence |
|---|---|---|
"""


class UnknownLicence(Exception):
    """A package states no licence, or one that this module does not know."""


@dataclass(frozen=True, slots=True)
class Licensed:
    """A package and its licence, an SPDX expression."""

    name: str
    version: str
    licence: str

    @property
    def allowed(self) -> bool:
        """Whether one of the licences that may be chosen consists of allowed ones."""
        choices = self.licence.strip("()").split(" OR ")
        return any(ALLOWED.issuperset(choice.split(" AND ")) for choice in choices)


def licence_of(name: str) -> str:
    """Return the licence of an installed package, as an SPDX expression.

    Raises:
        UnknownLicence: it states none, or an unknown one.
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    about = metadata.metadata(name)
    stated = [text for key in ("License-Expression", "License") for text in about.get_all(key, [])]
    stated += [text.rpartition(" :: ")[2] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    for text in stated:
        expression: str = _NAMES.get(text, text)
        if re.fullmatch(r"[\w.+-]+(?: (?:OR|AND) [\w.+-]+)*", expression):
            return expression
    raise UnknownLicence(f"{name} states its licence as {stated}; add these words to supply/licences.py")


def licensed(python: str) -> list[Licensed]:
    """Return every installed package of the runtime lock with its licence."""
    installed = {canonicalize_name(each.name) for each in metadata.distributions()}
    return [
        Licensed(pin.name, pin.version, licence_of(pin.name))
        for pin in pins(RUNTIME_LOCK, python)
        if pin.name in installed
    ]


def document() -> str:
    """Return the document, as Markdown."""
    rows = [f"| {each.name} | {each.version} | {each.licence} |" for each in licensed(DOCUMENTED_PYTHON)]
    return _HEAD.format(allowed=", ".join(sorted(ALLOWED))) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
