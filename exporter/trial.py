"""Tries what a configuration names: every source and the database. Nothing is followed and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.config import Settings, Source, SshSource
from exporter.database.beams_table import BeamsTable, DatabaseUnavailable
from exporter.following import make_source
from exporter.logs.source import LogProblem, SourceUnavailable
from exporter.privacy.identifiers import Identifiers


@dataclass(frozen=True, slots=True)
class Finding:
    """What one trial has shown, as one line. ``works`` is false where something must be done."""

    text: str
    works: bool


def trials(settings: Settings, identifiers: Identifiers) -> Iterator[Finding]:
    """Try every source, then the database.

    Args:
        settings: the configuration.
        identifiers: how the messages of other programs are shown.
    """
    for source in settings.sources:
        yield from _source(settings, source, identifiers)
    if settings.database is not None:
        yield _database(settings, settings.database.path, identifiers)


def _source(settings: Settings, described: Source, identifiers: Identifiers) -> Iterator[Finding]:
    templates = settings.templates(described)
    source = make_source(described, templates)
    about = f"source {described.name}"
    try:
        for number, folder in enumerate(sorted({template.folder for template in templates})):
            try:
                files = source.listing(folder)
            except LogProblem as problem:
                yield Finding(f"{about}: {identifiers.problem(problem)}", works=False)
                continue
            if number == 0 and isinstance(described, SshSource):
                yield Finding(f"{about}: {described.host}: host key known, logged in, SFTP works", works=True)
            if files:
                yield Finding(f"{about}: {folder}: {len(files)} files", works=True)
            else:
                yield Finding(f"{about}: {folder}: no files yet, or no such folder; check log_path", works=True)
    except SourceUnavailable as trouble:
        yield Finding(f"{about}: {identifiers.problem(trouble)}", works=False)
    finally:
        source.close()


def _database(settings: Settings, path: Path, identifiers: Identifiers) -> Finding:
    table = BeamsTable(path, terminal_statuses=settings.discovery.terminal_statuses)
    try:
        beams = table.rows()
        column = "" if table.has_progress() else ", no column progress yet (see `mqi-exporter migrate`)"
    except DatabaseUnavailable as error:
        return Finding(f"database: {identifiers.problem(error)}", works=False)
    finally:
        table.close()
    return Finding(f"database: {path}: {len(beams)} beams that are not over{column}", works=True)
