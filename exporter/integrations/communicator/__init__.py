"""The communicator's own configuration -> a configuration of this exporter (``mqi-exporter init``).

:func:`ours` is the door.
"""

from exporter.integrations.communicator.generate import Draft, ours
from exporter.integrations.communicator.read import Theirs, read_theirs

__all__ = ["Draft", "Theirs", "ours", "read_theirs"]
