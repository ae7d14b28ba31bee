"""What commands, a reload and a restart do with pseudonyms."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import httpx
import pytest
from click.testing import CliRunner, Result

from exporter.cli import flags as cli_flags
from exporter.cli import whois
from exporter.cli.main import main
from exporter.config import ConfigError, load
from exporter.privacy.pseudonyms import Pseudonyms, read_key
from exporter.runtime.exporter import Exporter
from exporter.web.routes import ReloadFailed
from tests.support import communicator_db as db
from tests.support.files import open_the_way_to, unprivileged
from tests.support.logs import recorded_logs
from tests.support.process import wait_for
from tests.support.sshd import free_port

CASE, BEAM = "MRN-4711^KIM", "MRN-4711^KIM_1"


class Site:
    """A database with one beam, a key, and a configuration that names both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = db.make(folder / "mqi.db")
        db.add(self.database, BEAM, "completed", case_id=CASE)
        self.key_file = folder / "pseudonyms.key"
        self.key_file.write_bytes(b"correct horse battery staple, and some more\n")
        self.key_file.chmod(0o600)
        self.config = folder / "exporter.yaml"
        self.configure(f"{{identifiers: pseudonym, key_file: {self.key_file}}}")

    def configure(self, privacy: str, further: str = "") -> None:
        self.config.write_text(
            f"base_directory: {self.folder}\ndatabase: {{path: {self.database}}}\nprivacy: {privacy}\n"
            f"web: {{listen_address: '127.0.0.1:0'}}\n"
            f"state: {{file: {self.folder}/state.db, interval_seconds: 0.1}}\n{further}",
            encoding="utf-8",
        )

    @property
    def shown(self) -> Pseudonyms:
        return Pseudonyms(read_key(self.key_file))

    def call(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--config.file", str(self.config)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the system's log would listen."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind("log")
        log.settimeout(10)
        monkeypatch.setattr(whois, "SYSTEM_LOG", Path("log"))
        yield log


# whois


def test_whois_finds_cases_and_beams_that_are_long_over(site: Site) -> None:
    case, beam = site.shown.case(CASE), site.shown.beam(BEAM)
    result = site.call("whois", case, f" {beam.upper()}")
    assert result.exit_code == 0
    assert result.stdout == f"{case} is case {CASE}\n{beam} is beam {BEAM} of case {CASE}\n"


def test_whois_logs_the_request_to_the_system_log_without_the_id(site: Site, system_log: socket.socket) -> None:
    case = site.shown.case(CASE)
    result = site.call("whois", case)
    line = system_log.recv(1000).decode()
    assert re.fullmatch(rf"<85>mqi-exporter\[\d+\]: whois {case} asked for by user=\S+ uid={os.getuid()}.*", line)
    assert CASE not in line + result.stderr
    assert "there is no system log" not in result.stderr


def test_whois_ends_with_status_1_for_an_unknown_pseudonym(site: Site) -> None:
    result = site.call("whois", site.shown.case(CASE), "case-aaaaaaaaaaaa")
    assert result.exit_code == 1
    assert "no case or beam matches case-aaaaaaaaaaaa" in result.stderr
    assert CASE in result.stdout


def test_whois_logs_no_argument_that_is_not_a_pseudonym(site: Site, system_log: socket.socket) -> None:
    result = site.call("whois", CASE)
    assert result.exit_code == 2
    assert "argument 1 is no pseudonym; one is case- or beam- and at least 12" in result.stderr
    assert CASE not in result.output
    system_log.setblocking(False)
    with pytest.raises(BlockingIOError):
        system_log.recv(1000)


def test_whois_names_arguments_that_are_not_pseudonyms_by_position(site: Site, system_log: socket.socket) -> None:
    case, stranger = site.shown.case(CASE), "case-aaaaaaaaaaaa"
    result = site.call("whois", CASE, case, "case-1")
    assert (result.exit_code, result.stdout) == (2, f"{case} is case {CASE}\n")
    assert "arguments 1 and 3 are no pseudonyms; one is" in result.stderr
    assert f"whois {case} asked for by" in system_log.recv(1000).decode()
    result = site.call("whois", stranger, CASE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "argument 2 is no pseudonym; one is" in result.stderr
    assert f"no case or beam matches {stranger}" in result.stderr
    assert CASE not in result.stderr + system_log.recv(1000).decode()


def test_whois_needs_the_key_and_pseudonyms(site: Site) -> None:
    pseudonym = site.shown.case(CASE)
    site.key_file.chmod(0o644)
    result = site.call("whois", pseudonym)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{site.config}:3: privacy.key_file: {site.key_file} can be read or changed by others" in result.stderr
    site.configure("{identifiers: plain}")
    assert "there are no pseudonyms" in site.call("whois", pseudonym).stderr


def test_whois_reads_names_of_log_files_without_a_database(site: Site) -> None:
    (site.folder / "logs").mkdir()
    (site.folder / "logs" / "Doe_7.log").touch()
    site.configure(
        f"{{identifiers: pseudonym, key_file: {site.key_file}}}",
        f"discovery: {{kind: directory}}\nsources: [{{log_path: '{site.folder}/logs/{{case_id}}_{{beam_id}}.log'}}]\n"
        "mirror: {enabled: false}\n",
    )
    site.config.write_text(re.sub("database: .*\n", "", site.config.read_text(encoding="utf-8")), encoding="utf-8")
    assert site.call("whois", site.shown.case("Doe")).stdout.endswith("is case Doe\n")


# Others


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda key_file: key_file.write_bytes(b"short\n"), "holds fewer than 32 bytes"),
        (lambda key_file: key_file.chmod(0o644), "can be read or changed by others (mode 0644); chmod 600"),
        (lambda key_file: key_file.unlink(), "does not exist; make one"),
    ],
    ids=["short", "readable", "missing"],
)
def test_a_key_that_cannot_be_used_is_named_with_file_line_and_key(
    site: Site, spoil: Callable[[Path], object], wrong: str
) -> None:
    site.configure(f"\n  identifiers: pseudonym\n  key_file: {site.key_file}")
    assert site.call("check-config").exit_code == 0
    exporter = Exporter(load(site.config), lambda: load(site.config))
    spoil(site.key_file)
    said = f"{site.config}:5: privacy.key_file: {site.key_file} {wrong}"
    try:
        with pytest.raises(ReloadFailed) as refused:
            exporter.reload()
        assert str(refused.value).startswith(said)
    finally:
        exporter.stop()
    # A flag on top of the file changes nothing about where its keys stand.
    for command in (["check-config"], ["run", "--log.level", "error"]):
        result = site.call(*command)
        assert result.exit_code == 1
        assert f"mqi-exporter: {said}" in result.output


def test_users_who_may_see_ids_need_a_password(site: Site) -> None:
    privacy = f"\n  identifiers: pseudonym\n  key_file: {site.key_file}\n  resolve_for:\n  - physicist\n  - nobody"
    site.configure(privacy)
    wrong = "no such user in basic_auth_users of the web configuration (web.config_file), and there is none"
    assert site.call("check-config").output.splitlines() == [
        f"mqi-exporter: {site.config}:7: privacy.resolve_for[0]: 'physicist': {wrong}; who may see ids must log in",
        f"{site.config}:8: privacy.resolve_for[1]: 'nobody': {wrong}; who may see ids must log in",
    ]
    web = site.folder / "web.yaml"
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(10)).decode()
    web.write_text(f"basic_auth_users: {{physicist: '{hashed}'}}\n", encoding="utf-8")
    web.chmod(0o600)
    for command in ("check-config", "run"):
        result = site.call(command, "--web.config.file", str(web))
        assert result.exit_code == 1
        said = f"{site.config}:8: privacy.resolve_for[1]: 'nobody': no such user in basic_auth_users of {web}"
        assert said in result.output
    site.configure(privacy.replace("\n  - physicist\n  - nobody", " nobody"))
    said = f"{site.config}:6: privacy.resolve_for: 'nobody': no such user"
    assert said in site.call("check-config", "--web.config.file", str(web)).output
    site.configure(privacy.replace("\n  - nobody", ""))
    assert site.call("check-config", "--web.config.file", str(web)).exit_code == 0


def test_showing_ids_to_a_user_is_counted(site: Site) -> None:
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(10)).decode()
    web = site.folder / "web.yaml"
    web.write_text(f"basic_auth_users: {{physicist: '{hashed}'}}\n", encoding="utf-8")
    web.chmod(0o600)
    site.configure(f"{{identifiers: pseudonym, key_file: {site.key_file}, resolve_for: physicist}}")
    text = site.config.read_text(encoding="utf-8").replace("web: {", f"web: {{config_file: {web}, ")
    site.config.write_text(text, encoding="utf-8")
    exporter = Exporter(load(site.config), lambda: load(site.config))
    exporter.start()
    try:
        with httpx.Client(base_url=exporter.url, auth=("physicist", "correct horse"), timeout=30) as client:
            wait_for(lambda: site.shown.beam(BEAM) in client.get("/metrics").text, "the beam")
            assert client.get("/api/v1/names").json()["beams"] == {site.shown.beam(BEAM): BEAM}
            assert 'mqi_exporter_names_requests_total{outcome="shown"} 1\n' in client.get("/metrics").text
    finally:
        exporter.stop()


LINE = f"ERROR: cannot write the dose of {BEAM}"


def a_failed_log(site: Site) -> Path:
    log = site.folder / f"{BEAM}.log"
    log.write_text(f"Generating particles for (1 of 2 batches)\n{LINE}\n", encoding="utf-8")
    return log


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_verify_redacts_names_and_lines_where_the_configuration_says_so(site: Site, form: list[str]) -> None:
    logs = [str(a_failed_log(site)), str(site.folder / f"none-{BEAM}.log"), str(site.folder)]
    result = site.call("verify", *form, *logs)
    assert result.exit_code == 1, "two of them cannot be read"
    for number in (1, 2, 3):
        assert f"log {number} of 3" in result.output
    assert "failed" in result.output
    assert CASE not in result.output
    assert str(site.folder) not in result.output


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_verify_redacts_the_path_of_a_dose_file(site: Site, form: list[str]) -> None:
    log = site.folder / "a.log"
    line = f"Successfully wrote DICOM RT Dose file: ../data/Dose_dcm/{CASE}/a.dcm"
    log.write_text(f"{line}\n  Dimensions: 400x400x1\n", encoding="utf-8")
    shown = site.call("verify", *form, str(log)).output
    assert CASE not in shown
    assert "a.dcm" not in shown
    assert "400x400x1" in shown


def test_verify_redacts_also_where_the_configuration_is_not_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", str(site.config))
    log = str(a_failed_log(site))
    result = CliRunner().invoke(main, ["verify", log])
    assert result.output.startswith("log 1 of 1")
    assert CASE not in result.output
    assert result.output == site.call("verify", log).output


def test_verify_shows_nothing_where_it_may_not_read_the_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = str(a_failed_log(site))
    # Its folder is none that may be looked into; root may look into any other.
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", f"/{'x' * 256}/exporter.yaml")
    result = CliRunner().invoke(main, ["verify", log])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exporter.yaml" in result.stderr


def test_verify_without_a_configuration_shows_the_log_it_is_given(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", str(site.folder / "none" / "exporter.yaml"))
    log = str(a_failed_log(site))
    result = CliRunner().invoke(main, ["verify", log])
    assert result.output.startswith(log)
    assert f'failed (output_error): "{LINE}"' in result.output
    site.configure("{identifiers: plain}")
    assert site.call("verify", log).output == result.output


def test_a_key_of_another_user_is_refused_by_the_exporter_and_accepted_by_commands(site: Site) -> None:
    case = site.shown.case(CASE)
    os.chown(site.key_file, 4711, os.getegid())
    site.key_file.chmod(0o640)
    with pytest.raises(ConfigError, match=rf"exporter\.yaml:3: privacy\.key_file: .* run `chown root {site.key_file}`"):
        Exporter(load(site.config), lambda: load(site.config))
    assert site.call("whois", case).stdout == f"{case} is case {CASE}\n"
    assert "belongs to another user" not in site.call("check-config").stderr
    open_the_way_to(site.folder)
    with unprivileged():
        checked = site.call("check-config")
    assert checked.exit_code == 0
    assert f"run `chown nobody {site.key_file}`, unless the exporter runs as its owner" in checked.stderr


def test_migrate_redacts_what_sqlite_says(site: Site) -> None:
    site.database.write_bytes(b"no database at all, but of some length" * 100)
    redacted = site.call("migrate")
    assert (redacted.exit_code, "not_a_database, the rest is redacted" in redacted.stderr) == (1, True)
    site.configure("{identifiers: plain}")
    assert f"{site.database}: file is not a database" in site.call("migrate").stderr


def test_top_shows_no_ids_of_a_table_where_it_may_not_read_the_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", str(site.config))
    look = json.loads(CliRunner().invoke(main, ["top", "--once", "--json", "--database", str(site.database)]).stdout)
    assert [beam["beam_id"] for beam in look["beams"]] == [site.shown.beam(BEAM)]
    site.config.chmod(0o600)
    site.folder.chmod(0o777)
    site.database.chmod(0o666)
    open_the_way_to(site.folder)
    with unprivileged():
        result = CliRunner().invoke(main, ["top", "--once", "--database", str(site.database)])
        asked = CliRunner().invoke(main, ["top", "--once", "--web.listen-address", f"127.0.0.1:{free_port()}"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{site.config}: cannot be read: Permission denied" in result.stderr
    assert "no exporter answers" in asked.stderr


def test_top_shows_no_ids_of_a_table_where_it_may_not_look_for_the_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", f"/{'x' * 256}/exporter.yaml")
    result = CliRunner().invoke(main, ["top", "--once", "--database", str(site.database)])
    assert (result.exit_code, result.stdout) == (1, "")


def test_top_without_a_configuration_shows_the_table_it_is_given(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_flags, "DEFAULT_CONFIG", str(site.folder / "none" / "exporter.yaml"))
    assert BEAM in CliRunner().invoke(main, ["top", "--once", "--database", str(site.database)]).stdout


def test_top_reads_the_table_only_for_who_may_read_the_key(site: Site) -> None:
    look = json.loads(site.call("top", "--once", "--json", "--database").stdout)
    assert [beam["beam_id"] for beam in look["beams"]] == [site.shown.beam(BEAM)]
    site.key_file.chmod(0o644)
    refused = site.call("top", "--once", "--database")
    assert (refused.exit_code, "can be read or changed by others" in refused.stderr) == (1, True)
    site.key_file.unlink()
    # Without the key the exporter is asked, which does not run, and nothing else.
    assert "no exporter answers" in site.call("top", "--once", "--web.listen-address", "127.0.0.1:1").stderr


# Reloading and restarting


def test_a_reload_never_changes_how_ids_are_shown(site: Site) -> None:
    exporter = Exporter(load(site.config), lambda: load(site.config))
    try:
        exporter.reload()
        content = site.key_file.read_bytes()
        site.key_file.write_bytes(b"x" * 40)
        with pytest.raises(ReloadFailed, match=r"exporter\.yaml:3: privacy: has changed, or its key has; restart"):
            exporter.reload()
        site.key_file.unlink()
        with pytest.raises(ReloadFailed, match="does not exist"):
            exporter.reload()
        site.key_file.touch(mode=0o600)
        site.key_file.write_bytes(content)
        exporter.reload()
        site.configure("{identifiers: plain}")
        with pytest.raises(ReloadFailed, match="restart the exporter to change it"):
            exporter.reload()
    finally:
        exporter.stop()


def test_a_reload_names_the_keys_that_need_a_restart(site: Site) -> None:
    exporter = Exporter(load(site.config), lambda: load(site.config))
    try:
        text = site.config.read_text(encoding="utf-8")
        text += "log: {level: debug}\n"
        text = text.replace("web: {", "web: {enable_lifecycle: true, grafana_url: 'http://grafana.example', ")
        site.config.write_text(text.replace("interval_seconds: 0.1", "interval_seconds: 7"), encoding="utf-8")
        with recorded_logs() as logs:
            exporter.reload()
        assert [(entry["event"], entry["keys"]) for entry in logs if "keys" in entry] == [
            ("settings of the web server take effect at the next start only", "web.enable_lifecycle, web.grafana_url"),
            ("settings of the state file take effect at the next start only", "state.interval_seconds"),
            ("settings of the log take effect at the next start only", "log.level"),
        ]
        with recorded_logs() as logs:
            exporter.reload()
        assert [entry["event"] for entry in logs if "keys" in entry] == [], "said once for a change"
    finally:
        exporter.stop()


def test_a_status_added_by_a_reload_is_shown(site: Site) -> None:
    """The store goes by statuses: one that is redacted could not say that a beam simulates."""
    db.execute(site.database, "UPDATE beams SET status = 'at_the_gpu'")
    privacy = f"{{identifiers: pseudonym, key_file: {site.key_file}}}"
    site.configure(privacy, "discovery: {interval_seconds: 0.1}\n")
    exporter = Exporter(load(site.config), lambda: load(site.config))
    exporter.start()

    def status() -> str | None:
        beams = exporter._snapshot().beams
        return beams[0].row.status if beams else None

    try:
        wait_for(lambda: status() == "redacted", "the beam")
        site.configure(privacy, "discovery: {interval_seconds: 0.1, simulating_statuses: [at_the_gpu]}\n")
        exporter.reload()
        wait_for(lambda: status() == "at_the_gpu", "its status")
    finally:
        exporter.stop()


def test_a_start_without_the_key_is_refused(site: Site) -> None:
    site.key_file.unlink()
    with pytest.raises(ConfigError, match="openssl rand"):
        Exporter(load(site.config), lambda: load(site.config))


def test_the_state_goes_on_after_a_restart_and_a_change_to_pseudonyms_and_not_back(site: Site) -> None:
    state = site.folder / "state.db"

    def run(privacy: str) -> list[str]:
        site.configure(privacy)
        with recorded_logs() as logs:
            exporter = Exporter(load(site.config), lambda: load(site.config))
            exporter.start()
            wait_for(lambda: len(exporter._snapshot().beams) == 1 and state.exists(), "the beam, and the state")
            exporter.stop()
        return [entry["event"] for entry in logs if "restart" in entry["event"] or "state" in entry["event"]]

    redacted = f"{{identifiers: pseudonym, key_file: {site.key_file}}}"
    assert run("{identifiers: plain}") == []
    assert BEAM in state.read_bytes().decode("latin-1")
    for _ in range(2):
        assert run(redacted) == ["going on after a restart"]
        assert BEAM not in state.read_bytes().decode("latin-1")
    refused = ["state file cannot be used: all logs are read again from their beginning"]
    site.key_file.write_bytes(b"x" * 40)
    assert run(redacted) == refused
    assert run("{identifiers: plain}") == refused
