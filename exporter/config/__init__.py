"""The configuration: reads YAML into typed settings and reports every mistake with its line and key.

Call :func:`load`. ``python -m exporter.config`` prints the reference.
"""

from exporter.config.database import DatabaseSettings
from exporter.config.document import ConfigError
from exporter.config.sections import (
    LocalSourceSettings,
    SourceSettings,
    SshSourceSettings,
    WebSettings,
)
from exporter.config.settings import Settings, load, settings_from

__all__ = [
    "ConfigError",
    "DatabaseSettings",
    "LocalSourceSettings",
    "Settings",
    "SourceSettings",
    "SshSourceSettings",
    "WebSettings",
    "load",
    "settings_from",
]
