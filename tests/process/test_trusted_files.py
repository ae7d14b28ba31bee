"""Configuration files that others can change are refused, because they control the exporter."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from exporter.cli.main import main
from exporter.config import ConfigError, load
from exporter.web.web_config import read_web_config
from exporter.web.web_config_reload import ActiveWebConfig
from tests.support.process import ExporterProcess, wait_for

SOMEBODY = 4711
"""A user id without a name on this machine."""
COMMUNICATORS = Path(__file__).parents[1] / "data" / "communicator" / "newest.config.yaml"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "exporter.yaml"
    path.write_text(
        f"base_directory: {tmp_path}\n"
        f"database: {{path: {tmp_path / 'beams.db'}}}\n"
        'web: {listen_address: "127.0.0.1:0"}\n',
        encoding="utf-8",
    )
    path.chmod(0o644)
    return path


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text("{}\n", encoding="utf-8")
    path.chmod(0o640)
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o600, 0o640, 0o644, 0o755])
def test_files_that_only_their_owner_can_change_are_read(config: Path, web: Path, mode: int) -> None:
    config.chmod(mode)
    web.chmod(mode)
    load(config, "owned")
    read_web_config(web, "owned")
    assert call("check-config", "--config.file", config, "--web.config.file", web).exit_code == 0


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o620, "its group"), (0o666, "everybody")])
@pytest.mark.parametrize("which", ["exporter.yaml", "web.yaml"])
def test_a_file_that_group_or_others_can_change_is_refused_with_the_fix(
    config: Path, web: Path, which: str, mode: int, who: str
) -> None:
    path = config.with_name(which)
    path.chmod(mode)
    for command in ("check-config", "run"):
        result = call(command, "--config.file", config, "--web.config.file", web)
        assert result.exit_code == 1
        assert f"{path}: {who} can change it (mode {mode:04o}); run `chmod go-w {path}`" in result.output


@pytest.mark.parametrize("which", ["exporter.yaml", "web.yaml"])
def test_a_file_of_another_user_is_refused_by_run_but_read_by_other_commands(
    config: Path, web: Path, which: str
) -> None:
    path = config.with_name(which)
    assert os.geteuid() == 0, "only root can give a file away: run this test as root"
    os.chown(path, SOMEBODY, -1)
    result = call("run", "--config.file", config, "--web.config.file", web)
    assert result.exit_code == 1
    assert f"{path}: belongs to user {SOMEBODY}, who can change it; run `chown root {path}`" in result.output
    assert call("check-config", "--config.file", config, "--web.config.file", web).exit_code == 0


def test_a_file_of_root_or_of_the_own_user_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    load(config, "owned")
    os.chown(config, SOMEBODY, -1)
    load(config, "owned")
    os.chown(config, SOMEBODY + 1, -1)
    with pytest.raises(ConfigError, match="belongs to user 4712"):
        load(config, "owned")
    load(config, "any_owner")


def test_check_config_warns_of_files_that_only_their_owner_may_use(
    config: Path, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (config, web):
        os.chown(path, SOMEBODY, -1)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY + 1)
    result = call("check-config", "--config.file", config, "--web.config.file", web)
    assert result.exit_code == 0
    for path in (config, web):
        assert f"warning: {path}: belongs to user {SOMEBODY}" in result.output


def test_a_file_behind_links_of_kubernetes_is_checked_itself(config: Path, tmp_path: Path) -> None:
    (tmp_path / "..2025").mkdir()
    config.rename(tmp_path / "..2025" / config.name)
    (tmp_path / "..data").symlink_to("..2025")
    config.symlink_to(f"..data/{config.name}")
    load(config, "owned")
    (tmp_path / "..2025" / config.name).chmod(0o666)
    with pytest.raises(ConfigError, match="everybody can change it"):
        load(config, "owned")


def test_a_pipe_is_read_whatever_its_mode(config: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, config.read_bytes())
    os.close(writing)
    os.fchmod(reading, 0o666)
    load(Path(f"/dev/fd/{reading}"), "owned")
    os.close(reading)


def test_a_running_exporter_keeps_its_configuration_if_the_new_one_is_refused(config: Path) -> None:
    with ExporterProcess("--config.file", config, "--web.enable-lifecycle") as exporter:
        address = f"http://{exporter.address}"
        config.chmod(0o666)
        answer = httpx.post(f"{address}/-/reload", timeout=30)
        assert answer.status_code == 500
        assert f"chmod go-w {config}" in answer.text
        assert exporter.value("mqi_exporter_config_last_reload_successful") == 0
        config.chmod(0o644)
        assert httpx.post(f"{address}/-/reload", timeout=30).status_code == 200
        wait_for(lambda: exporter.value("mqi_exporter_config_last_reload_successful") == 1, "a reload")


def test_a_web_configuration_that_others_can_change_is_not_used(web: Path) -> None:
    web_config = ActiveWebConfig(web)
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n", encoding="utf-8")
    web.chmod(0o660)
    assert not web_config.refresh()
    assert web_config.up_to_date is False
    assert web_config.headers == {}
    web.chmod(0o640)
    assert web_config.refresh()
    assert web_config.headers == {"X-Frame-Options": "deny"}


@pytest.mark.parametrize("there", [False, True])
def test_init_writes_a_file_that_run_reads_whatever_the_umask(tmp_path: Path, umask: None, there: bool) -> None:
    output = tmp_path / "made.yaml"
    if there:
        output.touch(0o666)
    assert call("init", "--communicator", COMMUNICATORS, "--output", output, "--force").exit_code == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    load(output, "owned")


def test_the_communicators_configuration_may_belong_to_any_user(tmp_path: Path) -> None:
    theirs = tmp_path / "config.yaml"
    theirs.write_bytes(COMMUNICATORS.read_bytes())
    theirs.chmod(0o666)
    os.chown(theirs, SOMEBODY, -1)
    assert call("init", "--communicator", theirs).exit_code == 0
