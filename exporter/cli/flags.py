"""Flags that several commands share. Importing this module is cheap; reading the configuration is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from exporter.config import Settings

DEFAULT_CONFIG = "/etc/mqi-exporter/exporter.yaml"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Flags:
    """Values of the shared flags; ``None`` if not given."""

    config_file: Path | None = None
    listen_address: str | None = None
    web_config_file: Path | None = None
    enable_lifecycle: bool | None = None
    log_level: str | None = None
    log_format: str | None = None

    def settings(self) -> Settings:
        """Return the configuration file with these flags applied, for commands that people run.

        Raises:
            ConfigError: with all mistakes at once.
        """
        from exporter.config import load

        return self.over(load(self.path))

    def own_settings(self) -> Settings:
        """Return the same for the exporter itself; the file must belong to the exporter's user or root.

        Raises:
            ConfigError: with all mistakes at once.
        """
        from exporter.config import load

        return self.over(load(self.path, "owned"))

    @property
    def path(self) -> Path:
        """Path of the configuration file."""
        return self.config_file or Path(DEFAULT_CONFIG)

    @property
    def configured(self) -> bool:
        """Whether a configuration file was named or exists at the default path, readable or not."""
        if self.config_file is not None:
            return True
        try:
            os.stat(DEFAULT_CONFIG)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def over(self, settings: Settings) -> Settings:
        """Return ``settings`` with these flags applied."""
        web = {
            "listen_address": self.listen_address,
            "config_file": None if self.web_config_file is None else os.path.abspath(self.web_config_file),
            "enable_lifecycle": self.enable_lifecycle,
        }
        log = {"level": self.log_level, "format": self.log_format}
        return settings.model_copy(
            update={
                "web": settings.web.model_copy(update=_given(web)),
                "log": settings.log.model_copy(update=_given(log)),
            }
        )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    flags = context.ensure_object(Flags)
    if value is not None and parameter.name is not None:
        setattr(flags, parameter.name, value)


def _checked_address(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from exporter.config.listen_address import ListenError, parse_listen_address

        try:
            parse_listen_address(value)
        except ListenError as error:
            raise click.BadParameter(str(error), context, parameter) from None
    _keep(context, parameter, value)


_CONFIG_FILE = click.option(
    "--config.file",
    "config_file",
    type=click.Path(path_type=Path),
    help=f"Configuration file (YAML).  [default: {DEFAULT_CONFIG}]",
    callback=_keep,
    expose_value=False,
)
_WEB = (
    click.option(
        "--web.listen-address",
        "listen_address",
        metavar="HOST:PORT",
        help="Where to serve HTTP; overrides web.listen_address.",
        callback=_checked_address,
        expose_value=False,
    ),
    click.option(
        "--web.config.file",
        "web_config_file",
        type=click.Path(path_type=Path),
        help="TLS and passwords (YAML, as of all Prometheus exporters); overrides web.config_file.",
        callback=_keep,
        expose_value=False,
    ),
)
_RUNNING = (
    click.option(
        "--web.enable-lifecycle",
        "enable_lifecycle",
        is_flag=True,
        default=None,
        help="Allow POST /-/reload.",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--log.level",
        "log_level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least severity logged; overrides log.level.",
        callback=_keep,
        expose_value=False,
    ),
    click.option(
        "--log.format",
        "log_format",
        type=click.Choice(["logfmt", "json"]),
        help="Form of log lines; overrides log.format.",
        callback=_keep,
        expose_value=False,
    ),
)


def examples(*commands: str) -> str:
    """Return the end of a command's help, which its man page shows, too.

    Args:
        commands: complete command lines.
    """
    return "\n".join(("\b", "Examples:", *(f"  {command}" for command in commands)))


def config_flag(function: Function) -> Function:
    """Add ``--config.file`` to a command. Flags may also stand before the command's name."""
    return _CONFIG_FILE(function)


def address_flags(function: Function) -> Function:
    """Add ``--config.file`` and the flags that override where the exporter serves."""
    return _add((_CONFIG_FILE, *_WEB), function)


def demo_flags(function: Function) -> Function:
    """Add the flags of a running exporter that has no configuration file."""
    return _add((*_WEB, *_RUNNING), function)


def run_flags(function: Function) -> Function:
    """Add all flags of a running exporter."""
    return _add((_CONFIG_FILE, *_WEB, *_RUNNING), function)


def _add(options: tuple[Callable[[Function], Function], ...], function: Function) -> Function:
    for option in reversed(options):
        function = option(function)
    return function
