"""Generated documents are current, and commands in documents work."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from exporter.cli.main import main
from exporter.config import settings_from
from exporter.logs import events
from exporter.web.web_config import config_warnings, read_web_config
from supply import manuals
from tests.support import replay
from tests.support.certificates import Authority

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_accuracy_document_is_current() -> None:
    assert (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8") == replay.document()


def commands(name: str) -> list[str]:
    """Return every ``$ mqi-exporter ...`` in the documents with this subcommand."""
    lines = (line for document in DOCUMENTS for line in document.read_text(encoding="utf-8").splitlines())
    return [line[2:] for line in lines if line.startswith("$ mqi-exporter") and f" {name}" in line]


@pytest.mark.parametrize("command", commands("verify"))
def test_shown_verify_commands_work(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "LOG..." not in command:
        assert CliRunner().invoke(main, shlex.split(command)[1:]).exit_code == 0


@pytest.mark.parametrize("command", commands("check-config"))
def test_shown_check_config_commands_work(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", commands("init"))
def test_shown_init_commands_make_a_valid_configuration(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert settings_from(result.stdout, command).database is not None


EXAMPLES = sorted(path for path in (ROOT / "config").glob("*.yaml") if path.name not in ("compose.yaml", "web.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_configuration_is_valid(path: Path) -> None:
    result = CliRunner().invoke(main, ["--config.file", str(path), "check-config"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


DIALECTS = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")


def test_the_guide_to_dialects_has_every_dialect() -> None:
    assert [name for name in events.DIALECTS if f"| `{name}` |" not in DIALECTS] == []


@pytest.mark.parametrize(
    ("log", "grew", "silence", "share"),
    re.findall(r"^\| `(\w+)` \| .* \| (\d+) times \| ([\d.]+) s \| (\d+) % \|$", DIALECTS, re.MULTILINE),
)
def test_the_buffering_figures_match_the_captured_logs(log: str, grew: str, silence: str, share: str) -> None:
    growth = [(at, size) for at, size in replay.growth(log) if size >= 0]
    arrivals = [growth[0][0], *(at for (_, before), (at, size) in itertools.pairwise(growth) if size != before)]
    longest = max(later - earlier for earlier, later in itertools.pairwise(arrivals))
    assert len(arrivals) - 1 == int(grew)
    assert f"{longest:.1f}" == silence
    assert f"{100 * longest / growth[-1][0]:.0f}" == share


PROGRAMS = Path(sys.executable).parent


def test_the_man_pages_are_current() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/man").glob("*.1")} == manuals.pages()


def test_the_operations_guide_links_command_and_man_pages_on_a_fresh_machine(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^# ((?:mkdir -p|ln -s) /(?:opt|usr).*)$", text, re.MULTILINE)
    for folder in ("usr/local/bin", "usr/local/share", "opt/mqi-exporter/bin", "opt/mqi-exporter/share/man/man1"):
        (tmp_path / folder).mkdir(parents=True)  # what Debian, and the lines before, have made
    installed = [tmp_path / "opt/mqi-exporter/bin/mqi-exporter"]
    installed += [tmp_path / f"opt/mqi-exporter/share/man/man1/mqi-exporter{name}.1" for name in ("", "-run")]
    for path in installed:
        path.touch()
    script = "\n".join(lines).replace(" /opt/", f" {tmp_path}/opt/").replace(" /usr/", f" {tmp_path}/usr/")
    done = subprocess.run(["sh", "-e", "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "usr/local/bin").iterdir()] == ["mqi-exporter"]
    manual = tmp_path / "usr/local/share/man/man1"
    assert sorted(path.name for path in manual.iterdir()) == ["mqi-exporter-run.1", "mqi-exporter.1"]


def test_shell_completion_works_as_in_the_operations_guide() -> None:
    environment = {**os.environ, "_MQI_EXPORTER_COMPLETE": "bash_source"}
    done = subprocess.run(
        [PROGRAMS / "mqi-exporter"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "complete -o nosort -F _mqi_exporter_completion mqi-exporter" in done.stdout


def every_command() -> list[str]:
    """Return every ``mqi-exporter`` command in the documents, in help, and in man pages."""
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS).replace("\\\n", " ")
    shown = re.findall(r"^ *[$#] (?:runuser -u \S+ -- )?(mqi-exporter .*)$", text, re.MULTILINE)
    in_manuals = "\n".join(manuals.pages().values()).replace("\\-", "-")
    return sorted({*shown, *re.findall(r"^mqi-exporter (?!- ).*$", in_manuals, re.MULTILINE)})


@pytest.mark.parametrize("command", every_command())
def test_every_shown_command_and_all_its_options_exist(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_undone(group: click.Group) -> None:
        for name in group.list_commands(context):
            each = group.get_command(context, name)
            assert each is not None
            if isinstance(each, click.Group):
                leave_undone(each)
            else:
                monkeypatch.setattr(each, "callback", lambda **_: None)

    context = click.Context(main)
    leave_undone(main)
    result = CliRunner().invoke(main, shlex.split(command.partition(" > ")[0])[1:])
    assert result.exit_code == 0, result.output


def test_the_example_web_configuration_works(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server", days=(-1, 300))
    text = (ROOT / "config" / "web.yaml").read_text(encoding="utf-8")
    path = tmp_path / "web.yaml"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    config = read_web_config(path)
    assert config_warnings(path, config, ":10813") == []
    assert (config.authenticates, config.tls_server_config is not None) == (True, True)
    assert f"```yaml\n{text}```" in (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")

    Authority(tmp_path, "clients")
    commented = re.sub(r"^  # (client_\w+:.*)$", r"  \1", text, flags=re.MULTILINE)
    path.write_text(commented, encoding="utf-8")
    section = read_web_config(path).tls_server_config
    assert section is not None
    assert section.client_allowed_sans == ("prometheus.hospital.example",)


def test_prometheus_accepts_the_scrape_that_the_user_guide_shows(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", guide, flags=re.DOTALL)
    path = tmp_path / "prometheus.yml"
    path.write_text(shown, encoding="utf-8")
    checked = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_test_named_in_the_security_guide_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    file, named = "", 0
    for path, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`", text):
        file = path or file
        if test:
            named += 1
            code = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^\s*(def|class) {test}\b", code, re.MULTILINE), f"{file}::{test}"
        elif path:
            assert (ROOT / path).is_file()
    assert named > 20


DOORS = (ROOT / "docs/use.md", ROOT / "docs/run.md", ROOT / "docs/developer-guide.md")


def test_every_document_is_listed_by_use_run_or_develop() -> None:
    listed = {
        (door.parent / link).resolve()
        for door in DOORS
        for link in re.findall(r"\]\(([^)#\s]+)", door.read_text(encoding="utf-8"))
    }
    documents = set((ROOT / "docs").glob("*.md")) | set((ROOT / "docs" / "developer").glob("*.md"))
    assert documents - listed - {*DOORS, ROOT / "docs/README.md"} == set()
