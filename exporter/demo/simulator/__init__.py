"""Simulates logs of ``tps_env`` that grow in real files, for the demo, tests and benchmarks.

A :class:`Simulation` describes a run. :func:`simulate` converts it to a :class:`Script` of timed writes;
:func:`replay_growth` does the same for a captured log. A :class:`Player` writes a script to a file. It uses the
caller's clock, so one thread can run many. ``python -m exporter.demo.simulator --help`` shows the command line.
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
