"""Runs benchmarks and prints their tables. ``--json FILE`` writes the figures; ``--short`` runs a quick form."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click
import structlog

from bench import (
    catchup,
    disturbance,
    flood,
    growth,
    idle,
    latency,
    memory,
    mirror,
    persistence,
    scrape,
    soak,
    ssh,
    start,
    wakeups,
)
from bench.beside import signals_as_exit

BENCHMARKS = {
    "catchup": catchup.run,
    "disturbance": disturbance.run,
    "flood": flood.run,
    "growth": growth.run,
    "idle": idle.run,
    "latency": latency.run,
    "memory": memory.run,
    "mirror": mirror.run,
    "persistence": persistence.run,
    "scrape": scrape.run,
    "soak": soak.run,
    "ssh": ssh.run,
    "start": start.run,
    "wakeups": wakeups.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(BENCHMARKS)))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--short", is_flag=True, help="Small sizes: shows that it runs, not how fast.")
def main(names: tuple[str, ...], json_file: Path | None, short: bool) -> None:
    """Run the benchmarks NAMES, or all."""
    figures = {}
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        with signals_as_exit():
            for name in names or sorted(BENCHMARKS):
                table, figures[name] = BENCHMARKS[name](short)
                click.echo(f"{table}\n")
    finally:
        structlog.reset_defaults()
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
