"""Nothing that a caller passes to a monitor, or that its callback raises, leaves the monitor's thread."""

from __future__ import annotations

import errno
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import paramiko
import pytest

from exporter.embedding import BeamsTable, LocalLogTailer, ProgressMonitor, RemoteLogTailer
from tests.support import communicator_db as db
from tests.support.process import wait_for
from tests.support.replay import LOGS
from tests.support.sshd import Sshd

LOG = (LOGS / "v2_b3partial.log").read_bytes()
"""Three batches begin in it."""


class Logger:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Mapping[str, Any]]] = []

    def info(self, message: str, context: Mapping[str, Any]) -> None:
        self.said.append((message, context))

    warning = error = info

    def errors(self) -> list[str]:
        return [context["error"] for _, context in self.said]


class Thread(threading.Thread):
    """A thread that remembers what left it."""

    def __init__(self, target: Callable[..., object], *args: object, **given: object) -> None:
        super().__init__(daemon=True)
        self._work = functools.partial(target, *args, **given)
        self.left: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - that is what is asked
            self.left = error

    def ended(self) -> None:
        self.join(30)
        assert not self.is_alive()
        assert self.left is None


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_bytes(LOG)
    return path


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


def connected(sshd: Sshd, client: paramiko.SSHClient | None = None) -> paramiko.SSHClient:
    client = client or paramiko.SSHClient()
    client.load_host_keys(str(sshd.known_hosts))
    host = sshd.host
    client.connect(
        host.host, sshd.port, host.user, key_filename=str(host.key_file), allow_agent=False, look_for_keys=False
    )
    return client


class BadText(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error", [ValueError("no"), StopIteration(), MemoryError(), RecursionError(), OSError(5, "io"), BadText()]
)
def test_a_callback_that_raises_an_exception_is_logged_once_and_monitoring_goes_on(log: Path, error: Exception) -> None:
    seen: list[float] = []

    def callback(_: str, percent: float) -> None:
        seen.append(percent)
        raise error

    logger = Logger()
    monitor = ProgressMonitor("b", logger)
    thread = Thread(monitor.monitor_local, log, callback, timeout=0)
    thread.start()
    thread.ended()
    assert [round(percent) for percent in seen] == [33, 67, 100]
    assert monitor.callback_errors == 3
    [(message, about)] = logger.said
    assert message == "Progress callback failed"
    assert about["beam_id"] == "b"
    assert type(error).__name__ in about["error"]


def test_a_callback_that_fails_again_after_a_success_is_logged_again(log: Path) -> None:
    calls: list[float] = []

    def callback(_: str, percent: float) -> None:
        calls.append(percent)
        if len(calls) != 2:
            raise ValueError("no")

    logger = Logger()
    ProgressMonitor("b", logger).monitor_local(log, callback, timeout=0)
    assert len(logger.said) == 2


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_callback_that_wants_to_end_the_program_ends_the_monitor(log: Path, error: BaseException) -> None:
    seen: list[float] = []

    def callback(_: str, percent: float) -> None:
        seen.append(percent)
        raise error

    logger = Logger()
    thread = Thread(ProgressMonitor("b", logger).monitor_local, log, callback)
    thread.start()
    thread.ended()
    assert len(seen) == 1
    [about] = logger.errors()
    assert type(error).__name__ in about


def test_ctrl_c_in_the_main_thread_is_raised_on(log: Path) -> None:
    def callback(_: str, percent: float) -> None:
        raise KeyboardInterrupt

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        ProgressMonitor("b", Logger()).monitor_local(log, callback)


@pytest.mark.parametrize("beam_id", [7, None, b"b", ["b"], object()])
def test_a_beam_id_that_is_not_text_is_logged_and_given_to_the_callback(log: Path, beam_id: Any) -> None:
    seen: list[object] = []
    logger = Logger()
    ProgressMonitor(beam_id, logger).monitor_local(log, lambda given, _: seen.append(given), timeout=0)
    assert seen == [beam_id] * 3
    [about] = logger.errors()
    assert "pass the id as text" in about


@pytest.mark.parametrize("beam_id", [7, None, b"b", ["b"]])
def test_the_table_refuses_a_beam_id_that_is_not_text(tmp_path: Path, beam_id: Any) -> None:
    with pytest.raises(TypeError, match="beam_id must be text"):
        BeamsTable(str(db.make(tmp_path / "mqi.db"))).update_beam_progress(beam_id, 5.0)


def raising_path() -> os.PathLike[str]:
    class Raising(os.PathLike[str]):
        def __fspath__(self) -> str:
            raise RuntimeError("no path today")

    return Raising()


@pytest.mark.parametrize("path", [None, 7, "", "a\0b", b"a\0b", ["a"], raising_path()])
@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_log_path_that_is_none_ends_monitoring_with_what_to_pass(sshd: Sshd, path: Any, where: str) -> None:
    logger = Logger()
    monitor = ProgressMonitor("b", logger)
    if where == "local":
        thread = Thread(monitor.monitor_local, path, print)
    else:
        thread = Thread(monitor.monitor_remote, paramiko.SSHClient(), path, print)
    thread.start()
    thread.ended()
    [(message, about)] = logger.said
    assert message == "Monitoring has ended"
    assert "pass the log's path as text or as a pathlib.Path" in about["error"]
    assert monitor.wait_for_first_poll(0)
    with pytest.raises(ValueError, match="pass the log's path"):
        LocalLogTailer(path)


@pytest.mark.parametrize("spelling", [str, os.fsencode, Path])
def test_a_log_path_may_be_text_bytes_or_a_path(log: Path, spelling: Callable[[Path], Any]) -> None:
    seen: list[float] = []
    ProgressMonitor("b", Logger()).monitor_local(spelling(log), lambda _, percent: seen.append(percent), timeout=0)
    assert len(seen) == 3


@pytest.mark.parametrize("kind", ["folder", "fifo", "too long", "missing"])
def test_a_log_that_cannot_be_followed_is_logged_once_and_tried_again(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a" * 300 if kind == "too long" else "log")
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    logger = Logger()
    tailer = LocalLogTailer(path, logger, poll_interval=0.01)
    assert list(tailer.tail(0.2)) == []
    assert [message for message, _ in logger.said] == ["Log cannot be followed"]


def test_a_log_that_becomes_readable_is_followed_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.mkdir()
    logger = Logger()
    seen: list[float] = []
    monitor = ProgressMonitor("b", logger)
    thread = Thread(monitor.monitor_local, path, lambda _, percent: seen.append(percent))
    thread.start()
    wait_for(lambda: logger.said != [], "the warning")
    path.rmdir()
    path.write_bytes(LOG)
    wait_for(lambda: len(seen) == 3, "three batches")
    monitor.stop()
    thread.ended()


def test_a_log_without_read_permission_is_logged_with_what_to_do(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def refused(path: Any, *rest: Any, **given: Any) -> int:
        if path == str(log):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return really_open(path, *rest, **given)

    monkeypatch.setattr(os, "open", refused)  # root may read everything
    logger = Logger()
    tailer = LocalLogTailer(log, logger, poll_interval=0.01)
    assert list(tailer.tail(0.1)) == []
    [about] = logger.errors()
    assert "give the exporter's user read access" in about


@pytest.mark.parametrize("client", [None, "host", object()])
def test_what_is_no_ssh_client_ends_monitoring_with_what_to_pass(client: Any) -> None:
    logger = Logger()
    thread = Thread(ProgressMonitor("b", logger).monitor_remote, client, "/a.log", print)
    thread.start()
    thread.ended()
    [about] = logger.errors()
    assert "pass a connected paramiko.SSHClient" in about
    with pytest.raises(ValueError, match=r"pass a connected paramiko\.SSHClient"):
        RemoteLogTailer(client, "/a.log")


def test_an_ssh_client_that_is_not_connected_is_logged_and_followed_when_it_is(sshd: Sshd, log: Path) -> None:
    client = paramiko.SSHClient()
    logger = Logger()
    seen: list[float] = []
    monitor = ProgressMonitor("b", logger)
    thread = Thread(monitor.monitor_remote, client, log, lambda _, percent: seen.append(percent))
    thread.start()
    wait_for(lambda: logger.said != [], "the warning")
    assert "the client is not connected" in logger.errors()[0]
    connected(sshd, client)
    wait_for(lambda: len(seen) == 3, "three batches")
    monitor.stop()
    thread.ended()
    client.close()


def test_a_connection_that_drops_in_the_middle_is_logged_and_goes_on_when_the_client_is_connected_again(
    sshd: Sshd, tmp_path: Path
) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(LOG[: LOG.index(b"Generating particles for (2 of")])
    client = connected(sshd)
    logger = Logger()
    seen: list[float] = []
    monitor = ProgressMonitor("b", logger)
    thread = Thread(monitor.monitor_remote, client, str(log), lambda _, percent: seen.append(percent))
    thread.start()
    wait_for(lambda: len(seen) == 1, "the first batch")
    client.close()
    log.write_bytes(LOG)
    wait_for(lambda: logger.said != [], "the warning")
    connected(sshd, client)
    wait_for(lambda: len(seen) == 3, "the other batches")
    monitor.stop()
    thread.ended()
    client.close()
    assert {message for message, _ in logger.said} == {"Log cannot be followed"}


def test_a_client_that_raises_anything_is_logged_and_tried_again(log: Path) -> None:
    class Client:
        calls = 0

        def get_transport(self) -> None:
            self.calls += 1
            raise ZeroDivisionError("no transport")

    client: Any = Client()
    logger = Logger()
    tailer = RemoteLogTailer(client, str(log), logger, poll_interval=0.01)
    assert list(tailer.tail(0.3)) == []
    assert client.calls > 2
    assert "ZeroDivisionError" in logger.errors()[0]
    assert len(logger.said) <= 2


@pytest.mark.parametrize("timeout", [0, -1, -0.5, "0", float("-inf")])
def test_a_timeout_of_zero_or_less_is_one_poll(log: Path, timeout: Any) -> None:
    seen: list[float] = []
    logger = Logger()
    ProgressMonitor("b", logger).monitor_local(log, lambda _, percent: seen.append(percent), timeout=timeout)
    assert len(seen) == 3
    assert logger.said == []


@pytest.mark.parametrize("timeout", [float("nan"), "soon", [], True, object()])
def test_a_timeout_that_is_no_number_is_logged_and_there_is_no_limit(log: Path, timeout: Any) -> None:
    seen: list[float] = []
    logger = Logger()
    monitor = ProgressMonitor("b", logger)
    thread = Thread(monitor.monitor_local, log, lambda _, percent: seen.append(percent), timeout)
    thread.start()
    wait_for(lambda: len(seen) == 3, "three batches")
    assert thread.is_alive()
    monitor.stop()
    thread.ended()
    [about] = logger.errors()
    assert "pass a number of seconds, or None for no limit" in about


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, "3600", None])
def test_a_long_timeout_is_no_trouble(log: Path, timeout: Any) -> None:
    logger = Logger()
    monitor = ProgressMonitor("b", logger)
    monitor.finish()
    thread = Thread(monitor.monitor_local, log, lambda *_: None, timeout)
    thread.start()
    thread.ended()
    assert logger.said == []


@pytest.mark.parametrize("callback", [None, 7, "print"])
def test_what_is_no_callback_ends_monitoring_with_what_to_pass(log: Path, callback: Any) -> None:
    logger = Logger()
    thread = Thread(ProgressMonitor("b", logger).monitor_local, log, callback)
    thread.start()
    thread.ended()
    [about] = logger.errors()
    assert "pass a function" in about


class Raising:
    def info(self, *_: object) -> None:
        raise OSError("disk full")

    warning = error = info


class MessageOnly:
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, message: str) -> None:
        self.said.append(message)

    warning = error = info


@pytest.mark.parametrize("logger", [Raising(), object(), 7, "logger"], ids=lambda one: type(one).__name__)
def test_a_logger_that_cannot_be_used_is_replaced_by_the_standard_one(
    log: Path, logger: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def callback(*_: object) -> None:
        raise ValueError("the database said no")

    thread = Thread(ProgressMonitor("b", logger).monitor_local, log, callback, timeout=0)
    thread.start()
    thread.ended()
    texts = [record.getMessage() for record in caplog.records if record.name == "exporter.embedding"]
    assert len([text for text in texts if "The given logger cannot be used" in text]) == 1
    assert len([text for text in texts if "the database said no" in text]) == 1


def test_a_logger_that_takes_a_message_only_gets_all_in_one(log: Path) -> None:
    logger: Any = MessageOnly()
    ProgressMonitor("b", logger).monitor_local(log, None, timeout=0)  # type: ignore[arg-type]
    [text] = logger.said
    assert "Monitoring has ended" in text
    assert "beam_id=b" in text


@pytest.mark.parametrize("logger", [None, logging.getLogger("theirs")])
def test_without_a_logger_and_with_a_standard_one_nothing_is_lost(
    log: Path, logger: logging.Logger | None, caplog: pytest.LogCaptureFixture
) -> None:
    ProgressMonitor("b", logger).monitor_local(log, None, timeout=0)  # type: ignore[arg-type]
    [record] = caplog.records
    assert record.name == ("theirs" if logger else "exporter.embedding")
    assert record.levelname == "ERROR"
    assert "pass a function" in record.getMessage()


def test_stop_before_the_start_and_twice_ends_it_at_once(log: Path) -> None:
    seen: list[float] = []
    monitor = ProgressMonitor("b", Logger())
    monitor.stop()
    monitor.stop()
    monitor.monitor_local(log, lambda _, percent: seen.append(percent))
    assert seen == []
    monitor.stop()


def test_stop_from_the_callback_ends_it_after_that_batch(log: Path) -> None:
    seen: list[float] = []
    monitor = ProgressMonitor("b", Logger())

    def callback(_: str, percent: float) -> None:
        seen.append(percent)
        monitor.stop()

    monitor.monitor_local(log, callback)
    assert len(seen) == 1


def test_finish_reports_what_was_written_before_it_and_ends(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    seen: list[float] = []
    monitor = ProgressMonitor("b", Logger())
    thread = Thread(monitor.monitor_local, log, lambda _, percent: seen.append(percent))
    thread.start()
    assert monitor.wait_for_first_poll(30)
    log.write_bytes(LOG)
    monitor.finish()
    thread.ended()
    assert [round(percent) for percent in seen] == [33, 67, 100]


@pytest.mark.parametrize("rewritten", ["truncated", "replaced", "appended to"])
def test_with_skip_existing_only_what_is_written_after_the_first_poll_is_reported(log: Path, rewritten: str) -> None:
    seen: list[float] = []
    monitor = ProgressMonitor("b", Logger(), skip_existing=True)
    thread = Thread(monitor.monitor_local, log, lambda _, percent: seen.append(percent))
    thread.start()
    assert monitor.wait_for_first_poll(30)
    new = (LOGS / "v2_b2.log").read_bytes()
    if rewritten == "truncated":
        log.write_bytes(new)
    elif rewritten == "replaced":
        log.unlink()
        log.write_bytes(new)
    else:
        with log.open("ab") as file:
            file.write(new)
    monitor.finish()
    thread.ended()
    assert [round(percent) for percent in seen] == [50, 100]


def test_lines_that_end_with_a_carriage_return_are_lines(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"one\rtwo\r\nthree\nfour\r")
    lines: list[str] = []
    tailer = LocalLogTailer(log, Logger(), poll_interval=0.01)
    for line in tailer.tail(30):
        lines.append(line)
        if line == "four":
            with log.open("ab") as file:
                file.write(b"\nfive\n")
        if line == "five":
            tailer.stop()
    assert lines == ["one", "two", "three", "four", "five"]


def test_fifty_monitors_at_once_end_and_leave_no_thread_and_no_open_file(tmp_path: Path) -> None:
    threads_before = threading.active_count()
    files_before = len(os.listdir("/proc/self/fd"))
    seen: dict[str, list[float]] = {}
    monitors = []
    for number in range(50):
        log = tmp_path / f"{number}.log"
        log.write_bytes(LOG)
        monitor = ProgressMonitor(str(number), Logger())

        def callback(beam_id: str, percent: float) -> None:
            seen.setdefault(beam_id, []).append(percent)
            if beam_id == "7":
                raise ValueError("only this one")

        thread = Thread(monitor.monitor_local, log, callback)
        thread.start()
        monitors.append((monitor, thread))
    wait_for(lambda: sum(map(len, seen.values())) == 150, "three batches of each")
    for monitor, _ in monitors:
        monitor.finish()
    for _, thread in monitors:
        thread.ended()
    assert threading.active_count() == threads_before
    assert len(os.listdir("/proc/self/fd")) == files_before


def test_a_monitor_gives_its_session_back_so_that_more_than_ten_in_turn_can_use_one_client(
    sshd: Sshd, log: Path
) -> None:
    """OpenSSH allows ten sessions in one connection."""
    client = connected(sshd)
    logger = Logger()
    kept: list[object] = []
    seen: list[float] = []
    for _ in range(12):
        seen.clear()
        monitor = ProgressMonitor("b", logger)
        kept.append(monitor)
        tailer = RemoteLogTailer(client, str(log), logger)
        kept.append(tailer)
        monitor.monitor_remote(client, str(log), lambda _, percent: seen.append(percent), timeout=0)
        assert len(seen) == 3
        assert len(list(tailer.tail(0))) == LOG.count(b"\n")
    assert logger.said == []
    client.close()
