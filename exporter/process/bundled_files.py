"""Finds files that come with the exporter: dashboards, rules, Alertmanager's example and runbooks.

In a checkout they are in ``dashboards/``, ``alerts/`` and ``docs/runbooks``. ``setup.py`` copies them into the package
for installed exporters.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parents[1] / "_shipped"
_CHECKOUT = Path(__file__).parents[2]

DASHBOARDS = ("dashboards", "*.json")
ALERTS = ("alerts", "mqi*.yml", "alertmanager.yml", "mqi.tmpl")
RUNBOOKS = ("docs/runbooks", "*.md")


def bundled_files(folder: str, *patterns: str) -> list[Path]:
    """Return the files of a folder that match a pattern, sorted by name.

    Args:
        folder: folder in the checkout, such as ``dashboards``.
        patterns: glob patterns.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for root in (_PACKAGED, _CHECKOUT):
        found = sorted(path for pattern in patterns for path in (root / folder).glob(pattern))
        if found:
            return found
    raise FileNotFoundError(f"this installation lacks its {folder}; install mqi-beam-exporter again")
