"""What every source of logs must answer, asked of the local file system and of a real SSH host alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, LogSource, LogStat, ReadRequest
from exporter.sources.ssh.source import SshLogSource
from exporter.sources.tailer import Tailer
from tests.support.sshd import Sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
def source(request: pytest.FixtureRequest) -> Iterator[LogSource]:
    if request.param == "local":
        source: LogSource = LocalLogSource("here")
    else:
        source = SshLogSource("there", request.getfixturevalue("sshd").host)
    assert source.kind == request.param
    yield source
    source.close()


def looked_at(source: LogSource, path: Path | str) -> LogStat | LogProblem | None:
    return source.stat([str(path)]).get(str(path))


def read(source: LogSource, path: Path | str, offset: int = 0, length: int = 1 << 20) -> bytes | LogProblem:
    [answer] = source.read([ReadRequest(str(path), offset, length)])
    return answer


def kind(answer: object) -> str:
    assert isinstance(answer, LogProblem), answer
    return answer.kind


class Follower:
    """A log followed as the monitor does."""

    def __init__(self, source: LogSource, path: Path) -> None:
        self.source = source
        self.path = path
        self.tailer = Tailer(str(path))
        self.replacements = 0
        self.clock = 1_000_000_000

    def write(self, data: bytes, mode: str = "ab") -> None:
        """Write, a second later than before: a host tells no finer times."""
        with self.path.open(mode) as file:
            file.write(data)
        self.clock += 1
        os.utime(self.path, (self.clock, self.clock))

    def look(self) -> bytes:
        new, more = b"", True
        stat = looked_at(self.source, self.path)
        if not isinstance(stat, LogStat) or not self.tailer.changed(stat):
            return new
        while more:
            data = self.source.read([self.tailer.request(stat)])[0]
            assert isinstance(data, bytes)
            chunk = self.tailer.receive(data)
            if chunk is None:
                continue
            self.replacements += chunk.replaced
            new = chunk.data if chunk.replaced else new + chunk.data
            more = chunk.more
        return new


def test_stat_returns_size_and_time(source: LogSource, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"12345")
    os.utime(log, (1_000_000_000, 1_000_000_000))
    stat = looked_at(source, log)
    assert isinstance(stat, LogStat)
    assert (stat.size_bytes, stat.modified_at) == (5, 1_000_000_000.0)


def test_stat_returns_many_logs_in_many_folders(source: LogSource, tmp_path: Path) -> None:
    paths = []
    for number in range(30):
        folder = tmp_path / f"folder {number % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.log").write_bytes(b"x" * number)
        paths.append(str(folder / f"{number}.log"))
    answers = source.stat([*paths, str(tmp_path / "none.log"), str(tmp_path / "nowhere" / "none.log")])
    assert list(answers) == paths or set(answers) == set(paths)
    assert [answers[path].size_bytes for path in paths] == list(range(30))  # type: ignore[union-attr]


def test_missing_folders_are_those_that_do_not_exist_or_are_files(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "a file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    there = {str(tmp_path / name) for name in ("logs", "link")}
    missing = {str(tmp_path / name) for name in ("로그", "a file", "a file/logs", "logs/none/deeper", "dangling")}
    assert source.missing_folders([*sorted(there), *sorted(missing)]) == missing
    (tmp_path / "로그").mkdir()
    assert str(tmp_path / "로그") not in source.missing_folders(sorted(missing))


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 3, b"012"), (7, 9, b"789"), (10, 5, b""), (99, 5, b"")])
def test_read_returns_any_range_of_bytes(
    source: LogSource, tmp_path: Path, offset: int, length: int, expected: bytes
) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"0123456789")
    assert read(source, log, offset, length) == expected


def test_read_returns_a_megabyte(source: LogSource, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    data = os.urandom(300_000)
    log.write_bytes(data)
    assert read(source, log) == data
    assert read(source, log, 123_456, 100_000) == data[123_456:223_456]


def test_several_logs_are_read_in_order_and_a_missing_one_affects_no_other(source: LogSource, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    requests = [ReadRequest(str(tmp_path / name), 0, 10) for name in ("b", "gone", "a")]
    first, gone, last = source.read(requests)
    assert (first, last) == (b"b", b"a")
    assert kind(gone) == "io"


@pytest.mark.parametrize("name", ["빔 1 (G90).log", "a\nb.log", "0010.1.2", b"\xff\xfe.log", "-rf", "~", "$HOME"])
def test_names_may_hold_any_bytes(source: LogSource, tmp_path: Path, name: str | bytes) -> None:
    path = os.path.join(tmp_path, os.fsdecode(name))
    Path(path).write_bytes(b"x")
    assert isinstance(looked_at(source, path), LogStat)
    assert read(source, path) == b"x"


def test_an_empty_log_has_size_0_and_no_bytes(source: LogSource, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"")
    assert isinstance(looked_at(source, log), LogStat)
    assert read(source, log) == b""


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_anything_but_a_regular_file_is_a_problem_and_never_blocks(
    source: LogSource, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.log")
    (tmp_path / "good.log").write_bytes(b"x")
    answers = source.stat([str(tmp_path / "a.log"), str(tmp_path / "good.log")])
    assert kind(answers[str(tmp_path / "a.log")]) == "not_a_file"
    assert isinstance(answers[str(tmp_path / "good.log")], LogStat)


def test_links_to_logs_are_followed_and_broken_links_are_missing(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("log")
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to_folder").symlink_to("folder")
    stat = looked_at(source, tmp_path / "link")
    assert isinstance(stat, LogStat)
    assert stat.size_bytes == 3
    assert looked_at(source, tmp_path / "dangling") is None
    assert kind(looked_at(source, tmp_path / "to_folder")) == "not_a_file"


def test_a_listing_has_all_logs_of_a_folder(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"abc")
    (tmp_path / "link.log").symlink_to("a.log")
    (tmp_path / "dangling.log").symlink_to("none")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo.log")
    listing = source.listing(str(tmp_path))
    assert {name: stat.size_bytes for name, stat in listing.items()} == {"a.log": 3, "link.log": 3}
    assert source.listing(str(tmp_path / "none")) == {}


def test_a_folder_of_hundreds_of_logs_is_listed(source: LogSource, tmp_path: Path) -> None:
    for number in range(350):
        (tmp_path / f"{number}.log").write_bytes(b"x")
    for _ in range(2):
        assert len(source.listing(str(tmp_path))) == 350


class TestFollowing:
    @pytest.fixture
    def log(self, source: LogSource, tmp_path: Path) -> Follower:
        return Follower(source, tmp_path / "a.log")

    def test_growth_in_the_middle_of_lines_is_read(self, log: Follower) -> None:
        log.write(b"one\ntw")
        assert log.look() == b"one\ntw"
        assert log.look() == b""
        log.write(b"o\n")
        assert log.look() == b"o\n"

    def test_a_truncated_log_is_read_from_its_beginning(self, log: Follower) -> None:
        log.write(b"first run\n" * 100)
        log.look()
        log.write(b"second\n", "wb")
        assert log.look() == b"second\n"
        assert log.replacements == 1

    def test_a_longer_file_in_the_place_of_a_log_is_detected(self, log: Follower) -> None:
        log.write(b"first run\n" * 10)
        log.look()
        log.write(b"another run\n" * 50, "wb")
        assert log.look() == b"another run\n" * 50
        assert log.replacements == 1

    def test_a_file_of_the_same_size_in_the_place_of_a_log_is_detected(self, log: Follower) -> None:
        log.write(b"a" * 1000)
        log.look()
        log.write(b"b" * 1000, "wb")
        assert log.look() == b"b" * 1000

    def test_a_deleted_log_that_returns_is_read(self, log: Follower) -> None:
        log.write(b"first run\n" * 10)
        log.look()
        log.path.unlink()
        assert log.look() == b""
        log.write(b"first run\n" * 10 + b"more\n")
        assert log.look() == b"more\n"
        assert log.replacements == 0
        log.path.unlink()
        log.look()
        log.write(b"second run\n" * 30)
        assert log.look() == b"second run\n" * 30
        assert log.replacements == 1


def test_known_logs_are_returned_only_if_they_have_changed(source: LogSource, tmp_path: Path) -> None:
    names = ("same", "grown", "older", "gone", "folder", "asked")
    logs = {name: tmp_path / name for name in names}
    for log in logs.values():
        log.write_bytes(b"one\n")
    paths = {name: str(log) for name, log in logs.items()}
    stats = source.stat(paths.values())
    known = {path: stat for path, stat in stats.items() if isinstance(stat, LogStat) and path != paths["asked"]}
    assert len(known) == len(names) - 1
    assert source.stat([], known) == {}
    with logs["grown"].open("ab") as file:
        file.write(b"two\n")
    os.utime(logs["older"], (1_000_000_000, 1_000_000_000))
    logs["gone"].unlink()
    logs["folder"].unlink()
    logs["folder"].mkdir()
    told = source.stat([paths["asked"]], known)
    now = source.stat(paths.values())
    assert told.keys() == {paths[name] for name in names if name != "same"}
    assert told[paths["gone"]] is None
    assert kind(told[paths["folder"]]) == "not_a_file"
    for name in ("grown", "older", "asked"):
        assert told[paths[name]] == now[paths[name]]
    assert now[paths["asked"]] == stats[paths["asked"]]
