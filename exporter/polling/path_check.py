"""What the last poll found at the paths where a beam's log may be; for ``explain``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PathCheck:
    """One path at which a source polls for a beam's log.

    Args:
        source: the source.
        path: the path; empty if no path can be made (``found`` is ``no_path``).
        found: ``log`` (a log is there), ``missing`` (nothing is there), ``not_polled`` (not polled yet), ``no_path``
            (the row lacks fields that ``log_path`` needs), or the kind of a
            :class:`~exporter.sources.source.LogProblem`: ``permission``, ``not_a_file``, ``link``, ``path``, ``io``.
        followed: whether this log is the one that is read.
        missing_fields: with ``no_path``, the empty fields of the row.
    """

    source: str
    path: str
    found: str
    followed: bool = False
    missing_fields: tuple[str, ...] = ()
