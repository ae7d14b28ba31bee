"""What a poll asks of another host, counted by request: times depend on networks and machines, these numbers do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import noisy
from exporter.polling.poller import SourcePoller
from exporter.sources.ssh.source import SshLogSource
from tests.support.requests import counted_requests
from tests.support.sshd import Sshd

LOGS = 300
NAMES_IN_AN_ANSWER = 100
"""OpenSSH's server gives so many names for one READDIR."""


@pytest.fixture(scope="module", params=["inside", "anywhere"])
def followed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SourcePoller, list[Path]]]:
    """Logs on a host that have been read to their ends; links may lead inside their folder only, or anywhere."""
    folder = tmp_path_factory.mktemp("host")
    logs = folder / "logs"
    logs.mkdir()
    paths = [logs / f"b{number}.log" for number in range(LOGS)]
    for path in paths:
        noisy.write(path, 1024)
    with Sshd(folder / "sshd") as server:
        source = SshLogSource("there", server.host, [str(logs)] if request.param == "inside" else None)
        _, poller = noisy.watch(logs, LOGS, source, time.time())
        for _ in range(2):
            while poller.poll():
                pass
        yield poller, paths
        poller.close()


def test_a_poll_of_idle_logs_is_one_listing_of_their_folder(followed: tuple[SourcePoller, list[Path]]) -> None:
    poller, _ = followed
    with counted_requests() as counts:
        poller.poll()
    assert counts.keys() <= {"opendir", "readdir", "close"}, "no log is asked for by itself"
    assert counts["opendir"] == counts["close"] == 1
    assert counts["readdir"] <= LOGS / NAMES_IN_AN_ANSWER + 3, "the end, and those asked for ahead of need"


def test_a_log_that_grew_costs_three_requests_one_more_where_links_may_not_lead_anywhere_and_the_others_none(
    followed: tuple[SourcePoller, list[Path]], request: pytest.FixtureRequest
) -> None:
    poller, paths = followed
    round_trips = poller._source.round_trips
    for path in paths[:10]:
        with path.open("ab") as file:
            file.write(noisy.batch(50))
    with counted_requests() as counts:
        poller.poll()
    assert (counts["open"], counts["read"]) == (10, 10)
    assert counts["close"] == 1 + 10
    assert counts["stat"] == 0
    asked_where = "inside" in request.node.callspec.id
    assert counts["realpath"] == (10 + 1 if asked_where else 0), "of each, and of the folder"
    assert poller._source.round_trips == round_trips + 4, "where it leads is asked together with its being opened"
