"""A folder of log_path that does not exist: when it is looked for, and what is said of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.sources.local import LocalLogSource
from exporter.sources.log_paths import LogPathTemplate
from exporter.sources.missing_folders import CHECK_SECONDS, RECHECK_SECONDS, MissingFolders
from tests.support.files import unprivileged
from tests.support.world import BEAM, FragileSource, World, captured

WARNING = "folder of log_path does not exist, no log can be found there; check log_path, or create the folder"


class CountingSource(FragileSource):
    """Counters how many folders it was asked for."""

    asked = 0

    def missing_folders(self, folders: Collection[str]) -> frozenset[str]:
        self._check()
        self.asked += len(folders)
        return super().missing_folders(folders)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured_lines:
        yield captured_lines


def warned(lines: list[Any]) -> list[str]:
    return [line["folder"] for line in lines if line["event"] == WARNING]


def missing(world: World) -> tuple[str, ...] | None:
    [source] = world.snapshot().sources
    return source.folders_missing


def test_a_missing_folder_causes_one_warning_and_another_after_it_had_existed(tmp_path: Path, lines: list[Any]) -> None:
    world = World(tmp_path, templates=("lgos/{beam_id}.log", "logs/{beam_id}.log"))
    folder = tmp_path / "lgos"
    (tmp_path / "logs").mkdir()
    world.row("pending")
    for _ in range(200):
        world.look()
    assert missing(world) == (str(folder),)
    assert warned(lines) == [str(folder)]
    assert world.view().state == "waiting"

    folder.mkdir()
    world.look(RECHECK_SECONDS)
    assert missing(world) == ()
    assert [line["folder"] for line in lines if line["event"] == "folder of log_path exists now"] == [str(folder)]

    folder.rmdir()
    world.look(CHECK_SECONDS)
    world.look(CHECK_SECONDS)
    assert missing(world) == (str(folder),)
    assert warned(lines) == [str(folder)] * 2


@pytest.mark.parametrize("template", ["{case_id}/{beam_id}.log", "run_{case_id}/x/{beam_id}.log", "{beam_id}/log"])
def test_the_folder_of_a_beam_that_has_not_started_is_not_missing(
    tmp_path: Path, lines: list[Any], template: str
) -> None:
    world = World(tmp_path, templates=(template,))
    world.row("pending")
    world.look()
    assert missing(world) == ()
    assert warned(lines) == []


def test_folders_are_checked_at_long_intervals_however_many_beams_wait(tmp_path: Path) -> None:
    source = CountingSource("local")
    world = World(tmp_path, templates=("{case_id}/{beam_id}.log", "{beam_id}.log"), source=source)
    for number in range(100):
        world.row("pending", key=type(BEAM)("c", f"c_{number}"))
    for _ in range(int(10 * CHECK_SECONDS)):
        world.look(1.0)
    assert source.asked <= 11, "two templates of one folder, every half minute"


def test_a_clock_that_is_set_does_not_delay_the_next_check(tmp_path: Path) -> None:
    world = World(tmp_path, templates=("logs/{beam_id}.log",))
    world.look()
    assert missing(world) == (f"{tmp_path}/logs",)
    (tmp_path / "logs").mkdir()
    world.set_clock(-7200)
    world.look(RECHECK_SECONDS + 1)
    assert missing(world) == ()


def test_a_source_that_is_down_keeps_its_missing_folders(tmp_path: Path, lines: list[Any]) -> None:
    source = CountingSource("hpc1")
    source.down = True
    world = World(tmp_path, templates=("logs/{beam_id}.log",), source=source)
    world.row("pending")
    world.look()
    assert missing(world) is None
    source.down = False
    world.look()
    assert missing(world) == (f"{tmp_path}/logs",)
    source.down = True
    world.look(CHECK_SECONDS)
    assert missing(world) == (f"{tmp_path}/logs",)
    assert len(warned(lines)) == 1


def test_a_reload_does_not_repeat_the_warning() -> None:
    source = LocalLogSource("local")
    templates = [LogPathTemplate("/none/of/these/{beam_id}.log"), LogPathTemplate("/nor/this/{beam_id}.log")]
    before, now = MissingFolders(templates), MissingFolders(templates[:1])
    assert before.missing is None
    assert before.check(source, 0.0).lost == ("/none/of/these", "/nor/this")
    now.adopt(before)
    assert now.missing == ("/none/of/these",)
    assert now.check(source, 1.0).lost == ()


def test_a_folder_below_one_without_search_permission_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "closed" / "logs").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    try:
        with unprivileged():
            assert LocalLogSource("local").missing_folders([f"{tmp_path}/closed/logs"]) == frozenset()
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_logs_of_other_folders_are_still_followed(tmp_path: Path) -> None:
    world = World(tmp_path, templates=("lgos/{beam_id}.log", "{beam_id}.log"))
    world.row()
    world.write(captured("v2_b18"))
    world.look()
    assert world.view().state == "succeeded"
