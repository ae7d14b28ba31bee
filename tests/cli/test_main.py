import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter import __version__
from exporter.cli.main import main
from tests.support.replay import LOGS


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "exporter.yaml"
    path.write_text(
        f"base_directory: {tmp_path}\ndatabase: {{path: {tmp_path / 'beams.db'}}}\n"
        'progress_tracking: {patterns: {current_batch: "Batch (\\\\d+)/(\\\\d+)"}}\n',
        encoding="utf-8",
    )
    return path


def test_version() -> None:
    assert call("--version").output == f"mqi-exporter, version {__version__}\n"


def test_help_names_every_command() -> None:
    output = call("--help").output
    for command in (
        "run",
        "demo",
        "verify",
        "check-config",
        "migrate",
        "init",
        "--config.file",
        "--web.listen-address",
    ):
        assert command in output


def test_verify_prints_a_list_of_objects() -> None:
    result = call("verify", "--json", LOGS / "v2_b18.log", LOGS / "mgh_sigkill.log")
    assert result.exit_code == 0
    assert [report["outcome"] for report in json.loads(result.output)] == ["succeeded", "failed"]


def test_verify_fails_when_nothing_is_known_in_one_of_the_logs(tmp_path: Path) -> None:
    strange = tmp_path / "strange.log"
    strange.write_text("nothing known\n", encoding="utf-8")
    assert call("verify", LOGS / "v2_b18.log", strange).exit_code == 1


def test_verify_uses_the_patterns_of_the_configuration(tmp_path: Path, config: Path) -> None:
    strange = tmp_path / "strange.log"
    strange.write_text("Batch 3/7\n", encoding="utf-8")
    assert call("verify", strange).exit_code == 1
    assert call("--config.file", config, "verify", strange).exit_code == 0


def test_check_config_says_that_a_file_is_valid(config: Path) -> None:
    result = call("--config.file", config, "check-config")
    assert (result.exit_code, result.output) == (0, f"{config}: valid\n")


def test_check_config_names_every_mistake_at_once(config: Path) -> None:
    config.write_text("base_directory: relative\nretention_second: 3\n", encoding="utf-8")
    result = call("--config.file", config, "check-config")
    assert result.exit_code == 1
    for part in ("base_directory", "retention_second", "retention_seconds", "database", str(config)):
        assert part in result.output


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["verify"], {"--json", "--config.file", "--help"}),
        (["migrate"], {"--config.file", "--help"}),
        (["check-config"], {"--connect", "--config.file", "--web.listen-address", "--web.config.file", "--help"}),
        (["healthcheck"], {"--help"}),
    ],
)
def test_help_of_a_command_lists_only_options_that_it_uses(command: list[str], options: set[str]) -> None:
    assert set(re.findall(r"^ +(?:-h, )?(--[\w.-]+)", call(*command, "--help").output, re.MULTILINE)) == options


def test_demo_takes_no_configuration_file() -> None:
    assert call("demo", "--config.file", "/nowhere.yaml").exit_code == 2


@pytest.mark.parametrize("command", [[], ["run"], ["check-config"], ["migrate"], ["whois", "c-0000000000000000"]])
def test_without_a_configuration_the_next_steps_are_named(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setattr("exporter.cli.flags.DEFAULT_CONFIG", "/nowhere/exporter.yaml")
    result = call(*command)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    for part in ("/nowhere/exporter.yaml", "demo", "verify", "init", "--config.file"):
        assert part in result.output


def test_a_command_does_not_import_the_others() -> None:
    look = (
        "import sys, exporter.cli.main as cli; cli.main(['healthcheck', '--help'], standalone_mode=False);"
        "print(sorted({'exporter.config', 'pydantic', 'structlog'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", [[], ["run"], ["check-config"], ["migrate"]])
def test_a_missing_configuration_is_one_line_that_names_it(tmp_path: Path, command: list[str]) -> None:
    result = call("--config.file", tmp_path / "none.yaml", *command)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert str(tmp_path / "none.yaml") in result.output


def test_migrate_adds_the_column_once(tmp_path: Path, config: Path) -> None:
    with sqlite3.connect(tmp_path / "beams.db") as database:
        database.execute(
            "CREATE TABLE beams (beam_id TEXT PRIMARY KEY, parent_case_id TEXT, beam_path TEXT, status TEXT, "
            "updated_at TIMESTAMP)"
        )
        database.execute("INSERT INTO beams VALUES ('a_1', 'a', '/a', 'pending', NULL)")
    database.close()
    assert "added" in call("--config.file", config, "migrate").output
    assert "nothing to do" in call("--config.file", config, "migrate").output
    database = sqlite3.connect(tmp_path / "beams.db")
    assert database.execute("SELECT progress FROM beams").fetchall() == [(0.0,)]
    database.close()


def test_migrate_never_creates_a_database(tmp_path: Path, config: Path) -> None:
    result = call("--config.file", config, "migrate")
    assert result.exit_code == 1
    assert "never created" in result.output
    assert not (tmp_path / "beams.db").exists()


def test_flags_may_stand_on_either_side_of_the_command(config: Path) -> None:
    assert call("check-config", "--config.file", config).exit_code == 0
    assert call("check-config", f"--config.file={config}").exit_code == 0
    assert call("--config.file", "/nowhere.yaml", "check-config", "--config.file", config).exit_code == 0


def test_a_listen_address_that_is_none_is_refused_before_anything_starts(config: Path) -> None:
    result = call("--config.file", config, "--web.listen-address", "10813", "run")
    assert result.exit_code == 2
    assert "host:port" in result.output


def test_ssh_libraries_are_not_imported_without_an_ssh_source() -> None:
    """Libraries that only some commands and sources need: 16 MiB for SSH alone."""
    modules = "{'cryptography', 'paramiko', 'requests'}"
    look = f"import sys, exporter.cli.main, exporter.cli.serve; print(sorted({modules} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
