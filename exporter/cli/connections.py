"""Tries every source and the database of a configuration (``check-config --connect``). Changes nothing."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.config import DatabaseSettings, Settings, SourceSettings, SshSourceSettings
from exporter.database.open_table import open_table
from exporter.database.unavailable import DatabaseUnavailable
from exporter.privacy.identifiers import Identifiers
from exporter.runtime.pipeline import make_source
from exporter.sources.source import LogProblem, LogSource, SourceUnavailable


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result.

    Args:
        text: what was found.
        outcome: ``FAILED`` if something must be done, ``warning`` if something may have to be done.
    """

    text: str
    outcome: Literal["ok", "warning", "FAILED"] = "ok"


def check_connections(settings: Settings, identifiers: Identifiers) -> Iterator[Finding]:
    """Try every source, then the database.

    Args:
        settings: the configuration.
        identifiers: how messages of other programs are shown.

    Yields:
        The findings, in order.
    """
    for source in settings.sources:
        yield from _source(settings, source, identifiers)
    if settings.database is not None:
        yield from _database(settings, settings.database, identifiers)


def _source(settings: Settings, described: SourceSettings, identifiers: Identifiers) -> Iterator[Finding]:
    templates = settings.templates(described)
    source = make_source(described, templates)
    about = f"source {described.name}"
    try:
        folders = sorted({template.fixed_folder for template in templates})
        missing = source.missing_folders(folders)
        if isinstance(described, SshSourceSettings):
            yield Finding(f"{about}: {described.host}: host key known, logged in, SFTP works")
        for folder in folders:
            try:
                files = source.listing(folder)
            except LogProblem as problem:
                yield Finding(f"{about}: {identifiers.problem(problem)}", "FAILED")
                continue
            if files:
                yield Finding(f"{about}: {folder}: {_count(len(files), 'file')}")
            elif isinstance(described, SshSourceSettings):
                yield _without_files_there(about, folder, is_missing=folder in missing)
            else:
                yield _without_files(about, folder)
        outputs = sorted({template.folder for template in settings.output_templates(described)})
        missing = source.missing_folders(outputs)
        for folder in outputs:
            yield _output_folder(source, about, folder, identifiers, is_missing=folder in missing)
    except SourceUnavailable as trouble:
        yield Finding(f"{about}: {identifiers.problem(trouble)}", "FAILED")
    finally:
        source.close()


def _without_files_there(about: str, folder: str, *, is_missing: bool) -> Finding:
    """Report a folder without files on another host."""
    if is_missing:
        text = f"{about}: the folder {folder} does not exist on the host; check log_path, or create the folder"
        return Finding(text, "warning")
    return Finding(f"{about}: {folder}: no files yet")


def _output_folder(
    source: LogSource, about: str, folder: str, identifiers: Identifiers, *, is_missing: bool
) -> Finding:
    """Report whether dose files can be searched for in the fixed folder of an output_path."""
    if is_missing:
        return Finding(f"{about}: output_path: the folder {folder} does not exist; check output_path", "warning")
    try:
        source.entries(folder, re.compile(".*"), lambda _: True, None)
    except LogProblem as problem:
        return Finding(f"{about}: output_path: {identifiers.problem(problem)}", "FAILED")
    return Finding(f"{about}: output_path: {folder} is there")


def _without_files(about: str, folder: str) -> Finding:
    """Report a folder without files on this machine. A listing does not tell a missing folder from an empty one."""
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except FileNotFoundError:
        # The first run creates the folder.
        there = next(parent for parent in map(str, Path(folder).parents) if os.path.isdir(parent))
        return Finding(f"{about}: {folder}: no such folder yet, {there} is there; check log_path", "warning")
    except NotADirectoryError:
        is_folder = False
    except OSError as error:
        return Finding(f"{about}: cannot look at {folder}: {error.strerror}; check log_path", "FAILED")
    if not is_folder:
        return Finding(f"{about}: {folder} is not a folder, or is below a file; check log_path", "FAILED")
    return Finding(f"{about}: {folder}: no files yet")


def _database(settings: Settings, database: DatabaseSettings, identifiers: Identifiers) -> Iterator[Finding]:
    table = open_table(database, settings.discovery)
    written = settings.mirror.enabled and settings.discovery.kind == "database"
    try:
        if written:
            try:
                table.check_writable()
            except DatabaseUnavailable as error:
                if error.kind != "locked":
                    raise
                unknown = "somebody was writing all the time, so whether it can be written is not known; try again"
                yield Finding(f"database: {table.name}: {unknown}", "warning")
            for warning in table.connection_warnings():
                yield Finding(f"database: {warning}", "warning")
        beams = table.rows()
        has_column = table.has_progress()
    except DatabaseUnavailable as error:
        yield Finding(f"database: {identifiers.problem(error)}", "FAILED")
        return
    finally:
        table.close()
    column = "" if has_column else ", no column progress yet (see `mqi-exporter migrate`)"
    nobody_adds_it = written and not has_column and not database.migrates
    said = f"database: {table.name}: {_count(len(beams), 'beam')} not over{column}"
    yield Finding(said, "warning" if nobody_adds_it else "ok")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
