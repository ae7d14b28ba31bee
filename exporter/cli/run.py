"""The commands ``run`` and ``demo``."""

from __future__ import annotations

from pathlib import Path

import click

from exporter.cli.flags import Flags, demo_flags, examples, run_flags


@click.command(epilog=examples("mqi-exporter run --config.file exporter.yaml"))
@run_flags
@click.pass_obj
def run(flags: Flags) -> None:
    """Read logs of running beams and serve their progress (the default)."""
    from exporter.cli.serve import serve_configured

    serve_configured(flags)


@click.command(
    epilog=examples("mqi-exporter demo", "mqi-exporter demo --speed 10 --web.listen-address 127.0.0.1:20000")
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's database and logs go; emptied of an earlier demo's.  [default: a temporary folder]",
)
@click.option(
    "--speed", type=click.FloatRange(min=0.01, max=1000), default=1.0, show_default=True, help="Times faster than real."
)
@demo_flags
@click.pass_obj
def demo(flags: Flags, folder: Path | None, speed: float) -> None:
    """Run on simulated beams and an embedded database; nothing else is needed."""
    from exporter.cli.serve import serve_demo

    serve_demo(flags, folder, speed)
