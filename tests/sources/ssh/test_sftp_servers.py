"""SFTP servers other than OpenSSH: missing attributes are requested again or reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.beams.snapshot import BeamState
from exporter.sources.source import FolderEntry, LogProblem, LogStat
from exporter.sources.ssh.host import SshHost
from exporter.sources.ssh.sftp import SftpSession
from exporter.sources.ssh.sftp_logs import SftpLogs
from exporter.sources.ssh.source import SshLogSource
from tests.support import sftp_host as told
from tests.support.replay import LOGS
from tests.support.sftp_host import SftpHost
from tests.support.world import World

DATA = (LOGS / "v2_b18.log").read_bytes()
CUT = DATA.index(b"Generating particles for (5 of 18")

LISTINGS = [told.nothing, told.without_size, told.without_time, told.without_mode, told.without_type]
Making = Callable[[], SftpHost]
QUIRKS: dict[str, Making] = {
    **{f"a listing {each.__name__.replace('_', ' ')}": partial(SftpHost, each) for each in LISTINGS},
    **{
        f"a listing of nothing, LSTAT {each.__name__.replace('_', ' ')}": partial(SftpHost, told.nothing, each)
        for each in LISTINGS
    },
    "a listing of nothing, no LSTAT": partial(SftpHost, told.nothing, None),
    "types nowhere": partial(SftpHost, told.without_type, told.without_type, told.without_type),
    "modes nowhere": partial(SftpHost, told.without_mode, told.without_mode, told.without_mode),
}


class OverThis(SshLogSource):
    """A source over a scripted server instead of a connection."""

    def __init__(self, host: SftpHost, folders: list[str] | None) -> None:
        super().__init__("hpc1", SshHost("scripted"), folders)
        self._logs = SftpLogs(SftpSession(host), folders)

    def close(self) -> None:
        """Do nothing, since there is no connection."""


@pytest.mark.parametrize("inside", [True, False], ids=["links inside", "links anywhere"])
@pytest.mark.parametrize("make", QUIRKS.values(), ids=QUIRKS.keys())
def test_a_log_is_followed_whatever_attributes_the_listing_lacks(tmp_path: Path, make: Making, *, inside: bool) -> None:
    world = World(tmp_path, source=OverThis(make(), [str(tmp_path)] if inside else None))
    world.row()
    world.write(DATA[:CUT])
    world.look()
    assert (world.state, world.view().batches_completed) == (BeamState.RUNNING, 4)
    world.write(DATA[CUT:])
    world.look()
    assert world.state == BeamState.SUCCEEDED
    assert not world.snapshot().sources[0].errors


@pytest.mark.parametrize("make", QUIRKS.values(), ids=QUIRKS.keys())
def test_a_listing_returns_only_files_with_sizes_and_times(tmp_path: Path, make: Making) -> None:
    (tmp_path / "a.log").write_bytes(b"12345")
    os.utime(tmp_path / "a.log", (1_700_000_000, 1_700_000_000))
    (tmp_path / "folder").mkdir()
    host = make()
    found = SftpLogs(SftpSession(host)).listing(str(tmp_path))
    assert found["a.log"] == LogStat(5, 1_700_000_000.0)
    if host.stat is told.everything:
        assert "folder" not in found, "a folder is no log"


@pytest.mark.parametrize("make", QUIRKS.values(), ids=QUIRKS.keys())
def test_a_link_to_outside_is_not_followed_if_the_host_does_not_mark_links(tmp_path: Path, make: Making) -> None:
    logs, outside = tmp_path / "logs", tmp_path / "secret"
    logs.mkdir()
    outside.write_bytes(b"secret")
    (logs / "a.log").symlink_to(outside)
    answer = SftpLogs(SftpSession(make()), [str(logs)]).stat([f"{logs}/a.log"])[f"{logs}/a.log"]
    assert isinstance(answer, LogProblem)
    assert answer.kind == "link"


@pytest.mark.parametrize(
    ("host", "missing"),
    [
        (SftpHost(told.nothing, told.nothing, told.nothing), "size and modification time"),
        (SftpHost(told.without_size, told.without_size, told.without_size), "size"),
        (SftpHost(told.without_time, told.without_time, told.without_time), "modification time"),
    ],
)
def test_an_attribute_that_the_host_never_sends_is_logged_once_and_counted(
    tmp_path: Path, host: SftpHost, missing: str
) -> None:
    world = World(tmp_path, source=OverThis(host, [str(tmp_path)]))
    world.row()
    world.write(DATA[:CUT])
    with capture_logs() as lines:
        for _ in range(5):
            world.look()
    [line] = [line for line in lines if line["event"] == "log cannot be read"]
    assert f"does not send the {missing} of {tmp_path}" in str(line["error"])
    assert world.snapshot().sources[0].errors == {"attributes": 1}


def test_after_the_first_poll_each_log_of_such_a_host_takes_one_request(tmp_path: Path) -> None:
    host = SftpHost(listed=told.nothing)
    source = OverThis(host, [str(tmp_path)])
    paths = [f"{tmp_path}/{number}.log" for number in range(50)]
    for path in paths:
        Path(path).write_bytes(b"x")
    source.stat(paths)
    host.asked.clear()
    before = source.round_trips
    assert len(source.stat(paths)) == 50
    assert host.asked == {told.LSTAT: 50}
    assert source.round_trips - before == 1


def test_a_dose_file_without_a_size_is_a_problem_but_not_missing(tmp_path: Path) -> None:
    (tmp_path / "dose.dcm").write_bytes(b"dose")
    logs = SftpLogs(SftpSession(SftpHost(told.nothing, told.without_size, told.without_size)))
    with pytest.raises(LogProblem) as caught:
        logs.entries(str(tmp_path), "dose.dcm", lambda _: True, None)
    assert caught.value.kind == "attributes"


@pytest.mark.parametrize("make", QUIRKS.values(), ids=QUIRKS.keys())
def test_dose_files_are_found_whatever_attributes_the_listing_lacks(tmp_path: Path, make: Making) -> None:
    (tmp_path / "dose.dcm").write_bytes(b"dose")
    seen: list[FolderEntry] = []
    logs = SftpLogs(SftpSession(make()))

    def visit(entry: FolderEntry) -> bool:
        seen.append(entry)
        return False

    logs.entries(str(tmp_path), "dose.dcm", visit, [str(tmp_path)])
    assert [(each.name, each.stat and each.stat.size_bytes) for each in seen] == [("dose.dcm", 4)]
