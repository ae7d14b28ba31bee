"""``make stack``: the exporter's demo, Prometheus and Alertmanager together on loopback, with the shipped files.

Ctrl-C ends all three. With ports that are taken, choose others: ``python -m tests.support.stack --help``.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from tests.support.process import ExporterProcess
from tests.support.servers import Alertmanager, Prometheus, edit_yaml

ROOT = Path(__file__).parents[2]

_WHERE = """
  http://{0.address}/                the exporter, on simulated beams
  http://{1.address}/classic/alerts   Prometheus, with the rules of alerts/
  http://{2.address}/#/alerts         Alertmanager, with alerts/alertmanager.yml

The first alerts come within two minutes: a beam that failed, a beam that stalls.
Dashboards: mqi-exporter dashboards push --grafana.url URL, with this Prometheus as its data source.
Ctrl-C ends all of it.
"""


def prepare(folder: Path, *, exporter: str, alertmanager: str, interval: str = "15s") -> None:
    """Put the shipped files into a folder, as a site does, with the addresses of this stack.

    Args:
        folder: for Prometheus' and Alertmanager's configurations.
        exporter, alertmanager: ``host:port``.
        interval: of scrapes and evaluations.
    """

    def addresses(configuration: Any) -> None:
        configuration["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
        configuration["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
        configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [exporter]

    edit_yaml(ROOT / "config" / "prometheus.yml", folder / "prometheus.yml", addresses)
    for name in ("mqi-rules.yml", "alertmanager.yml", "mqi.tmpl"):
        shutil.copyfile(ROOT / "alerts" / name, folder / name)


def check_port_is_free(port: int, option: str) -> None:
    """End the command with one line if a port is taken.

    Args:
        port: on loopback.
        option: the option that chooses another.
    """
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.ClickException(
                f"port {port} cannot be used: {error.strerror}; choose another: "
                f".venv/bin/python -m tests.support.stack {option} PORT"
            ) from None


@click.command(help=(__doc__ or "").split("\n\n")[1])
@click.option("--exporter-port", default=10813, show_default=True)
@click.option("--prometheus-port", default=9090, show_default=True)
@click.option("--alertmanager-port", default=9093, show_default=True)
@click.option("--interval", default="5s", show_default=True, help="Of scrapes and evaluations of rules.")
def main(exporter_port: int, prometheus_port: int, alertmanager_port: int, interval: str) -> None:
    """Run until Ctrl-C."""
    for option, port in (
        ("--exporter-port", exporter_port),
        ("--prometheus-port", prometheus_port),
        ("--alertmanager-port", alertmanager_port),
    ):
        check_port_is_free(port, option)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="mqi-stack-") as temporary:
        folder = Path(temporary)
        alertmanager = Alertmanager(folder, alertmanager_port)
        with ExporterProcess("demo", "--web.listen-address", f"127.0.0.1:{exporter_port}") as exporter:
            prepare(folder, exporter=exporter.address, alertmanager=alertmanager.address, interval=interval)
            try:
                subprocess.run(
                    ["promtool", "check", "config", str(folder / "prometheus.yml")],
                    check=True,
                    text=True,
                    capture_output=True,
                )
                with alertmanager, Prometheus(folder, prometheus_port) as prometheus:
                    click.echo(_WHERE.format(exporter, prometheus, alertmanager))
                    while not stop.wait(1.0):
                        pass
            finally:
                exporter.signal(signal.SIGTERM)
                exporter.wait()


if __name__ == "__main__":
    sys.exit(main())
