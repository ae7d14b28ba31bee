"""The configuration that the shared flags select."""

from __future__ import annotations

from pathlib import Path

from exporter.cli.errors import fail
from exporter.cli.flags import Flags
from exporter.config import ConfigError, Settings
from exporter.privacy.identifiers import Identifiers
from exporter.runtime.privacy import check_resolvers, make_identifiers, pseudonym_key
from exporter.web import web_config


def load_settings(flags: Flags, *, own: bool = False) -> Settings:
    """Return the configuration with the flags applied. End the command if it has mistakes.

    Args:
        flags: the shared flags.
        own: whether this process is the exporter; see :meth:`Flags.own_settings`.
    """
    if not flags.configured:
        fail(
            f"there is no configuration at {flags.path} yet. To see the exporter at work: mqi-exporter demo. To read a "
            "log of your own: mqi-exporter verify LOG. To make a configuration: mqi-exporter init --communicator "
            "CONFIG.yaml. To use another file: --config.file PATH"
        )
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
