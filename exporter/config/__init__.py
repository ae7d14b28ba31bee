"""The configuration: YAML -> typed settings; every mistake named with its line and key.

:func:`load` is the door. ``python -m exporter.config`` prints the reference.
"""

from exporter.config.document import ConfigError
from exporter.config.sections import Database, LocalSource, Source, SshSource, Web
from exporter.config.settings import Settings, load, settings_from

__all__ = [
    "ConfigError",
    "Database",
    "LocalSource",
    "Settings",
    "Source",
    "SshSource",
    "Web",
    "load",
    "settings_from",
]
