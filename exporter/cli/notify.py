"""The command ``notify test NAME``: tries an entry of ``notifications``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from exporter.cli.configuration import load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, config_flag, examples


@click.group()
def notify() -> None:
    """Test the messages to people."""


@notify.command(name="test", epilog=examples("mqi-exporter notify test physics"))
@click.argument("name")
@config_flag
@click.pass_obj
def notify_test(flags: Flags, name: str) -> None:
    """Send a test message to every URL of the entry NAME of `notifications`.

    The answers of the services are printed. URLs are not printed, because they contain passwords. Exit status 1 if one
    of them did not accept the message.
    """
    from exporter.notify.apprise_sender import UrlFileError, explain_failure, read_urls
    from exporter.notify.messages import write_test_message

    settings = load_settings(flags)
    entries = {each.name: each for each in settings.notifications}
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        fail(f"{flags.path}: notifications has no entry {name!r}; there is: {known}")
    try:
        urls = read_urls(Path(entries[name].url_file))
    except UrlFileError as error:
        fail(str(error))
    refused = False
    for number, url in enumerate(urls, 1):
        scheme = url.partition("://")[0]
        problems = explain_failure(url, write_test_message(time.time()))
        click.echo(f"{name}, URL {number} ({scheme}): {'not accepted' if problems else 'accepted'}")
        for line in problems:
            click.echo(f"  {line}", err=True)
        refused = refused or bool(problems)
    if refused:
        sys.exit(1)
