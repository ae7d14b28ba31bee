"""The command ``runs``: prints the history of runs from the exporter's own store."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Sequence

import click

from exporter.beams.snapshot import EndedRun
from exporter.cli.configuration import load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, config_flag, examples
from exporter.config import ConfigError
from exporter.persistence.history import HistoryUnavailable, RunHistory, parse_since
from exporter.persistence.old_state import store_path
from exporter.privacy.encryption import Encryption
from exporter.privacy.pseudonyms import is_pseudonym
from exporter.runtime.privacy import make_identifiers, pseudonym_key
from exporter.web.api_schema import Json
from exporter.web.csv_export import to_csv
from exporter.web.run_history import RUN, find_runs, render_runs

_COLUMNS = ("ENDED", "CASE", "BEAM", "RUN", "SOURCE", "OUTCOME", "DURATION", "BATCHES", "S/BATCH", "PARTICLES")
_RIGHT = frozenset({"RUN", "DURATION", "BATCHES", "S/BATCH", "PARTICLES"})


def _since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_since(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.command(epilog=examples("mqi-exporter runs --since 7d", "mqi-exporter runs --case 70010001 --csv > runs.csv"))
@click.option("--case", metavar="ID", help="Only runs of this case: its id, or its pseudonym.")
@click.option(
    "--since",
    metavar="WHEN",
    callback=_since,
    help="Only runs that ended then or later: an age (24h, 7d, 2w), a date (2026-11-30), or a date with a time.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The newest N runs only.")
@click.option("--json", "form", flag_value="json", help="Print a JSON array.")
@click.option("--csv", "form", flag_value="csv", help="Print comma-separated values, with a header.")
@config_flag
@click.pass_obj
def runs(flags: Flags, case: str | None, since: float | None, limit: int | None, form: str | None) -> None:
    """Print the history of runs, newest first.

    The runs are read from the store that `state.file` names, also while the exporter runs. Only its owner and root can
    read it. Under pseudonyms the key is needed, too, and ids are shown as everywhere else. Runs that ended more than
    `state.keep_history_days` ago are deleted.
    """
    settings = load_settings(flags)
    if settings.state.file is None:
        fail(f"{flags.path}: no history of runs is kept; set state.file")
    try:
        key = pseudonym_key(settings, any_owner=True)
    except ConfigError as error:
        fail(str(error))
    history = RunHistory(store_path(settings.state.file), None if key is None else Encryption(key.state))
    identifiers = make_identifiers(settings, key)
    try:
        if case is not None and key is not None and not is_pseudonym(case):
            found = history.runs(case_id=case, since=since, limit=limit)
        else:
            found = find_runs(history, identifiers, case, since, limit)
    except HistoryUnavailable as error:
        fail(f"{history.path}: {error}")
    rendered = render_runs(found, identifiers)
    if form == "json":
        click.echo(json.dumps(rendered, indent=2, ensure_ascii=False))
    elif form == "csv":
        click.echo(to_csv(RUN, rendered), nl=False)
    else:
        _print_table(found, rendered)


def _print_table(found: Sequence[EndedRun], rendered: Sequence[Json]) -> None:
    if not found:
        click.echo("no runs", err=True)
        return
    rows = [_COLUMNS, *(_row(run, shown) for run, shown in zip(found, rendered, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (
            cell.rjust(width) if name in _RIGHT else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _row(run: EndedRun, shown: Json) -> tuple[str, ...]:
    duration = None if run.started_at is None else run.ended_at - run.started_at
    return (
        f"{dt.datetime.fromtimestamp(run.ended_at).astimezone():%Y-%m-%d %H:%M:%S}",
        _printable(shown["case_id"]),
        _printable(shown["beam_id"]),
        str(run.run_number),
        _printable(shown["source"]),
        shown["outcome"] if run.reason is None else f"{shown['outcome']} ({run.reason})",
        "-" if duration is None else _duration(duration),
        "-" if run.batches is None else str(run.batches),
        "-" if run.seconds_per_batch is None else f"{run.seconds_per_batch:.1f}",
        "-" if run.particles is None else str(run.particles),
    )


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
