"""Network and host faults of an SSH source with a real sshd: nothing is lost, comes twice, or hangs.

Each test ends with the beam's state being that of reading its finished log whole, and with a local source beside it
that was looked at all the while.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.beams.rules import StallRules, StatusRules, StoreRules
from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, BeamView, SourceView
from exporter.beams.store import BeamStore
from exporter.logs.parser import SitePatterns
from exporter.polling.poller import SourcePoller
from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.source import LogSource
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.source import SshLogSource
from tests.support.process import PATIENCE_SECONDS, wait_for
from tests.support.relay import Relay
from tests.support.replay import LOGS
from tests.support.sshd import Sshd, keygen

REMOTE, LOCAL = BeamKey("c", "remote"), BeamKey("c", "local")
DATA = (LOGS / "v2_b18.log").read_bytes()
TIMEOUT_SECONDS = 1.0


def cut_at(batch: int) -> int:
    return DATA.index(b"Generating particles for (%d of 18" % batch)


class Watch:
    """A store with a remote and a local source, each polled in its own thread like in the exporter."""

    def __init__(self, folder: Path, host: SshHost) -> None:
        self.remote_log = folder / "remote" / "remote.log"
        self.local_log = folder / "local" / "local.log"
        for log in (self.remote_log, self.local_log):
            log.parent.mkdir(exist_ok=True)
        self.store = BeamStore(StoreRules(StallRules(), StatusRules()), time.time())
        # A fast clock shortens the backoff.
        source = SshLogSource("hpc1", host, clock=lambda: 20 * time.monotonic(), jitter=lambda: 0.0)
        self.pollers = [
            self._poller(source, f"{folder}/remote/{{beam_id}}.log"),
            self._poller(LocalLogSource("local"), f"{folder}/local/{{beam_id}}.log"),
        ]
        rows = [BeamRow(key, time.time(), status="simulation_running") for key in (REMOTE, LOCAL)]
        self.store.update_rows(rows, (), time.time())
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._follow, args=(each,)) for each in self.pollers]
        for thread in self._threads:
            thread.start()

    def _poller(self, source: LogSource, template: str) -> SourcePoller:
        return SourcePoller(
            source,
            [LogPathTemplate(template)],
            self.store,
            site=SitePatterns(),
            clock=time.time,
        )

    def _follow(self, poller: SourcePoller) -> None:
        while not self._stop.is_set():
            if not poller.poll():
                self._stop.wait(0.02)

    def close(self) -> None:
        self._stop.set()
        for poller in self.pollers:
            poller.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a thread hangs"

    def view(self, key: BeamKey = REMOTE) -> BeamView:
        [view] = [view for view in self.store.snapshot(time.time()).beams if view.key == key]
        return view

    def source(self, name: str = "hpc1") -> SourceView:
        found = [view for view in self.store.snapshot(time.time()).sources if view.name == name]
        return found[0] if found else SourceView(name, "ssh")

    def write(self, start: int, end: int | None = None) -> None:
        """Write a part of the log on the host."""
        with self.remote_log.open("ab") as file:
            file.write(DATA[start:end])

    def shows(self, batches: int) -> None:
        wait_for(lambda: self.view().batches_completed == batches, f"{batches} batches of the remote beam")

    def is_down(self) -> None:
        wait_for(lambda: self.source().up is False, "the source down")
        if self.view().source == "hpc1":
            wait_for(lambda: self.view().state is BeamState.UNREACHABLE, "the beam unreachable")

    def local_is_live(self) -> None:
        """Check that the local source works while the remote one waits."""
        with self.local_log.open("ab") as file:
            file.write(b"Generating particles for (1 of 100 batches) in CPU ..\nParticle transportation complete!\n")
        size = self.local_log.stat().st_size
        wait_for(lambda: self.view(LOCAL).log_size_bytes == size, "the local log's growth", 5)

    def ends_as_if_read_whole(self) -> None:
        self.remote_log.write_bytes(DATA) if not self.remote_log.exists() else None
        have = self.remote_log.stat().st_size
        self.write(have)
        assert self.remote_log.read_bytes() == DATA
        wait_for(lambda: self.view().state is BeamState.SUCCEEDED, "the remote run's end")
        view = self.view()
        assert (view.batches_total, view.batch_current, view.batches_completed) == (18, 18, 18)
        assert (view.run_number, view.particles, view.estimated_ratio) == (1, 49350, 1.0)
        assert not self.source().anomalies
        # The source publishes its counters after the poll that showed the run's end.
        wait_for(lambda: self.source().read_bytes >= len(DATA), "what was read is counted")
        assert self.source().read_bytes == len(DATA), "nothing was read twice"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def relay(sshd: Sshd) -> Iterator[Relay]:
    with Relay((sshd.address, sshd.port)) as relay:
        sshd.trusted_ports.append(relay.port)
        sshd.trust(sshd.host_key)
        yield relay


@pytest.fixture
def watch(tmp_path: Path, sshd: Sshd, relay: Relay) -> Iterator[Watch]:
    host = replace(sshd.host, port=relay.port, operation_timeout_seconds=TIMEOUT_SECONDS)
    watch = Watch(tmp_path, host)
    yield watch
    watch.close()


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_broken_connection_is_opened_again(watch: Watch, relay: Relay, how: str) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    for batch in (8, 11, 14):
        getattr(relay, how)()
        watch.write(watch.remote_log.stat().st_size, cut_at(batch))
        watch.local_is_live()
        watch.shows(batch - 1)
    wait_for(lambda: watch.source().reconnects == 3, "the third connection")
    watch.ends_as_if_read_whole()


@pytest.mark.parametrize("how", ["cut", "reset", "its process killed"])
def test_a_host_is_not_down_if_its_connection_has_only_ended(watch: Watch, relay: Relay, sshd: Sshd, how: str) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    went_down = threading.Event()
    publish = watch.store.update_source

    def publishing(view: SourceView, at: float) -> None:
        if view.up is False:
            went_down.set()
        publish(view, at)

    watch.store.update_source = publishing  # type: ignore[method-assign]
    if how == "its process killed":
        for pid in sshd.children:
            os.kill(pid, signal.SIGKILL)
    else:
        getattr(relay, how)()
    watch.write(cut_at(5), cut_at(9))
    watch.shows(8)
    wait_for(lambda: watch.source().reconnects == 1, "another connection")

    assert not went_down.is_set()
    assert not watch.source().errors
    watch.ends_as_if_read_whole()


def test_logs_are_followed_again_after_sshd_was_killed_and_restarted(watch: Watch, sshd: Sshd) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    sshd.kill()
    watch.is_down()
    assert watch.view().batches_completed == 4, "the last values are kept"
    watch.write(cut_at(5), cut_at(9))
    watch.local_is_live()
    sshd.start()
    watch.shows(8)
    watch.ends_as_if_read_whole()


def test_a_dead_network_link_is_detected_and_no_thread_hangs(watch: Watch, relay: Relay) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    relay.drop()
    began = time.monotonic()
    watch.is_down()
    assert time.monotonic() - began < 30
    assert watch.source().errors["timeout"] >= 1
    watch.local_is_live()
    last_poll_at = watch.source().last_poll_at
    assert last_poll_at is not None
    relay.cut()
    relay.resume()
    watch.write(cut_at(5), cut_at(9))
    watch.shows(8)
    watch.ends_as_if_read_whole()


def test_a_suspended_host_is_down_until_it_continues(watch: Watch, sshd: Sshd) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    sshd.signal(signal.SIGSTOP)
    try:
        watch.is_down()
        watch.local_is_live()
        watch.write(cut_at(5), cut_at(9))
    finally:
        sshd.signal(signal.SIGCONT)
    watch.shows(8)
    watch.ends_as_if_read_whole()


def test_a_network_link_that_stalls_at_random_loses_nothing(watch: Watch, relay: Relay) -> None:
    chance = random.Random(7)
    position = 0
    while position < len(DATA):
        relay.stall()
        end = min(len(DATA), position + chance.randrange(1, 1500))
        watch.write(position, end)
        position = end
        # Some stalls are longer than the operation time-out, most are not.
        threading.Event().wait(chance.choice([0.0, 0.01, 0.1, 0.3, 1.5 * TIMEOUT_SECONDS]))
        relay.resume()
    watch.local_is_live()
    watch.ends_as_if_read_whole()


def test_200_ms_of_latency_change_nothing(watch: Watch, relay: Relay) -> None:
    relay.delay_seconds = 0.1
    for batch in (3, 6, 9):
        watch.write(0 if batch == 3 else cut_at(batch - 3), cut_at(batch))
        watch.shows(batch - 1)
    watch.local_is_live()
    watch.ends_as_if_read_whole()
    assert watch.source().reconnects == 0


def test_logs_are_found_when_a_missing_folder_appears(watch: Watch) -> None:
    watch.remote_log.parent.rmdir()
    wait_for(lambda: watch.source().up is True, "the source up although the folder is missing")
    assert watch.view().state is BeamState.WAITING
    watch.remote_log.parent.mkdir()
    watch.write(0, cut_at(5))
    watch.shows(4)
    watch.ends_as_if_read_whole()


def test_a_log_that_is_not_a_file_is_logged_once_and_followed_when_it_becomes_one(watch: Watch) -> None:
    os.mkfifo(watch.remote_log)
    wait_for(lambda: watch.source().errors.get("not_a_file") == 1, "the error")
    watch.local_is_live()
    watch.remote_log.unlink()
    watch.write(0, cut_at(5))
    watch.shows(4)
    assert watch.source().errors == {"not_a_file": 1}
    watch.ends_as_if_read_whole()


def test_a_full_disk_on_the_host_only_delays_the_log(watch: Watch) -> None:
    """The engine's writes fail for a while: the log stops in the middle of a line and continues later."""
    watch.write(0, cut_at(5) + 10)
    watch.shows(4)
    watch.local_is_live()
    assert watch.view().state is BeamState.RUNNING
    watch.write(cut_at(5) + 10, cut_at(9))
    watch.shows(8)
    watch.ends_as_if_read_whole()


def refused(watch: Watch, error: str, part: str, caplog_text: Callable[[], str]) -> None:
    wait_for(lambda: watch.source().errors.get(error, 0) >= 1, f"the error {error}: {watch.source().errors}")
    assert watch.source().up is False
    watch.local_is_live()
    assert part in caplog_text()


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    text: list[str] = []

    def read() -> str:
        text.append(capsys.readouterr().out)
        return "".join(text)

    return read


def test_a_wrong_login_key_is_refused_until_it_is_corrected(
    tmp_path: Path, sshd: Sshd, told: Callable[[], str]
) -> None:
    wrong = keygen(tmp_path / "wrong_key")
    watch = Watch(tmp_path, replace(sshd.host, key_file=wrong))
    try:
        refused(watch, "authentication", str(wrong), told)
        watch.write(0, cut_at(5))
        with (sshd.folder / "authorized_keys").open("a", encoding="utf-8") as file:
            file.write(Path(f"{wrong}.pub").read_text(encoding="utf-8"))
        watch.shows(4)
        watch.ends_as_if_read_whole()
    finally:
        watch.close()


def test_a_changed_host_key_is_refused_until_it_is_trusted(tmp_path: Path, sshd: Sshd, told: Callable[[], str]) -> None:
    sshd.trust(keygen(tmp_path / "other_host_key"))
    watch = Watch(tmp_path, sshd.host)
    try:
        refused(watch, "host_key_changed", "differs from the key in", told)
        before = sshd.known_hosts.read_text(encoding="utf-8")
        watch.write(0, cut_at(5))
        assert sshd.known_hosts.read_text(encoding="utf-8") == before
        sshd.trust(sshd.host_key)
        watch.shows(4)
        watch.ends_as_if_read_whole()
    finally:
        watch.close()


def test_an_unknown_host_is_refused_and_never_added(tmp_path: Path, sshd: Sshd, told: Callable[[], str]) -> None:
    sshd.known_hosts.write_text("", encoding="utf-8")
    watch = Watch(tmp_path, sshd.host)
    try:
        refused(watch, "host_key_unknown", "its host key is in none of", told)
        assert sshd.known_hosts.read_text(encoding="utf-8") == ""
        sshd.trust(sshd.host_key)
        watch.ends_as_if_read_whole()
    finally:
        watch.close()


def test_a_host_without_sftp_is_reported(tmp_path: Path, told: Callable[[], str]) -> None:
    with Sshd(tmp_path / "no_sftp", sftp=False) as server:
        watch = Watch(tmp_path, server.host)
        try:
            refused(watch, "sftp", "offers no SFTP", told)
        finally:
            watch.close()


def test_a_host_that_accepts_but_never_answers_times_out(tmp_path: Path, sshd: Sshd, told: Callable[[], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = replace(sshd.host, port=silent.getsockname()[1], connect_timeout_seconds=0.5)
        watch = Watch(tmp_path, host)
        try:
            wait_for(lambda: watch.source().up is False, "the source down")
            watch.local_is_live()
        finally:
            began = time.monotonic()
            watch.close()
            assert time.monotonic() - began < 10


def test_an_unreachable_host_does_not_delay_the_shutdown(tmp_path: Path, sshd: Sshd) -> None:
    """An address that never answers: connecting waits in steps that can be interrupted."""
    with socket.socket() as full:
        # A listener with a full queue drops packets, like a firewall.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        watch = Watch(tmp_path, replace(sshd.host, port=full.getsockname()[1], connect_timeout_seconds=60.0))
        watch.local_is_live()
        began = time.monotonic()
        watch.close()
        assert time.monotonic() - began < 10
        for filler in fillers:
            filler.close()


def test_time_in_which_a_host_is_down_does_not_count_as_a_stall(watch: Watch, relay: Relay) -> None:
    watch.write(0, cut_at(5))
    watch.shows(4)
    relay.cut()
    relay.refuse()
    watch.is_down()
    later = time.time() + 100_000
    [view] = [each for each in watch.store.snapshot(later).beams if each.key == REMOTE]
    [source] = [each for each in watch.store.snapshot(later).sources if each.name == "hpc1"]
    assert view.state is BeamState.UNREACHABLE
    assert source.last_poll_at is not None
    assert later - source.last_poll_at > 60, "the alert's condition asks for a source looked at within a minute"
    relay.resume()
    watch.ends_as_if_read_whole()
