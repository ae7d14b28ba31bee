"""The command ``mqi-exporter``. The module of a subcommand is imported when it is called, so that each starts fast."""

from __future__ import annotations

from importlib import import_module

import click

from exporter import __version__
from exporter.cli.flags import run_flags

_COMMANDS = {
    "alerts": "exporter.cli.export:alerts",
    "check-config": "exporter.cli.check_config:check_config",
    "dashboards": "exporter.cli.export:dashboards",
    "demo": "exporter.cli.run:demo",
    "explain": "exporter.cli.explain:explain",
    "healthcheck": "exporter.cli.healthcheck:healthcheck",
    "init": "exporter.cli.init:init",
    "migrate": "exporter.cli.migrate:migrate",
    "notify": "exporter.cli.notify:notify",
    "run": "exporter.cli.run:run",
    "runs": "exporter.cli.runs:runs",
    "top": "exporter.cli.top.command:top",
    "verify": "exporter.cli.verify:verify_command",
    "whois": "exporter.cli.whois:whois_command",
}


class _LazyGroup(click.Group):
    """A group whose commands stand in ``_COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@run_flags
@click.version_option(__version__, prog_name="mqi-exporter", message="%(prog)s, version %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Progress of Monte Carlo dose simulations for Prometheus and MQI Communicator.

    Without a command, run the exporter.
    """
    if context.invoked_subcommand is None:
        from exporter.cli.run import run

        context.invoke(run)


if __name__ == "__main__":
    main()
