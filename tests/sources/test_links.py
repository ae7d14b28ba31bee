"""Where symbolic links may lead: asked of the local file system and of a real SSH host alike."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config import settings_from
from exporter.runtime.pipeline import make_source
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, LogSource, LogStat, ReadRequest
from exporter.sources.ssh.source import SshLogSource
from tests.support.sshd import Sshd

Open = Callable[[Collection[str] | None], LogSource]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host") / "sshd") as server:
        yield server


@pytest.fixture(params=["local", "ssh"])
def open_source(request: pytest.FixtureRequest) -> Iterator[Open]:
    opened: list[LogSource] = []

    def make(folders: Collection[str] | None) -> LogSource:
        source: LogSource
        if request.param == "local":
            source = LocalLogSource("here", folders)
        else:
            source = SshLogSource("there", request.getfixturevalue("sshd").host, folders)
        opened.append(source)
        return source

    yield make
    for source in opened:
        source.close()


class Site:
    """A folder of logs and a file beside it that is none of the exporter's business."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.outside = folder / "outside"
        for each in (self.logs, self.outside):
            each.mkdir()
        (self.logs / "a.log").write_bytes(b"a log")
        self.secret = self.outside / "secret"
        self.secret.write_bytes(b"not to be read")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def source(open_source: Open, site: Site) -> LogSource:
    return open_source([str(site.logs)])


def look(source: LogSource, path: Path) -> LogStat | LogProblem | None:
    return source.stat([str(path)]).get(str(path))


def size(source: LogSource, path: Path) -> int:
    found = look(source, path)
    assert isinstance(found, LogStat), found
    return found.size_bytes


def refused(source: LogSource, path: Path) -> str:
    found = look(source, path)
    assert isinstance(found, LogProblem), found
    assert found.kind == "link"
    return str(found)


def link(at: Path, target: Path | str, made_at: int = 1_000_000_000) -> Path:
    """Make a link, or make it anew; a host tells its age in whole seconds."""
    at.unlink(missing_ok=True)
    at.symlink_to(target)
    os.utime(at, (made_at, made_at), follow_symlinks=False)
    return at


def test_a_link_to_a_log_in_the_folder_is_followed(source: LogSource, site: Site) -> None:
    (site.logs / "runs").mkdir()
    (site.logs / "runs" / "1.log").write_bytes(b"run 1")
    for path, target in (("relative", "runs/1.log"), ("absolute", site.logs / "runs" / "1.log"), ("chain", "relative")):
        assert size(source, link(site.logs / path, target)) == 5
        assert source.read([ReadRequest(str(site.logs / path), 0, 10)]) == [b"run 1"]


@pytest.mark.parametrize("target", ["../outside/secret", "{outside}/secret", "chain"])
def test_a_link_out_of_the_folder_is_refused_with_advice(source: LogSource, site: Site, target: str) -> None:
    link(site.logs / "chain", "../outside/secret")
    path = link(site.logs / "b.log", target.format(outside=site.outside))
    for _ in range(2):
        message = refused(source, path)
    for part in (str(path), "follow_links: anywhere", "log_root"):
        assert part in message
    assert str(site.secret) not in message
    assert size(source, site.logs / "a.log") == 5


def test_a_folder_that_is_a_link_is_followed_only_inside_the_allowed_folders(source: LogSource, site: Site) -> None:
    (site.logs / "case").mkdir()
    (site.logs / "case" / "1.log").write_bytes(b"run 1")
    link(site.logs / "same", "case")
    link(site.logs / "elsewhere", site.outside)
    assert size(source, site.logs / "same" / "1.log") == 5
    refused(source, site.logs / "elsewhere" / "secret")


def test_the_folder_itself_may_be_a_link(open_source: Open, site: Site, tmp_path: Path) -> None:
    scratch = link(tmp_path / "scratch", "logs")
    source = open_source([str(scratch)])
    assert size(source, scratch / "a.log") == 5
    refused(source, link(site.logs / "b.log", site.secret))


def test_a_folder_with_the_same_beginning_of_its_name_is_outside(source: LogSource, site: Site, tmp_path: Path) -> None:
    (tmp_path / "logs2").mkdir()
    (tmp_path / "logs2" / "x").write_bytes(b"x")
    refused(source, link(site.logs / "b.log", "../logs2/x"))


def test_links_between_two_folders_of_a_source_are_followed(open_source: Open, site: Site) -> None:
    source = open_source([str(site.logs), str(site.outside)])
    assert size(source, link(site.logs / "b.log", site.secret)) == 14


def test_links_are_followed_anywhere_if_configured(open_source: Open, site: Site) -> None:
    source = open_source(None)
    path = link(site.logs / "b.log", site.secret)
    assert size(source, path) == 14
    assert source.read([ReadRequest(str(path), 0, 3)]) == [b"not"]


def test_a_link_that_is_created_again_is_checked_again(source: LogSource, site: Site) -> None:
    path = link(site.logs / "b.log", "a.log", 1_000_000_000)
    assert size(source, path) == 5
    link(path, site.secret, 1_000_000_001)
    refused(source, path)
    link(path, "a.log", 1_000_000_002)
    assert size(source, path) == 5
    path.unlink()
    path.write_bytes(b"a file now")
    assert size(source, path) == 10


def test_a_folder_that_is_created_later_is_checked_then(source: LogSource, site: Site) -> None:
    path = site.logs / "case" / "secret"
    assert look(source, path) is None
    link(site.logs / "case", site.outside)
    refused(source, path)
    (site.logs / "case").unlink()
    assert look(source, path) is None
    (site.logs / "case").mkdir()
    path.write_bytes(b"ours")
    assert size(source, path) == 4


def test_a_broken_link_or_a_loop_is_no_log(source: LogSource, site: Site) -> None:
    assert look(source, link(site.logs / "b.log", site.outside / "none" / "file")) is None
    assert not isinstance(look(source, link(site.logs / "c.log", "c.log")), LogStat)


def test_a_listing_reveals_nothing_of_a_file_outside(source: LogSource, site: Site) -> None:
    link(site.logs / "good.log", "a.log")
    astray = link(site.logs / "b.log", site.secret)
    link(site.logs / "dangling.log", "none")
    listing = source.listing(str(site.logs))
    assert set(listing) == {"a.log", "good.log", "b.log"}
    assert listing["good.log"].size_bytes == 5
    assert listing["b.log"].size_bytes == len(os.readlink(astray))
    assert listing["b.log"].modified_at == 1_000_000_000


def read(source: LogSource, path: Path) -> bytes | str:
    """What a log holds, or the kind of the problem."""
    [answer] = source.read([ReadRequest(str(path), 0, 100)])
    return answer if isinstance(answer, bytes) else answer.kind


def test_a_link_that_replaces_a_log_after_the_stat_is_not_read(source: LogSource, site: Site) -> None:
    path = site.logs / "a.log"
    assert size(source, path) == 5
    link(path, site.secret)
    assert read(source, path) == "link"
    refused(source, path)


def test_a_link_through_another_link_that_has_changed_is_not_read(source: LogSource, site: Site) -> None:
    link(site.logs / "between", "a.log")
    path = link(site.logs / "b.log", "between")
    assert size(source, path) == 5
    link(site.logs / "between", site.secret)
    assert read(source, path) == "link"
    refused(source, path)
    link(site.logs / "between", "a.log")
    assert size(source, path) == 5
    assert read(source, path) == b"a log"


def test_a_link_that_replaces_a_folder_is_not_followed(source: LogSource, site: Site) -> None:
    path = site.logs / "case" / "secret"
    path.parent.mkdir()
    path.write_bytes(b"ours")
    assert (size(source, path), read(source, path)) == (4, b"ours")
    path.parent.rename(site.logs / "away")
    link(path.parent, site.outside)
    assert read(source, path) == "link"
    refused(source, path)
    path.parent.unlink()
    (site.logs / "away").rename(path.parent)
    assert (size(source, path), read(source, path)) == (4, b"ours")


def test_a_log_outside_does_not_block_other_logs(source: LogSource, site: Site) -> None:
    paths = [site.logs / name for name in ("a.log", "b.log", "c.log")]
    for path in paths:
        path.write_bytes(path.name.encode())
    link(paths[1], site.secret)
    first, second, third = source.read([ReadRequest(str(path), 0, 100) for path in paths])
    assert (first, third) == (b"a.log", b"c.log")
    assert isinstance(second, LogProblem)


PLACES = ("logs/a", "logs/b", "logs/sub/a", "logs/sub", "out/a", "out/sub")


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(PLACES)), max_size=5))
def test_with_any_links_a_log_is_read_only_if_it_really_is_in_its_folder(links: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        for folder in ("logs", "out"):
            (root / folder).mkdir()
        for at, target in links:
            with contextlib.suppress(OSError):
                (root / at).parent.mkdir(exist_ok=True)
                (root / at).symlink_to(root / target)
        for place in PLACES:
            with contextlib.suppress(OSError):
                (root / place).parent.mkdir(exist_ok=True)
                (root / place).open("x").close()
        source = LocalLogSource("here", [str(root / "logs")])
        paths = [str(root / place) for place in PLACES if place.startswith("logs/")]
        found = source.stat(paths)
        for path in paths:
            real = os.path.realpath(path)
            ours = os.path.isfile(real) and real.startswith(f"{root}/logs/")
            [answer] = source.read([ReadRequest(path, 0, 1)])
            assert isinstance(found.get(path), LogStat) == isinstance(answer, bytes) == ours, (path, real)


def test_checking_links_takes_no_additional_round_trip_for_a_known_log(open_source: Open, site: Site) -> None:
    link(site.logs / "b.log", "a.log")
    paths = [str(site.logs / name) for name in ("a.log", "b.log")]
    costs = []
    for folders in ([str(site.logs)], None):
        source = open_source(folders)
        source.stat(paths)
        before = source.round_trips
        for _ in range(3):
            assert len(source.stat(paths)) == 2
        costs.append(source.round_trips - before)
    assert costs[0] == costs[1]


@pytest.mark.parametrize(("setting", "may"), [("", False), ("inside", False), ("anywhere", True)])
def test_follow_links_in_the_configuration_limits_links(site: Site, setting: str, may: bool) -> None:
    text = f"sources: [{{name: local, log_path: '{site.logs}/{{beam_id}}.log', follow_links: {setting}}}]"
    configured = settings_from(f"{text}\ndatabase: {{path: /data/mqi.db}}", "test")
    [section] = configured.sources
    source = make_source(section, configured.templates(section))
    path = link(site.logs / "b.log", site.secret)
    assert isinstance(look(source, path), LogStat if may else LogProblem)
