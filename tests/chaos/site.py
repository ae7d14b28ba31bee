"""The site: folders, hosts, database, clock, engines, communicator, and the exporter that watches them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.beams import HOSTS, SOURCES, all_beams, clock_offsets
from tests.chaos.communicator import Communicator
from tests.chaos.engines import Engines
from tests.chaos.table import Table
from tests.chaos.time_of_day import TimeOfDay
from tests.support.process import ExporterProcess, wait_for
from tests.support.relay import Relay
from tests.support.sshd import Sshd
from tests.support.state import written

POLL_SECONDS = 0.5
PATIENCE_SECONDS = 120.0
"""How long anything is waited for: the machine may be busy with ten other things."""
_DISK_MEGABYTES = 16
_RETENTION_SECONDS = 4 * 3600
"""Rows of runs that ended while the exporter was down are read although the clock has been set forwards twice."""
_AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root may read and write everything; so that rights mean something, this takes that privilege away."""


def _as_root(*command: str | Path) -> None:
    prefix = () if os.geteuid() == 0 else ("sudo", "-n")
    subprocess.run([*prefix, *map(str, command)], check=True, timeout=60)


class Site:
    """Everything but the faults; ended at the end of the ``with`` block.

    Args:
        folder: for all of it.
        beams: how many.
        seed: of runs and their times.

    Attributes:
        clock_offsets: seconds by which the clock that dates each source's files is ahead of the exporter's.
        exporter: the process that runs now; ``None`` between two.
        processes: how many there have been.
        said: what processes that have ended had said.
    """

    def __init__(self, folder: Path, beams: int, seed: int) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        folders = {source: folder / source for source in SOURCES}
        for path in (self.disk, *folders.values()):
            path.mkdir(parents=True)
        self.clock = TimeOfDay(folder / "time_of_day")
        self.clock_offsets = clock_offsets(seed)
        self.beams = all_beams(beams, folders, self.clock_offsets)
        self.engines = Engines(self.clock)
        self.hosts: dict[str, Sshd] = {}
        self.relays: dict[str, Relay] = {}
        self.exporter: ExporterProcess | None = None
        self.processes = 0
        self.said: list[str] = []
        self._chance = random.Random(seed)
        self._state_before_clock: object = None
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        with ExitStack() as stack:
            _as_root("mount", "-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m", "tmpfs", self.disk)
            stack.callback(_as_root, "umount", "--lazy", self.disk)
            if os.geteuid() != 0:
                _as_root("chmod", "777", self.disk)
            self.table = Table(self.disk / "mqi.db", self.clock.now)
            for name in HOSTS:
                self.hosts[name] = stack.enter_context(Sshd(self.folder / f"sshd_{name}", through=self._through))
                self.relays[name] = stack.enter_context(Relay(("127.0.0.1", self.hosts[name].port)))
                self.hosts[name].trusted_ports.append(self.relays[name].port)
                self.hosts[name].trust(self.hosts[name].host_key)
            stack.enter_context(self.engines)
            communicator = Communicator(self.beams, self.table, self.engines, self._chance)
            self.write_configuration()
            stack.callback(self.end_exporter)
            # What ended before anybody ever watched is not counted: so it watches before anything begins.
            self._wait_until_it_watches(self.start_exporter())
            self.communicator = stack.enter_context(communicator)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _through(self) -> tuple[str, ...]:
        return _AS_OTHERS if os.geteuid() == 0 else ()

    @property
    def state_file(self) -> Path:
        return self.disk / "state.db"

    @property
    def ballast(self) -> Path:
        """What fills the disk."""
        return self.disk / "ballast"

    def write_configuration(self, *, throttle_percent: float = 0.0, more: str = "") -> None:
        """The exporter's configuration; times are a tenth or less of what a site has, as those of the engines are."""
        remote = "".join(
            f"""
  - name: {name}
    kind: ssh
    host: 127.0.0.1
    port: {self.relays[name].port}
    user: {self.hosts[name].host.user}
    key_file: {self.hosts[name].client_key}
    known_hosts_file: {self.hosts[name].known_hosts}
    connect_timeout_seconds: 10
    operation_timeout_seconds: 8
    log_path: "{self.folder}/{name}/sim_{{beam_id}}.log"
"""
            for name in HOSTS
        )
        text = f"""
base_directory: {self.folder}
sources:
  - {{name: local, kind: local, log_path: "{{base_directory}}/local/sim_{{beam_id}}.log"}}{remote}
database: {{path: {self.table.path}}}
retention_seconds: {_RETENTION_SECONDS}
discovery: {{interval_seconds: 0.5}}
mirror: {{minimum_interval_seconds: 0.5}}
progress_tracking:
  monitoring:
    poll_interval_seconds: {POLL_SECONDS}
    update_throttle_percent: {throttle_percent}
    timeout_seconds: 60
  stall: {{factor: 3, minimum_seconds: 6, first_batch_seconds: 20, buffered_seconds: 120}}
state: {{file: {self.state_file}, interval_seconds: 0.5}}
web: {{listen_address: "127.0.0.1:0"}}
{more}
"""
        (self.folder / "exporter.yaml").write_text(text, encoding="utf-8")

    def set_clock(self, seconds: float) -> None:
        """Set the clock of the machine forwards, or back."""
        self._state_before_clock = self._state
        self.clock.set(seconds)

    @property
    def clock_noted(self) -> bool:
        """The exporter has written its state since the clock was set last."""
        return self._state not in (None, self._state_before_clock)

    @property
    def _state(self) -> object:
        """Something that is another whenever the state was written; ``None`` while there is no file."""
        return written(self.state_file)

    def start_exporter(self) -> ExporterProcess:
        """Start it, as systemd does when it has died."""
        self.exporter = exporter = ExporterProcess(
            *(self.clock.file, "--config.file", self.folder / "exporter.yaml"),
            module="tests.chaos.under_clock",
            python=(*self._through, sys.executable),
        )
        self.processes += 1
        return exporter

    def _wait_until_it_watches(self, exporter: ExporterProcess) -> None:
        wait_for(lambda: exporter.said("exporter started"), "the exporter's start", PATIENCE_SECONDS)
        wait_for(lambda: exporter.get("/-/ready").is_success, "a look at everything", PATIENCE_SECONDS)
        wait_for(self.state_file.exists, "the first state", PATIENCE_SECONDS)

    def kill_exporter(self) -> None:
        """It dies where it is."""
        assert self.exporter is not None
        self.exporter.signal(signal.SIGKILL)
        self.end_exporter()

    def end_exporter(self) -> None:
        """It ends, however far it has come."""
        if self.exporter is not None:
            exporter, self.exporter = self.exporter, None
            exporter.__exit__(None, None, None)
            with (self.folder / "exporter.log").open("a", encoding="utf-8") as log:
                log.write(f"{exporter.log}\n")
            self.said += exporter.lines
