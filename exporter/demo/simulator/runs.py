"""Converts the description of a run to the writes of its log."""

from __future__ import annotations

from exporter.demo.simulator.engine import MoquiRun, SmcRun
from exporter.demo.simulator.process import ProcessEnded
from exporter.demo.simulator.production import ProductionRun
from exporter.demo.simulator.script import Script
from exporter.demo.simulator.simulation import Simulation


def simulate(simulation: Simulation) -> Script:
    """Return the writes of one run; always the same for the same description."""
    if simulation.production:
        run: ProductionRun | SmcRun | MoquiRun = ProductionRun(simulation)
    else:
        run = SmcRun(simulation) if simulation.dialect.startswith("smc") else MoquiRun(simulation)
    try:
        run.write()
    except ProcessEnded as end:
        return Script(run.process.steps(), end.exit_code)
