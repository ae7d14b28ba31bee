"""Makes a configuration of this exporter from the communicator's own (``mqi-exporter init``).

Call :func:`draft_config`.
"""

from exporter.integrations.communicator.generate import ConfigDraft, draft_config
from exporter.integrations.communicator.read import CommunicatorConfig, read_communicator_config

__all__ = ["CommunicatorConfig", "ConfigDraft", "draft_config", "read_communicator_config"]
