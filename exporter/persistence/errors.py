"""What can be wrong with the store on disk."""

from __future__ import annotations


class StateInUse(Exception):
    """Another process uses the store."""


class StateUnusable(Exception):
    """The content of a file cannot be used. The message says why; it names neither the file nor its content."""


class StateOutdated(StateUnusable):
    """The states of beams and counters cannot be used; the history of runs can."""


class StateReadable(StateUnusable):
    """The content cannot be used and is not encrypted although it should be: whoever opens the file can read ids."""


class StateNotOurs(StateUnusable):
    """The path is another program's database, or not a regular file. It must not be changed."""


class StateNotSaved(Exception):
    """The store cannot be written now; the message is the system's."""
