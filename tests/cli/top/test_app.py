"""``mqi-exporter top`` in a real terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.cli.main import main
from tests.support import communicator_db as db
from tests.support.api import StandIn, beam
from tests.support.process import wait_for
from tests.support.sshd import free_port
from tests.support.terminal import TerminalProcess

BEAMS = [
    beam("c1", "c1_beam_1", batches_total=18, batch_current=5, estimated_ratio=0.25, remaining_seconds=600),
    beam("c1", "c1_beam_2", "failed", reason="cuda", progress_ratio=0.4),
    beam("c2", "c2_beam_1", "stalled", estimated_ratio=0.9, remaining_seconds=30),
]
ALTERNATE, NORMAL, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture
def api() -> Iterator[StandIn]:
    with StandIn({"at": 1_800_000_000, "beams": list(BEAMS)}) as server:
        yield server


@pytest.fixture
def top(api: StandIn) -> Iterator[TerminalProcess]:
    with TerminalProcess("top", "--url", api.url, "--interval", "0.2") as process:
        process.waits_for("c1_beam_1", "c2_beam_1")
        yield process


def order(top: TerminalProcess) -> list[str]:
    return [each["beam_id"] for line in top.screen for each in BEAMS if each["beam_id"] in line]


def is_left_as_found(top: TerminalProcess) -> bool:
    tail = top.output.rpartition(ALTERNATE)[2]
    return top.settings == top.settings_before and NORMAL in tail and CURSOR in tail


def test_q_quits_and_leaves_the_terminal_as_it_was(top: TerminalProcess) -> None:
    assert top.settings != top.settings_before
    top.press("q")
    assert top.wait() == 0
    wait_for(lambda: is_left_as_found(top), "the terminal as it was")


@pytest.mark.parametrize(("key", "number"), [("\x03", signal.SIGINT), (None, signal.SIGTERM), (None, signal.SIGHUP)])
def test_signals_end_it_and_leave_the_terminal_as_it_was(
    top: TerminalProcess, key: str | None, number: signal.Signals
) -> None:
    if key is not None:
        top.press(key)
    else:
        top.signal(number)
    assert top.wait() == 128 + number
    wait_for(lambda: is_left_as_found(top), "the terminal as it was")
    assert "Traceback" not in top.output


@pytest.mark.parametrize("key", ["\x1a", None])
def test_suspending_restores_the_terminal_until_the_process_continues(top: TerminalProcess, key: str | None) -> None:
    if key is not None:
        top.press(key)
    else:
        top.signal(signal.SIGTSTP)
    wait_for(lambda: top.is_stopped, "the process to stop")
    wait_for(lambda: is_left_as_found(top), "the terminal as it was")
    top.signal(signal.SIGCONT)
    top.waits_for("c1_beam_1", "c2_beam_1")
    assert top.settings != top.settings_before
    top.press("q")
    assert top.wait() == 0
    wait_for(lambda: is_left_as_found(top), "the terminal as it was")


def test_closing_the_terminal_ends_the_process(top: TerminalProcess) -> None:
    top.hang_up()
    assert top.wait() == 128 + signal.SIGHUP


def test_closing_the_terminal_ends_a_process_that_ignores_hang_up_signals(api: StandIn) -> None:
    code = f"""
import exporter.cli.top.app as app, signal
app._END_SIGNALS = ()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from exporter.cli.main import main
main(["top", "--url", "{api.url}"])
"""
    with TerminalProcess(code=code) as process:
        process.waits_for("c1_beam_1")
        process.hang_up()
        assert process.wait() == 128 + signal.SIGHUP


@pytest.mark.parametrize("method", ["select", "handle_key"])
def test_an_unexpected_error_restores_the_terminal_before_it_is_printed(api: StandIn, method: str) -> None:
    code = f"""
from exporter.cli.main import main
from exporter.cli.top.view import TopView
def fail(*_): raise ZeroDivisionError("a defect")
TopView.{method} = fail
main(["top", "--url", "{api.url}"])
"""
    with TerminalProcess(code=code) as process:
        if method == "handle_key":
            process.waits_for("c1_beam_1")
            process.press("x")
        assert process.wait() == 1
        wait_for(lambda: is_left_as_found(process), "the terminal as it was")
        assert "ZeroDivisionError: a defect" in process.output.rpartition(NORMAL)[2]


def test_without_colours_where_the_environment_says_so(api: StandIn) -> None:
    with TerminalProcess("top", "--url", api.url, environment={"NO_COLOR": "1"}) as process:
        process.waits_for("c1_beam_2", "failed")
        process.press("q")
        process.wait()
        styles = {
            int(number) for found in re.findall(r"\x1b\[([0-9;]+)m", process.output) for number in found.split(";")
        }
        assert not styles & {*range(30, 50), *range(90, 110)}


def test_pasted_text_is_found(api: StandIn, top: TerminalProcess) -> None:
    api.answer = {"at": 1, "beams": [beam("c", "한_1"), beam("c", "other")]}
    top.waits_for("한_1", "other")
    top.press("/\x1b[200~한\x1b[201~\r")
    top.waits_for("1 of 2 beams", "한_1")


def test_keys_sort_filter_and_find(top: TerminalProcess) -> None:
    assert order(top) == ["c1_beam_2", "c2_beam_1", "c1_beam_1"]
    top.press("s")
    wait_for(lambda: order(top) == ["c1_beam_1", "c1_beam_2", "c2_beam_1"], "sorted by case")
    top.press("ss")
    wait_for(lambda: order(top)[0] == "c2_beam_1", "sorted by time left")
    top.press("f")
    top.waits_for("state running")
    assert order(top) == ["c1_beam_1"]
    top.press("\x1b")
    wait_for(lambda: len(order(top)) == 3, "all again")
    top.press("/cuda\r")
    top.waits_for("find 'cuda'")
    assert order(top) == ["c1_beam_2"]


def test_new_data_appears_without_a_key(api: StandIn, top: TerminalProcess) -> None:
    api.answer = {"at": 1_800_000_002, "beams": [beam("c9", "c9_beam_9", estimated_ratio=0.5)]}
    top.waits_for("c9_beam_9", "50.0 %")
    assert order(top) == []


def test_the_last_data_stay_when_the_exporter_goes_away(api: StandIn, top: TerminalProcess) -> None:
    api.stop()
    top.waits_for("not up to date", "no exporter answers", "c1_beam_1")
    api.answer = {"at": 1_800_000_009, "beams": [beam("c9", "c9_beam_9")]}
    api.start()
    top.waits_for("c9_beam_9")
    wait_for(lambda: not top.shows("not up to date"), "no complaint any more")


def test_another_size_is_drawn_at_once_and_long_lists_scroll(api: StandIn, top: TerminalProcess) -> None:
    api.answer = {"at": 1, "beams": [beam("c", f"c_beam_{number}") for number in range(40)]}
    top.waits_for("(0 above, 24 below)")
    top.resize(100, 12)
    top.waits_for("(0 above, 32 below)")
    top.press("\x1b[B\x1b[6~")
    top.waits_for("(9 above, 23 below)")


def test_a_database_of_the_plans_revision_is_shown_live(tmp_path: Path) -> None:
    """Migrated and written by us, as the communicator's own screens would show it."""
    path = db.make(tmp_path / "mqi.db", db.PLAN_BEAMS)
    db.add(path, "70010001_2025042401440800", "csv_interpreting", "70010001")
    db.execute(path, "ALTER TABLE beams ADD COLUMN progress REAL DEFAULT 0.0")
    db.execute(path, "UPDATE beams SET progress = 27.78")
    with TerminalProcess("top", "--database", path, "--interval", "0.2") as process:
        process.waits_for("70010001_2025042401440800", "27.8 %", "csv_interpreting")
        db.execute(path, "UPDATE beams SET progress = 33.33")
        process.waits_for("33.3 %")
        process.press("q")
        assert process.wait() == 0


def test_without_a_terminal_it_prints_once(api: StandIn) -> None:
    for stdin in (subprocess.DEVNULL, None):
        done = subprocess.run(
            [sys.executable, "-m", "exporter.cli", "top", "--url", api.url],
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert "c1_beam_1" in done.stdout
        assert "\x1b" not in done.stdout


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["top", *map(str, arguments)])


class TestOnce:
    def test_prints_every_beam_in_a_line(self, api: StandIn) -> None:
        result = call("--url", api.url, "--once")
        assert result.exit_code == 0
        assert [line.split()[0] for line in result.output.splitlines()[3:]] == ["failed", "stalled", "running"]
        assert "q quit" not in result.output

    def test_as_json_sorted_and_filtered(self, api: StandIn) -> None:
        result = call("--url", api.url, "--once", "--json", "--sort", "case", "--filter", "C1")
        said = json.loads(result.output)
        assert [each["beam_id"] for each in said["beams"]] == ["c1_beam_1", "c1_beam_2"]
        assert said["beams"][0]["expected_end"] == 1_800_000_600
        assert (said["at"], said["origin"], said["summary"]) == (1_800_000_000, api.url, {"running": 1, "failed": 1})
        result = call("--url", api.url, "--once", "--json", "--state", "stalled")
        assert [each["beam_id"] for each in json.loads(result.output)["beams"]] == ["c2_beam_1"]

    def test_exporter_and_database_come_from_the_configuration(self, api: StandIn, tmp_path: Path) -> None:
        database = db.make(tmp_path / "mqi.db")
        db.add(database, "from_the_table")
        config = tmp_path / "exporter.yaml"
        config.write_text(
            f"base_directory: /x\ndatabase: {{path: {database}}}\nweb: {{listen_address: '127.0.0.1:{api.port}'}}\n",
            encoding="utf-8",
        )
        assert "c1_beam_1" in call("--config.file", config, "--once").output
        assert "from_the_table" in call("--config.file", config, "--database", "--once").output
        elsewhere = f"--web.listen-address=127.0.0.1:{free_port()}"
        stood_in = call("--config.file", config, elsewhere, "--once").output
        assert "from_the_table" in stood_in
        assert "no exporter answers" in stood_in

    @pytest.mark.parametrize(
        ("arguments", "status", "says"),
        [
            (["--url", "http://x", "--database", "/x"], 2, "name one of them"),
            (["--json"], 2, "--json needs --once"),
            (["--once", "--url", "ftp://x"], 1, "not a URL"),
            (["--once", "--database", "/none/mqi.db"], 1, "never created"),
            (["--once", "--config.file", "/none.yaml"], 1, "/none.yaml"),
            (["--once", "--state", "odd"], 2, "odd"),
        ],
    )
    def test_invalid_options_are_one_error(self, arguments: list[str], status: int, says: str) -> None:
        result = call(*arguments)
        assert result.exit_code == status
        assert says in result.output

    def test_an_exporter_that_is_not_there_is_one_line(self) -> None:
        result = call("--once", "--url", f"http://127.0.0.1:{free_port()}")
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
