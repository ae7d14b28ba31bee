"""A source that cannot be polled is down, with its reason, whatever the cause is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamState, SourceView
from exporter.beams.store import BeamStore
from exporter.config import settings_from
from exporter.privacy.identifiers import PlainIdentifiers
from exporter.runtime.pipeline import Pipeline
from exporter.sources.local import LocalLogSource
from exporter.sources.source import NO_KNOWN_STATS, LogProblem, LogStat, ReadRequest
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS
from tests.support.world import World

DATA = (LOGS / "v2_b18.log").read_bytes()
HALF = DATA.index(b"Generating particles for (9 of 18")


class RaisingSource(LocalLogSource):
    """A local source whose questions raise what a test says."""

    error: Exception | None = None
    at = "stat"

    def stat(
        self, paths: Collection[str], known: Mapping[str, LogStat] = NO_KNOWN_STATS
    ) -> Mapping[str, LogStat | LogProblem | None]:
        if self.error is not None and self.at == "stat":
            raise self.error
        return super().stat(paths, known)

    def read(self, requests: Sequence[ReadRequest]) -> Sequence[bytes | LogProblem]:
        if self.error is not None and self.at == "read":
            raise self.error
        return super().read(requests)


def raising_world(folder: Path) -> tuple[World, RaisingSource]:
    source = RaisingSource("local")
    world = World(folder, source=source)
    world.row()
    world.write(DATA[:HALF])
    world.look()
    assert world.view().batches_completed == 8
    return world, source


def one_source(world: World) -> SourceView:
    [view] = world.snapshot().sources
    return view


@pytest.mark.parametrize("at", ["stat", "read"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad line 3"), "ValueError: bad line 3"),
        (KeyError("cipher"), "KeyError: 'cipher'"),
        (RuntimeError(), "RuntimeError"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
    ],
)
def test_any_exception_in_a_poll_makes_the_source_down_with_its_reason(
    tmp_path: Path, at: str, error: Exception, said: str
) -> None:
    world, source = raising_world(tmp_path)
    source.at, source.error = at, error
    world.write(DATA[HALF:])
    with capture_logs() as lines:
        for _ in range(5):
            world.look()

    view = one_source(world)
    assert (view.up, view.errors) == (False, {"unexpected": 5})
    assert str(view.problem) == f"unexpected error: {said}"
    assert world.state == BeamState.UNREACHABLE
    assert world.view().batches_completed == 8, "the last values are kept"
    assert world.snapshot().errors["source local"] == 5
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert line["exc_info"] is error, "the cause is in the log, once"
    assert said in str(line["error"])

    source.error = None
    world.look()
    view = one_source(world)
    assert (view.up, view.problem) == (True, None)
    assert world.state == BeamState.SUCCEEDED


def test_another_exception_while_the_source_is_down_is_said_too(tmp_path: Path) -> None:
    world, source = raising_world(tmp_path)
    with capture_logs() as lines:
        for error in (ValueError("one"), ValueError("one"), TypeError("two")):
            source.error = error
            world.look()
    assert [str(line["error"]) for line in lines if line["log_level"] == "error"] == [
        "unexpected error: ValueError: one",
        "unexpected error: TypeError: two",
    ]
    assert str(one_source(world).problem) == "unexpected error: TypeError: two"


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    world, source = raising_world(tmp_path)
    source.error = ValueError("x" * 100_000)
    with capture_logs():
        world.look()
    assert len(str(one_source(world).problem)) < 500


def test_a_source_that_has_never_answered_is_shown_before_its_first_poll() -> None:
    store = BeamStore(StoreRules(), 1_800_000_000.0)
    store.add_source("hpc1", "ssh")
    assert store.snapshot(1_800_000_000.0).sources == (SourceView("hpc1", "ssh", up=None),)
    store.remove_source("hpc1")
    assert store.snapshot(1_800_000_000.0).sources == ()


def test_an_exception_while_logs_are_looked_for_by_name_makes_the_source_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_from(
        f"base_directory: {tmp_path}\ndiscovery: {{kind: directory, interval_seconds: 0.01}}\n"
        "progress_tracking: {monitoring: {poll_interval_seconds: 0.01}}\n"
        f"sources: [{{name: here, log_path: '{tmp_path}/{{case_id}}_{{beam_id}}.log'}}]\n",
        "x.yaml",
    )
    store = BeamStore(StoreRules(), 1_800_000_000.0)
    listing: Callable[..., Mapping[str, LogStat]] = LocalLogSource.listing
    faulty = True

    def listing_or_error(self: LocalLogSource, folder: str) -> Mapping[str, LogStat]:
        if faulty:
            raise UnicodeError("a name that is none")
        return listing(self, folder)

    monkeypatch.setattr(LocalLogSource, "listing", listing_or_error)
    following = Pipeline(settings, store, PlainIdentifiers(), lambda: 1_800_000_000.0)
    following.start()
    try:

        def source() -> SourceView:
            return store.snapshot(1_800_000_000.0).sources[0]

        wait_for(lambda: source().up is False, "the source down")
        assert str(source().problem) == "unexpected error: UnicodeError: a name that is none"
        wait_for(
            lambda: following.unready() is None, "a source that is down does not keep the exporter from being ready"
        )
        faulty = False
        wait_for(lambda: source().up is True, "the source up again")
    finally:
        following.stop()
        following.close()


def test_a_host_that_has_never_answered_is_down_from_the_first_scrape_on(tmp_path: Path) -> None:
    database = db.make(tmp_path / "mqi.db")
    db.add(database, "70010001_beam_1", case_id="70010001")
    config, known = tmp_path / "exporter.yaml", tmp_path / "known_hosts"
    known.touch()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config.write_text(
            f"""
database: {{path: {database}}}
web: {{listen_address: "127.0.0.1:0"}}
sources:
  - {{name: silent, kind: ssh, host: 127.0.0.1, port: {silent.getsockname()[1]}, user: nobody,
     connect_timeout_seconds: 60, known_hosts_file: {known}, log_path: "/l/{{beam_id}}.log"}}
""",
            encoding="utf-8",
        )
        with ExporterProcess("--config.file", config) as exporter:
            assert exporter.value("mqi_source_up", source="silent", kind="ssh") == 0
            [shown] = exporter.get("/api/v1/sources").json()["sources"]
            assert (shown["name"], shown["up"], shown["reason"]) == ("silent", None, None)
