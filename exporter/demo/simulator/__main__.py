"""Command line of the simulator: ``python -m exporter.demo.simulator``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from exporter.demo.simulator import Simulation, play, read_growth, replay_growth, simulate
from exporter.demo.simulator.simulation import Dialect, Failure, Shell


@click.group()
def main() -> None:
    """Write a log as the dose engine does."""


_SPEED = click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, help="times faster than the engine"
)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TARGET = click.Path(dir_okay=False, path_type=Path)


@main.command()
@click.argument("log", type=_FILE)
@click.argument("growth", type=_FILE)
@click.argument("target", type=_TARGET)
@_SPEED
def replay(log: Path, growth: Path, target: Path, speed: float) -> None:
    """Let the captured LOG grow again in TARGET, timed by GROWTH (its NAME.growth.csv)."""
    try:
        script = replay_growth(log.read_bytes(), read_growth(growth))
        play(script, target, speed=speed)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("target", type=_TARGET)
@click.option("--dialect", type=click.Choice(get_args(Dialect)), default="smc", show_default=True)
@click.option("--batches", type=int, multiple=True, default=(18,), help="of a beam; again for each further beam")
@click.option("--histories", type=int, default=180_000_000, show_default=True, help="particles of a beam")
@click.option("--rounds", type=int, default=1, show_default=True, help="of moqui-stat")
@click.option("--batch-seconds", type=float, default=5.0, show_default=True)
@click.option("--generation-share", type=float, default=0.2, show_default=True)
@click.option("--loading-seconds", type=float, default=3.0, show_default=True)
@click.option("--saving-seconds", type=float, default=2.0, show_default=True)
@click.option("--gpu/--cpu", default=False, show_default=True)
@click.option("--failure", type=click.Choice(get_args(Failure)))
@click.option("--at-batch", type=int, help="where the failure strikes")
@click.option("--shell", type=click.Choice(get_args(Shell)), default="dash", show_default=True)
@click.option("--line-buffered", is_flag=True, help="as under stdbuf -oL")
@click.option("--production", is_flag=True, help="the production engine")
@click.option("--batch-lines/--no-batch-lines", default=True, help="whether it prints lines about its batches")
@click.option("--seed", type=int, default=-1932780356, show_default=True)
@_SPEED
def run(target: Path, speed: float, **description: object) -> None:
    """Write the log of a simulated run to TARGET and exit with the engine's exit code."""
    try:
        exit_code = play(simulate(Simulation(**description)), target, speed=speed)  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
