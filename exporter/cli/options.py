"""Flags that all commands share, and the configuration that they select."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.cli.errors import fail
from exporter.config import ConfigError, Settings, load
from exporter.config.listen_address import ListenError, parse_listen_address
from exporter.privacy.identifiers import Identifiers
from exporter.runtime.privacy import check_resolvers, make_identifiers, pseudonym_key
from exporter.web import web_config

DEFAULT_CONFIG = "/etc/mqi-exporter/exporter.yaml"


@dataclass
class Flags:
    """Values of the common flags; ``None`` if not given."""

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
        return self.over(load(self.path))

    def own_settings(self) -> Settings:
        """Return the same for the exporter itself; the file must belong to the exporter's user or root.

        Raises:
            ConfigError: with all mistakes at once.
        """
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
        try:
            parse_listen_address(value)
        except ListenError as error:
            raise click.BadParameter(str(error), context, parameter) from None
    _keep(context, parameter, value)


_COMMON_FLAGS = (
    click.option(
        "--config.file",
        "config_file",
        type=click.Path(path_type=Path),
        help=f"Configuration file (YAML).  [default: {DEFAULT_CONFIG}]",
        callback=_keep,
        expose_value=False,
    ),
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

Function = TypeVar("Function", bound=Callable[..., Any])


def common_flags(function: Function) -> Function:
    """Add the common flags to a command. They may stand before or after the command's name."""
    for flag in reversed(_COMMON_FLAGS):
        function = flag(function)
    return function


def load_settings(flags: Flags, *, own: bool = False) -> Settings:
    """Return the configuration with the flags applied. End the command if it has mistakes.

    Args:
        flags: the common flags.
        own: whether this process is the exporter; see :meth:`Flags.own_settings`.
    """
    try:
        return flags.own_settings() if own else flags.settings()
    except ConfigError as error:
        fail(str(error))


def settings_warnings(settings: Settings) -> list[str]:
    """Return warnings about settings that are valid but probably not intended.

    The web configuration is included. End the command if it has mistakes.
    """
    try:
        if settings.web.config_file is None:
            check_resolvers(settings, ())
            return settings.warnings()
        path = Path(settings.web.config_file)
        config = web_config.read_web_config(path)
        check_resolvers(settings, config.basic_auth_users)
    except ConfigError as error:
        fail(str(error))
    return [*settings.warnings(), *web_config.config_warnings(path, config, settings.web.listen_address)]


def identifiers_for(settings: Settings) -> Identifiers:
    """Return how ids are shown. End the command if the key of pseudonyms cannot be used."""
    try:
        return make_identifiers(settings, pseudonym_key(settings, any_owner=True))
    except ConfigError as error:
        fail(str(error))
