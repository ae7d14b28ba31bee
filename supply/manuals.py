"""Writes the man pages from the help of the commands: one page per command, with examples and files.

Usage: python -m supply.manuals [FOLDER]      (default: docs/man)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
from click_man.man import ManPage

from exporter import __version__
from exporter.cli.flags import DEFAULT_CONFIG
from exporter.cli.main import main
from supply.locks import ROOT

FILES = (
    (DEFAULT_CONFIG, "The configuration. /usr/share/doc/mqi-exporter/examples has examples."),
    ("/var/lib/mqi-exporter/state.db", "Checkpoints and the history of runs, if state.file names it."),
    ("/usr/lib/systemd/system/mqi-exporter.service", "The service, if the Debian package is installed."),
)


def pages() -> dict[str, str]:
    """Return the text of every man page by file name."""
    context = click.Context(main, info_name="mqi-exporter")
    return {f"{each.command_path.replace(' ', '-')}.1": _page(each) for each in _contexts(context)}


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    for name, command in _subcommands(context):
        yield from _contexts(click.Context(command, info_name=name, parent=context))


def _subcommands(context: click.Context) -> list[tuple[str, click.Command]]:
    group = context.command
    if not isinstance(group, click.Group):
        return []
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [(name, command) for name, command in found if command is not None and not command.hidden]


def _page(context: click.Context) -> str:
    command = context.command
    page = ManPage(context.command_path)
    # The day on which it was generated says nothing, and would change every page.
    page.date = ""
    page.version = __version__
    page.short_help = command.get_short_help_str(limit=200)
    page.description = cleandoc(command.help or "").replace("\b\n", "")
    page.synopsis = " ".join(command.collect_usage_pieces(context))
    options = [each for each in command.params if isinstance(each, click.Option)]
    page.options = [record for each in options if (record := each.get_help_record(context)) is not None]
    page.commands = [(name, each.get_short_help_str(limit=200)) for name, each in _subcommands(context)]
    text = str(page)
    if command.epilog:
        lines = [line.strip() for line in cleandoc(command.epilog).splitlines()[2:]]
        text += ".SH EXAMPLES\n.nf\n" + "\n".join(line.replace("-", r"\-") for line in lines) + "\n.fi\n"
    if any(each.name == "config_file" for each in options):
        text += ".SH FILES\n" + "".join(f".TP\n{path}\n{what}\n" for path, what in FILES)
    return text


def write(folder: Path) -> None:
    """Write all pages into a folder; pages of commands that no longer exist are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.1"):
        old.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "man")
