from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, LogStat, ReadRequest
from tests.support.files import open_the_way_to, unprivileged

SOURCE = LocalLogSource("local")


def looked_at(path: Path | str) -> LogStat | LogProblem | None:
    return SOURCE.stat([str(path)]).get(str(path))


def read(path: Path | str, offset: int = 0, length: int = 100) -> bytes | LogProblem:
    [answer] = SOURCE.read([ReadRequest(str(path), offset, length)])
    return answer


def kind(answer: object) -> str:
    assert isinstance(answer, LogProblem)
    return answer.kind


def test_a_log_has_size_time_and_identity(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"12345")
    os.utime(log, (1000.5, 1000.5))
    status = log.stat()
    assert looked_at(log) == LogStat(5, 1000.5, (status.st_dev, status.st_ino))


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 3, b"012"), (7, 9, b"789"), (10, 5, b""), (99, 5, b"")])
def test_bytes_are_read_from_an_offset(tmp_path: Path, offset: int, length: int, expected: bytes) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"0123456789")
    assert read(log, offset, length) == expected


@pytest.mark.parametrize("name", ["none.log", "file/none.log", "dangling"])
def test_a_missing_log_is_not_in_the_answer(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert looked_at(tmp_path / name) is None


@pytest.mark.parametrize("name", ["빔 1 (G90).log", "a\nb.log", "0010.1.2", b"\xff\xfe.log"])
def test_names_may_hold_any_bytes(tmp_path: Path, name: str | bytes) -> None:
    path = os.path.join(tmp_path, os.fsdecode(name))
    Path(path).write_bytes(b"x")
    assert isinstance(looked_at(path), LogStat)
    assert read(path) == b"x"


def test_a_folder_is_not_a_log(tmp_path: Path) -> None:
    assert kind(looked_at(tmp_path)) == "not_a_file"
    assert kind(read(tmp_path)) == "not_a_file"


def test_a_fifo_is_not_a_log_and_never_blocks(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.log"
    os.mkfifo(fifo)
    assert kind(looked_at(fifo)) == "not_a_file"
    assert kind(read(fifo)) == "not_a_file"
    writer = os.open(fifo, os.O_RDWR)
    try:
        os.write(writer, b"text")
        assert kind(read(fifo)) == "not_a_file"
    finally:
        os.close(writer)


def test_a_device_is_not_a_log() -> None:
    assert kind(looked_at("/dev/zero")) == "not_a_file"
    assert kind(read("/dev/zero")) == "not_a_file"


def test_a_socket_is_not_a_log(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert kind(looked_at(path)) == "not_a_file"
        assert kind(read(path)) == "not_a_file"


def test_a_log_in_a_folder_without_search_permission_is_a_problem_and_not_missing(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    open_the_way_to(tmp_path)
    folder.chmod(0o000)
    try:
        with unprivileged():
            answers = (looked_at(folder / "a.log"), read(folder / "a.log"))
            with pytest.raises(LogProblem, match="search access") as refused:
                SOURCE.listing(str(folder))
    finally:
        folder.chmod(0o755)
    assert [kind(answer) for answer in answers] == ["permission", "permission"]
    assert refused.value.kind == "permission"


def test_a_log_without_read_permission_is_reported_with_advice(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    log = tmp_path / "secret.log"
    log.write_bytes(b"x")
    log.chmod(0o000)
    open_the_way_to(tmp_path)
    with unprivileged():
        answer = read(log)
    assert kind(answer) == "permission"
    assert str(log) in str(answer)
    assert "read access" in str(answer)


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 300, "/tmp/a\0b"])
def test_an_impossible_path_is_a_problem_of_that_log_only(tmp_path: Path, path: str) -> None:
    good = tmp_path / "good.log"
    good.write_bytes(b"x")
    answers = SOURCE.stat([path, str(good)])
    assert kind(answers[path]) == "path"
    assert isinstance(answers[str(good)], LogStat)
    assert kind(read(path)) == "path"


def test_links_are_followed_and_loops_are_problems(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("log")
    (tmp_path / "loop").symlink_to("loop")
    assert read(tmp_path / "link") == b"abc"
    assert kind(looked_at(tmp_path / "loop")) == "path"
    assert kind(read(tmp_path / "loop")) == "path"


def test_a_log_deleted_between_stat_and_read_is_a_problem_of_that_log(tmp_path: Path) -> None:
    for name in ("gone.log", "good.log"):
        (tmp_path / name).write_bytes(b"x")
    paths = [str(tmp_path / name) for name in ("gone.log", "good.log")]
    assert all(isinstance(answer, LogStat) for answer in SOURCE.stat(paths).values())
    (tmp_path / "gone.log").unlink()
    gone, good = SOURCE.read([ReadRequest(path, 0, 10) for path in paths])
    assert kind(gone) == "io"
    assert good == b"x"


def test_a_log_that_became_a_fifo_after_the_stat_does_not_block(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x")
    assert isinstance(looked_at(log), LogStat)
    log.unlink()
    os.mkfifo(log)
    assert kind(read(log)) == "not_a_file"


def test_no_file_stays_open(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x")
    before = os.listdir("/proc/self/fd")
    for path in (log, tmp_path, "/dev/zero", tmp_path / "none.log"):
        read(path)
    SOURCE.listing(str(tmp_path))
    assert os.listdir("/proc/self/fd") == before


def test_a_listing_has_the_regular_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"abc")
    (tmp_path / "link.log").symlink_to("a.log")
    (tmp_path / "dangling.log").symlink_to("none")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.log")
    listing = SOURCE.listing(str(tmp_path))
    assert {name: stat.size_bytes for name, stat in listing.items()} == {"a.log": 3, "link.log": 3}


def test_broken_links_hide_no_other_log_of_their_folder(tmp_path: Path) -> None:
    logs, closed = tmp_path / "logs", tmp_path / "closed"
    logs.mkdir()
    closed.mkdir()
    (logs / "a.log").write_bytes(b"abc")
    (logs / "loop.log").symlink_to("loop.log")
    (logs / "closed.log").symlink_to(closed / "b.log")
    open_the_way_to(logs)
    closed.chmod(0o000)
    try:
        with unprivileged():
            listing = SOURCE.listing(str(logs))
    finally:
        closed.chmod(0o755)
    assert list(listing) == ["a.log"]


def test_a_missing_folder_and_a_file_have_no_listing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert SOURCE.listing(str(tmp_path / "none")) == {}
    assert SOURCE.listing(str(tmp_path / "file")) == {}


@pytest.mark.parametrize("bounded", [False, True])
def test_an_idle_log_takes_one_system_call_per_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounded: bool
) -> None:
    calls: list[str] = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            return call(*arguments, **named)

        return counted

    for name in ("stat", "open", "fstat", "pread", "close", "lstat", "readlink"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    log = tmp_path / "a.log"
    log.write_bytes(b"one\n")
    source, path = LocalLogSource("local", [str(tmp_path)] if bounded else None), str(log)
    first = source.stat([path])[path]
    assert isinstance(first, LogStat)
    calls.clear()
    assert source.stat([path])[path] == first
    assert calls == ["stat"]
    calls.clear()
    assert source.stat([], {path: first}) == {}
    assert calls == ["stat"]
    with log.open("ab") as file:
        file.write(b"two\n")
    calls.clear()
    assert source.stat([path])[path] != first
    assert calls == ["stat"]
    calls.clear()
    assert source.stat([], {path: first}) == source.stat([path])
    assert calls == ["stat", "stat"]
    source.read([ReadRequest(path, 0, 1)])
    calls.clear()
    assert source.read([ReadRequest(path, 4, 100)]) == [b"two\n"]
    assert calls == ["open", "fstat", *(["readlink"] if bounded else []), "pread", "close"]


def test_only_the_last_logs_are_remembered_and_one_in_use_is_never_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LocalLogSource("local", [str(tmp_path)])
    found_anew: list[str] = []
    is_astray = source._is_outside_folders

    def counting(descriptor: int) -> bool:
        found_anew.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return is_astray(descriptor)

    monkeypatch.setattr(source, "_is_outside_folders", counting)
    stays = tmp_path / "stays"
    stays.touch()
    for number in range(5000):
        log = tmp_path / f"{number}"
        log.touch()
        assert len(source.stat([str(stays), str(log)])) == 2
        log.unlink()
    assert found_anew.count(str(stays)) == 1
    assert len(found_anew) == 5001
    assert len(source._identities) + len(source._identities_before) < 2100
