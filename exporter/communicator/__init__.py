"""The communicator's own configuration -> a configuration of this exporter (``mqi-exporter init``).

:func:`ours` is the door.
"""

from exporter.communicator.ours import Draft, ours
from exporter.communicator.theirs import Theirs, read_theirs

__all__ = ["Draft", "Theirs", "ours", "read_theirs"]
