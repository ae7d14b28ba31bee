"""Runs the exporter until a signal ends it (commands ``run`` and ``demo``).

This module imports everything. The other commands start faster because they do not import it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from exporter.cli.configuration import load_settings, settings_warnings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags
from exporter.config import ConfigError, Settings, settings_from
from exporter.config.listen_address import ListenError
from exporter.demo.demo import DemoCommunicator
from exporter.demo.host import DemoHost, DemoHostUnavailable
from exporter.persistence.errors import StateInUse, StateNotOurs
from exporter.process import core_dumps, gc_tuning
from exporter.runtime import log_output
from exporter.runtime.exporter import Exporter
from exporter.runtime.privacy import make_identifiers, pseudonym_key
from exporter.web.routes import ReloadFailed

_log = structlog.get_logger(__name__)

_DEMO_PORTS = range(10813, 10833)


def serve_configured(flags: Flags) -> None:
    """Run the exporter as its configuration file says; SIGHUP reads the file again."""
    core_dumps.disable()
    settings = load_settings(flags, own=True)
    _serve(settings, flags.own_settings)


def serve_demo(flags: Flags, folder: Path | None, speed: float) -> None:
    """Run the exporter on simulated beams.

    Args:
        flags: of the command.
        folder: for the demo's database and logs; a temporary one where ``None``.
        speed: how many times faster than real.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # until _serve() handles them: leave no folder and no sshd behind
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mqi-exporter-demo-") as temporary, contextlib.ExitStack() as stack:
        host = _demo_host(Path(temporary) / "host")
        if host is not None:
            stack.callback(host.stop)
        communicator = DemoCommunicator(folder or Path(temporary), speed=speed, host=host)
        try:
            communicator.prepare()
        except OSError as error:
            fail(f"cannot prepare the demo in {communicator.base_directory}: {error.strerror}; choose another --folder")
        configuration = communicator.configuration(flags.listen_address or _free_demo_address())

        def read() -> Settings:
            return flags.over(settings_from(configuration, "demo"))

        settings = read()
        _serve(settings, read, communicator)


def _serve(
    settings: Settings, read_settings: Callable[[], Settings], communicator: DemoCommunicator | None = None
) -> None:
    """Run until SIGINT or SIGTERM. SIGHUP reloads the configuration; it ends the demo, whose terminal was closed.

    Args:
        settings: the configuration.
        read_settings: reads it again, for reloads.
        communicator: of the demo; it plays in a thread of its own.
    """
    signals, stopping = _catch_signals(), threading.Event()
    try:
        key = pseudonym_key(settings)
        identifiers = make_identifiers(settings, key)
        log_output.configure(settings.log.level, settings.log.format, identifiers=None if key is None else identifiers)
        for warning in settings_warnings(settings):
            _log.warning("doubtful configuration", about=warning)
        exporter = Exporter(settings, read_settings, identifiers=identifiers)
    except (ListenError, ConfigError, StateInUse, StateNotOurs) as error:
        fail(str(error))
    gc_tuning.collect_less_often()
    exporter.start()
    playing = None
    if communicator is not None:
        playing = threading.Thread(target=communicator.run, args=(stopping,), name="demo", daemon=True)
        playing.start()
        _say_where_to_look(exporter.url, communicator)
    while set(os.read(signals, 4096)) == {signal.SIGHUP} and communicator is None:
        # A mistake in the configuration was logged and counted already.
        with contextlib.suppress(ReloadFailed):
            exporter.reload()
    stopping.set()
    exporter.stop()
    if playing is not None:
        playing.join(1.0)


def _catch_signals() -> int:
    """Catch SIGINT, SIGTERM and SIGHUP from now on.

    Returns:
        The descriptor of a pipe that holds the number of each signal received, as a byte.
    """
    received, sent = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return received


def _demo_host(folder: Path) -> DemoHost | None:
    """Start the demo's SSH host; without an SSH server on this machine the demo runs without it."""
    try:
        return DemoHost(folder)
    except DemoHostUnavailable as reason:
        click.echo(f"The demo runs without a remote host: {reason}.", err=True)
        return None


def _free_demo_address() -> str:
    """Return the usual address, or one with the next free port. Then say so on standard error."""
    port = next((port for port in _DEMO_PORTS if _is_free(port)), None)
    if port is None:
        fail(
            f"ports {_DEMO_PORTS[0]} to {_DEMO_PORTS[-1]} are all taken; name a free one: "
            "make demo PORT=..., or --web.listen-address 127.0.0.1:PORT"
        )
    if port != _DEMO_PORTS[0]:
        click.echo(f"Port {_DEMO_PORTS[0]} is taken; the demo uses port {port}.", err=True)
    return f"127.0.0.1:{port}"


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _say_where_to_look(url: str, communicator: DemoCommunicator) -> None:
    click.echo(
        f"""
Simulated beams run for about three minutes; one of them stalls and stays so. Look at

  {url}/          the page
  {url}/metrics   the metrics
  sqlite3 {communicator.database_path} 'SELECT beam_id, status, progress FROM beams'

Ctrl-C ends it.
""",
        err=True,
    )
