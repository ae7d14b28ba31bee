"""Ends a command with an error message."""

from __future__ import annotations

import sys
from typing import NoReturn

import click


def fail(message: str) -> NoReturn:
    """End the command with exit status 1 and one line on standard error."""
    click.echo(f"mqi-exporter: {message}", err=True)
    sys.exit(1)
