"""Looks for the dose files of runs that claim success, on the source that holds their logs.

Names, sizes and time stamps are enough: no file is opened. :mod:`exporter.beams.output` decides how often to search,
and what follows from the result.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from exporter.beams.output import OutputSearchResult
from exporter.beams.snapshot import BeamRow, OutputFile, OutputSearch
from exporter.polling.sink import PollSink
from exporter.polling.stats import PollStats
from exporter.sources.log_paths import LogPathError
from exporter.sources.output_paths import Component, OutputPathTemplate
from exporter.sources.source import FolderEntry, LogProblem, LogSource

CHECKS_PER_POLL = 16
"""Searches in one poll; the others wait for the next poll."""

FOLDERS_PER_CHECK = 64
"""Most folders that one search enters, if globs match folders."""

_COMPARED_ENTRIES = 1000
"""In a folder with more entries, the search stops at the first match instead of looking for the newest."""


@dataclass(frozen=True, slots=True)
class OutputRules:
    """Which dose file a run must have written.

    Args:
        templates: where it may be; a file that matches any of them counts.
        minimum_bytes: smaller files do not count.
        follow_links: whether links may lead out of a template's fixed folder.
    """

    templates: tuple[OutputPathTemplate, ...]
    minimum_bytes: int = 1
    follow_links: bool = False


class OutputChecker:
    """Searches for dose files on one source. Used by its thread.

    Args:
        source: the source.
        rules: which files count.
        sink: knows which runs claim success, and receives the results.
        stats: logs problems.
    """

    def __init__(self, source: LogSource, rules: OutputRules, sink: PollSink, stats: PollStats) -> None:
        self._source = source
        self._rules = rules
        self._sink = sink
        self._stats = stats

    def poll(self, now: Callable[[], float]) -> None:
        """Search for the files that are due.

        Args:
            now: the present instant.

        Raises:
            SourceUnavailable: the source does not answer.
        """
        at = now()
        for search in self._sink.output_searches_due(self._source.name, at, CHECKS_PER_POLL):
            result = self._check(search)
            self._sink.update_output(search, self._source.name, result, now())

    def _check(self, wanted: OutputSearch) -> OutputSearchResult:
        """Search for the file of one run."""
        problem: LogProblem | None = None
        for template in self._rules.templates:
            search = _Search(self._rules, template, wanted.written_after)
            try:
                search.run(self._source, _fields(wanted.row))
            except LogProblem as error:
                problem = error
            if search.found is not None:
                self._stats.clear_output_problem(wanted.row.key)
                return OutputSearchResult(file=search.found)
        if problem is None:
            return OutputSearchResult()
        self._stats.log_output_problem(wanted.row.key, problem)
        return OutputSearchResult(problem=problem.kind)


class _Search:
    """The search for one run's file by one template.

    Args:
        rules: what is looked for.
        template: where.
        written_after: earlier files do not count; epoch seconds by the source's clock.

    Attributes:
        found: the file, once there is one.
    """

    def __init__(self, rules: OutputRules, template: OutputPathTemplate, written_after: float | None) -> None:
        self._rules = rules
        self._template = template
        self._written_after = written_after
        self._within: Collection[str] | None = None if rules.follow_links else (template.folder,)
        self._folders_left = FOLDERS_PER_CHECK
        self.found: OutputFile | None = None

    def run(self, source: LogSource, fields: dict[str, str | None]) -> None:
        """Search.

        Raises:
            LogProblem: the search is not possible.
            SourceUnavailable: the source does not answer.
        """
        try:
            components = self._template.render(fields)
        except LogPathError as error:
            raise LogProblem("path", str(error), "check output_path and the beam's id") from None
        if components is None:
            missing = ", ".join(sorted(name for name in self._template.fields if not fields.get(name)))
            raise LogProblem("path", f"the beam has no {missing}", "use other fields in output_path")
        self._search(source, self._template.folder, components)

    def _search(self, source: LogSource, folder: str, components: tuple[Component, ...]) -> None:
        """Search ``folder`` for the remaining components of the path."""
        if self._folders_left == 0:
            raise LogProblem(
                "too_many",
                f"globs match more than {FOLDERS_PER_CHECK} folders below {self._template.folder}",
                "name the folders in output_path more exactly",
            )
        self._folders_left -= 1
        component, *below = components
        if below and isinstance(component, str):
            self._folders_left += 1
            self._search(source, posixpath.join(folder, component), tuple(below))
        elif below:
            for name in self._folders(source, folder, component):
                self._search(source, posixpath.join(folder, name), tuple(below))
                if self.found is not None:
                    return
        else:
            self._search_file(source, folder, component)

    def _folders(self, source: LogSource, folder: str, component: Component) -> Iterable[str]:
        """Return the names of the folders in ``folder`` that match."""
        names: list[str] = []

        def visit(entry: FolderEntry) -> bool:
            if entry.stat is None:
                names.append(entry.name)
            return len(names) > FOLDERS_PER_CHECK

        source.entries(folder, component, visit, self._within)
        return sorted(set(names))

    def _search_file(self, source: LogSource, folder: str, component: Component) -> None:
        seen = 0

        def visit(entry: FolderEntry) -> bool:
            nonlocal seen
            seen += 1
            stat = entry.stat
            if (
                stat is not None
                and stat.size_bytes >= self._rules.minimum_bytes
                and (self._written_after is None or stat.modified_at >= self._written_after)
                and (self.found is None or stat.modified_at > self.found.modified_at)
            ):
                path = posixpath.join(folder, entry.name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                self.found = OutputFile(path, stat.size_bytes, stat.modified_at)
            return self.found is not None and seen >= _COMPARED_ENTRIES

        source.entries(folder, component, visit, self._within)


def _fields(row: BeamRow) -> dict[str, str | None]:
    return {
        "case_id": row.key.case_id,
        "beam_id": row.key.beam_id,
        "beam_path": row.beam_path,
        "hpc_job_id": row.hpc_job_id,
    }
