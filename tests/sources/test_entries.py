"""Reading folder entries one by one, on the local file system and on a real SSH host."""

from __future__ import annotations

import errno
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sources import local
from exporter.sources.local import LocalLogSource
from exporter.sources.source import FolderEntry, LogProblem, LogSource
from exporter.sources.ssh import sftp_entries, sftp_logs
from exporter.sources.ssh.source import SshLogSource
from tests.support.sshd import Sshd

ANY = re.compile("(?s:.*)")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
def source(request: pytest.FixtureRequest) -> Iterator[LogSource]:
    source: LogSource
    source = (
        LocalLogSource("here") if request.param == "local" else SshLogSource("x", request.getfixturevalue("sshd").host)
    )
    yield source
    source.close()


def entries(
    source: LogSource, folder: Path, names: str | re.Pattern[str] = ANY, within: Path | None = None
) -> dict[str, int | None]:
    """Sizes of files by name; ``None`` for a folder."""
    found: dict[str, int | None] = {}

    def visit(entry: FolderEntry) -> bool:
        found[entry.name] = None if entry.stat is None else entry.stat.size_bytes
        return False

    source.entries(str(folder), names, visit, None if within is None else [str(within)])
    return found


def test_files_and_folders_are_distinguished_and_other_entries_skipped(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"123")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    assert entries(source, tmp_path) == {"a.dcm": 3, "folder": None}
    assert entries(source, tmp_path, re.compile(r".*\.dcm")) == {"a.dcm": 3}


def test_a_single_name_is_looked_up_without_listing_the_folder(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "a*b[1].dcm").write_bytes(b"123")
    (tmp_path / "aXb1.dcm").write_bytes(b"1")
    assert entries(source, tmp_path, "a*b[1].dcm") == {"a*b[1].dcm": 3}
    assert entries(source, tmp_path, "none") == {}


def test_a_folder_that_does_not_exist_has_no_entries(source: LogSource, tmp_path: Path) -> None:
    assert entries(source, tmp_path / "none", within=tmp_path) == {}
    assert entries(source, tmp_path / "none" / "deeper", "x", within=tmp_path / "none") == {}


def test_size_and_modification_time_are_those_of_the_file(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    os.utime(tmp_path / "a", (1_000_000_000, 1_000_000_000))
    found: list[FolderEntry] = []

    def visit(entry: FolderEntry) -> bool:
        found.append(entry)
        return False

    source.entries(str(tmp_path), ANY, visit, [str(tmp_path)])
    [entry] = found
    assert entry.stat is not None
    assert (entry.stat.size_bytes, entry.stat.modified_at) == (5, 1_000_000_000.0)


def test_links_are_followed_inside_the_folder_and_skipped_if_they_lead_outside(
    source: LogSource, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside2"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "dose").write_bytes(b"12345")
    (inside / "good").symlink_to("dose")
    (inside / "bad").symlink_to(outside / "dose")
    (inside / "bad_folder").symlink_to(outside)
    (inside / "nowhere").symlink_to("none")
    (inside / "circle").symlink_to("circle")
    assert entries(source, inside, within=inside) == {"dose": 5, "good": 5}
    for name in ("bad", "bad_folder", "nowhere", "circle"):
        assert entries(source, inside, name, within=inside) == {}, name
    assert entries(source, inside, "bad", within=None) == {"bad": 5}, "unless they may lead anywhere"


@pytest.mark.parametrize("names", [ANY, "dose"])
def test_a_folder_that_is_a_link_to_outside_is_a_problem(
    source: LogSource, tmp_path: Path, names: str | re.Pattern[str]
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "dose").write_bytes(b"1")
    (tmp_path / "inside" / "case").symlink_to(tmp_path / "outside")
    with pytest.raises(LogProblem) as caught:
        entries(source, tmp_path / "inside" / "case", names, within=tmp_path / "inside")
    assert caught.value.kind == "link"


def test_the_configured_folder_may_be_a_link(source: LogSource, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "dose").write_bytes(b"12")
    (tmp_path / "link").symlink_to("real")
    assert entries(source, tmp_path / "link", within=tmp_path / "link") == {"dose": 2}


def test_a_visitor_that_has_enough_gets_no_more_entries(source: LogSource, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").touch()
    seen: list[str] = []

    def visit(entry: FolderEntry) -> bool:
        seen.append(entry.name)
        return len(seen) == 3

    source.entries(str(tmp_path), ANY, visit, None)
    assert len(seen) == 3
    assert len(entries(source, tmp_path)) == 20, "and the source can be asked again"


def test_names_that_are_not_utf_8_are_returned(source: LogSource, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.dcm")).write_bytes(b"1")
    assert list(entries(source, tmp_path, re.compile(r"(?s:.*)\.dcm")).values()) == [1]


def test_a_folder_with_too_many_entries_is_a_problem_with_advice(
    source: LogSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (local, sftp_logs):
        monkeypatch.setattr(module, "ENTRIES_LIMIT", 30)
    for number in range(40):
        (tmp_path / f"{number}").touch()
    with pytest.raises(LogProblem) as caught:
        entries(source, tmp_path, re.compile("none"))
    assert caught.value.kind == "too_many"
    assert caught.value.advice
    assert entries(source, tmp_path, "7") == {"7": 0}, "one name is found all the same"


def test_a_huge_folder_is_read_in_little_memory(source: LogSource, tmp_path: Path) -> None:
    for number in range(20_000):
        os.close(os.open(tmp_path / f"a dose file with a long name {number:06}.raw", os.O_CREAT | os.O_WRONLY))
    before = source.round_trips
    tracemalloc.start()
    found = entries(source, tmp_path, re.compile(r".* 0199\d\d\.raw"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 100
    assert peak < 5_000_000, "nothing is kept of what does not match"
    assert source.round_trips - before < 30


def test_the_number_of_requests_for_matching_links_on_a_host_is_limited(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp_entries, "_REQUESTS_PER_FOLDER", 10)
    (tmp_path / "dose").touch()
    for number in range(20):
        (tmp_path / f"link {number}").symlink_to("dose")
    source = SshLogSource("there", sshd.host)
    with pytest.raises(LogProblem) as caught:
        entries(source, tmp_path)
    assert caught.value.kind == "too_many"
    source.close()


def test_a_folder_without_read_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root, who may run the tests, may list every folder
    with pytest.raises(LogProblem) as caught:
        entries(LocalLogSource("here"), tmp_path)
    assert caught.value.kind == "permission"
