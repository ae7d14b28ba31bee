"""Logs that grow as ``tps_env``'s do, in real files: simulated ones and captured ones. For the demo, tests, benchmarks.

A :class:`Simulation` describes a run; :func:`simulate` makes it a :class:`Script` of timed writes, and
:func:`replay_growth` makes one of a captured log. A :class:`Player` puts a script into a file; it asks no clock, so a
caller may run any number of them in one thread. ``python -m exporter.demo.simulator --help`` does both from a shell.
"""

from exporter.demo.simulator.player import Player, play
from exporter.demo.simulator.process import BLOCK_BYTES
from exporter.demo.simulator.runs import simulate
from exporter.demo.simulator.script import Script, Step, read_growth, replay_growth
from exporter.demo.simulator.simulation import Simulation

__all__ = [
    "BLOCK_BYTES",
    "Player",
    "Script",
    "Simulation",
    "Step",
    "play",
    "read_growth",
    "replay_growth",
    "simulate",
]
