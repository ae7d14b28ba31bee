"""``python -m exporter.config`` prints ``docs/configuration.md``."""

import sys

from exporter.config.reference import markdown
from exporter.config.settings import Settings

sys.stdout.write(markdown(Settings))
