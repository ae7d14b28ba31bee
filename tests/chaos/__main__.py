"""``python -m tests.chaos --seed N --seconds S``: for as long as wanted, and again with another seed."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import click

from tests.chaos.campaign import ChaosFailed, run
from tests.chaos.schedule import plan


@click.command()
@click.option("--seed", type=int, help="of the schedule; drawn and printed where not given")
@click.option("--seconds", type=click.FloatRange(min=10), default=60.0, show_default=True, help="of faults, each time")
@click.option("--times", type=click.IntRange(min=1), default=1, show_default=True, help="with seeds that go up by one")
@click.option("--show", is_flag=True, help="print the schedule and do nothing")
def main(seed: int | None, seconds: float, times: int, show: bool) -> None:
    """Let everything go wrong at a site, and see whether the exporter says the truth about it."""
    first = random.randrange(1 << 20) if seed is None else seed
    for each in range(first, first + times):
        if show:
            click.echo("\n".join(map(str, plan(each, seconds))))
            continue
        click.echo(f"seed {each} ...")
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{each}-"))
        try:
            click.echo(str(run(folder, each, seconds)))
        except ChaosFailed as failed:
            raise click.ClickException(str(failed)) from None


if __name__ == "__main__":
    main()
