"""Which of a source's folders do not exist: a misspelt ``log_path`` looks like beams that wait, and nothing else.

Only the fixed folders of the templates are asked for, never those that are named after a beam: those may well be made
when the beam starts. They are few, and they are asked for every half minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource

CHECK_SECONDS = 30.0
"""Between two checks while every folder exists."""
RECHECK_SECONDS = 5.0
"""Between two checks while one is missing, so that the warning ends soon after somebody has made it."""


@dataclass(frozen=True, slots=True)
class FolderChange:
    """What a check has found that the one before had not.

    Args:
        lost: folders that are missing now.
        found: folders that were missing, and exist now.
    """

    lost: tuple[str, ...] = ()
    found: tuple[str, ...] = ()


class MissingFolders:
    """Keeps track of the folders of one source. Used by the source's thread.

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
        """Go on where ``other`` (of the same source before a reload) stopped: what is known is not warned of again."""
        if other._missing is not None:
            self._missing = other._missing & frozenset(self._folders)

    def check(self, source: LogSource, at: float) -> FolderChange:
        """Ask the source, if it is time to.

        Args:
            source: the source.
            at: now, in seconds of a clock that never steps.

        Returns:
            What has changed.

        Raises:
            SourceUnavailable: it cannot be asked now.
        """
        interval = RECHECK_SECONDS if self._missing else CHECK_SECONDS
        if self._checked_at is not None and 0 <= at - self._checked_at < interval:
            return FolderChange()
        before = self._missing or frozenset()
        self._missing = source.missing_folders(self._folders)
        self._checked_at = at
        return FolderChange(tuple(sorted(self._missing - before)), tuple(sorted(before - self._missing)))
