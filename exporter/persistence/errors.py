"""What can be wrong with the store on disk."""

from __future__ import annotations


class StateInUse(Exception):
    """Another process uses the store."""


class StateUnusable(Exception):
    """What stands in a file cannot be used; the message says why, without naming the file or anything in it."""


class StateOutdated(StateUnusable):
    """The states of beams and counters cannot be used; the history of runs can."""


class StateReadable(StateUnusable):
    """The same of a file of ours that is not encrypted although it should be: whatever stands in it can be read."""


class StateNotOurs(StateUnusable):
    """The file is somebody's database, or no file at all: it must not be touched."""


class StateNotSaved(Exception):
    """The store cannot be written now; the message is the system's."""
