"""Commands that export the bundled files: ``dashboards push | export`` and ``alerts export``."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import click

from exporter.cli.errors import fail
from exporter.cli.flags import examples
from exporter.process.bundled_files import ALERTS, DASHBOARDS, RUNBOOKS, bundled_files

GRAFANA_URL, RUNBOOK_URL = "http://localhost:3000", "docs/runbooks"
"""Addresses in the bundled rules (``alerts/parameters.py``), which options replace."""


@click.group()
def dashboards() -> None:
    """Push Grafana dashboards to a Grafana, or export them into a folder."""


@dashboards.command(
    name="push",
    epilog=examples("mqi-exporter dashboards push --grafana.url http://grafana:3000 --grafana.token-file token"),
)
@click.option(
    "--grafana.url", "url", required=True, metavar="URL", help="Where Grafana is, for instance http://HOST:3000."
)
@click.option(
    "--grafana.token-file",
    "token_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token of a service account that may edit dashboards; only its owner may read it.",
)
@click.option(
    "--grafana.ca-file",
    "ca_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates to trust instead of the system's.",
)
@click.option("--folder", default="MQI", show_default=True, help="Folder in Grafana; made if it is missing.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE...]")
def push_dashboards(
    url: str, token_file: Path | None, ca_file: Path | None, folder: str, dry_run: bool, files: tuple[Path, ...]
) -> None:
    """Push the dashboards (or these FILEs) to a Grafana. Unchanged dashboards are skipped."""
    from exporter.integrations.grafana import Grafana, PushFailed, read_dashboard, read_token

    try:
        paths = files or tuple(bundled_files(*DASHBOARDS))
        read = [read_dashboard(path) for path in paths]
        grafana = Grafana(url, token=read_token(token_file) if token_file else None, ca_file=ca_file)
        with contextlib.closing(grafana):
            for pushed in grafana.push(read, folder=folder or None, dry_run=dry_run):
                would = "would be " if dry_run and pushed.change != "unchanged" else ""
                click.echo(f"{pushed.title}: {would}{pushed.change}  {pushed.url}")
    except (PushFailed, FileNotFoundError) as error:
        fail(str(error))


@dashboards.command(name="export", epilog=examples("mqi-exporter dashboards export dashboards"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export_dashboards(folder: Path, force: bool) -> None:
    """Write the dashboards' JSON into FOLDER."""
    _export([(path.name, path.read_text(encoding="utf-8")) for path in _shipped(DASHBOARDS)], folder, force)


def _plain(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check that an address needs no quotes in YAML and no escapes in a template."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9_./:~%+?&=@,-]+", value):
        raise click.BadParameter("write an address without blanks, quotes, braces or #", context, parameter)
    return value


@click.group()
def alerts() -> None:
    """Export Prometheus rules and an example of Alertmanager's configuration."""


@alerts.command(name="export", epilog=examples("mqi-exporter alerts export /etc/prometheus/mqi"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--grafana.url",
    "grafana_url",
    metavar="URL",
    callback=_plain,
    help="Where Grafana is; alerts link to its dashboards.",
)
@click.option(
    "--runbook.url",
    "runbook_url",
    metavar="URL",
    callback=_plain,
    help="Where the runbooks are; alerts link to URL/NAME.md.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export_alerts(folder: Path, grafana_url: str | None, runbook_url: str | None, force: bool) -> None:
    """Write rules, Alertmanager's example with its templates, and runbooks into FOLDER."""
    files = []
    for path in _shipped(ALERTS):
        text = path.read_text(encoding="utf-8")
        for key, default, wanted in (
            ("dashboard_url", GRAFANA_URL, grafana_url),
            ("runbook_url", RUNBOOK_URL, runbook_url),
        ):
            if wanted is not None:
                text = text.replace(f"{key}: {default}/", f"{key}: {wanted.rstrip('/')}/")
        files.append((path.name, text))
    files += [(f"runbooks/{path.name}", path.read_text(encoding="utf-8")) for path in _shipped(RUNBOOKS)]
    _export(files, folder, force)


def _shipped(what: tuple[str, ...]) -> list[Path]:
    try:
        return bundled_files(*what)
    except FileNotFoundError as error:
        fail(str(error))


def _export(files: list[tuple[str, str]], folder: Path, force: bool) -> None:
    """Write all files; write none if one exists and must not be replaced."""
    there = [name for name, _ in files if (folder / name).exists()]
    if there and not force:
        fail(f"{folder / there[0]} is there already; choose another folder, or replace it with --force")
    try:
        for name, text in files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(path)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
