"""Finds out which folders of ``log_path`` do not exist. Without it, beams of a misspelt path would only seem to wait.

Only the fixed folders of the templates are checked. A folder that is named after a beam may be made when the beam
starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource

CHECK_SECONDS = 30.0
"""Between two checks while all folders exist."""
RECHECK_SECONDS = 5.0
"""Between two checks while a folder is missing, so that the warning ends soon after somebody has made it."""


@dataclass(frozen=True, slots=True)
class FolderChange:
    """The difference between two checks.

    Args:
        lost: folders that are missing since the last check.
        found: folders that exist again.
    """

    lost: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


class MissingFolders:
    """Checks the folders of one source. Used by the source's thread.

    Args:
        templates: where logs may be.
    """

    def __init__(self, templates: Iterable[LogPathTemplate]) -> None:
        self._folders = tuple(sorted({template.fixed_folder for template in templates}))
        self._missing: frozenset[str] | None = None
        self._checked_at: float | None = None

    @property
    def missing(self) -> tuple[str, ...] | None:
        """The missing folders, sorted; ``None`` before the first check."""
        return None if self._missing is None else tuple(sorted(self._missing))

    def adopt(self, other: MissingFolders) -> None:
        """Continue with the result of ``other``, of the same source before a reload: nothing is logged twice."""
        if other._missing is not None:
            self._missing = other._missing & frozenset(self._folders)

    def check(self, source: LogSource, at: float) -> FolderChange:
        """Check the folders if that is due.

        Args:
            source: the source.
            at: the present instant.

        Returns:
            What has changed since the last check.

        Raises:
            SourceUnavailable: the source does not answer.
        """
        interval = RECHECK_SECONDS if self._missing else CHECK_SECONDS
        if self._checked_at is not None and 0 <= at - self._checked_at < interval:
            return FolderChange()
        before = self._missing or frozenset()
        self._missing = source.missing_folders(self._folders)
        self._checked_at = at
        return FolderChange(tuple(sorted(self._missing - before)), tuple(sorted(before - self._missing)))
