"""``mqi-exporter init``: from the communicator's configuration, of either revision, to one that works beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.cli.main import main
from exporter.config import ConfigError, Settings, SshSourceSettings, settings_from
from exporter.integrations.communicator import ConfigDraft, draft_config
from tests.support import communicator_db as db
from tests.support.process import ExporterProcess, wait_for
from tests.support.replay import LOGS

DATA = Path(__file__).parents[2] / "data" / "communicator"
PLAN = (DATA / "plan.config.yaml").read_text(encoding="utf-8")
NEWEST = (DATA / "newest.config.yaml").read_text(encoding="utf-8")


def made(folder: Path, text: str, *changes: tuple[str, str], base_directory: str | None = None) -> ConfigDraft:
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return draft_config(path, base_directory=base_directory)


def settings(draft: ConfigDraft) -> Settings:
    return settings_from(draft.text, "made")


def checks(draft: ConfigDraft) -> str:
    return "\n".join(draft.checks)


def wrong(folder: Path, text: str, *changes: tuple[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        made(folder, text, *changes)
    [mistake] = caught.value.mistakes
    assert mistake.startswith(str(folder / "config.yaml"))
    return mistake


def test_a_configuration_is_made_for_the_plans_revision(tmp_path: Path) -> None:
    draft = made(tmp_path, PLAN)
    found = settings(draft)
    [source] = found.sources
    assert found.base_directory == "/srv/example"
    assert (source.kind, source.log_path) == ("local", ("{base_directory}/tps_env/logs/{case_id}_{beam_id}.log",))
    assert found.database is not None
    assert (str(found.database.path), found.database.migrate) == ("/srv/example/data/mqi_communicator.db", True)
    assert (found.mirror.enabled, found.mirror.range) == (True, (0, 100))
    assert "# communicator: paths.local.remote_log_path" in draft.text
    assert "# communicator: paths.local.database_path" in draft.text


def test_at_the_plan_revision_local_simulations_write_no_log_and_that_is_said_first(tmp_path: Path) -> None:
    first = made(tmp_path, PLAN).checks[0]
    assert first.startswith("NO LOG IS WRITTEN: command_templates.local.remote_submit_simulation")
    changed = made(tmp_path, PLAN, ("./tps_env {tps_input_file}\n", "./tps_env {tps_input_file} > {remote_log_path}\n"))
    assert "NO LOG" not in checks(changed)
    assert "2>&1" in checks(changed)


def test_a_command_that_is_a_script_must_be_checked_by_hand(tmp_path: Path) -> None:
    script = made(tmp_path, PLAN, ("cd {mqi_run_dir} && ./tps_env {tps_input_file}\n", "sbatch run.sh {beam_id}\n"))
    assert "command_templates.local.remote_submit_simulation does not show where the log goes" in checks(script)
    none = made(tmp_path, PLAN, ("    remote_submit_simulation: cd", "    something_else: cd"))
    assert "there is no command for local simulations" in checks(none)
    assert "NO LOG" not in checks(script) + checks(none)


def test_a_configuration_is_made_for_the_newest_revision(tmp_path: Path) -> None:
    draft = made(tmp_path, NEWEST)
    found = settings(draft)
    assert found.sources[0].log_path == ("{base_directory}/mqi_communicator/logs/sim_{beam_id}.log",)
    assert found.database is not None
    assert (str(found.database.path), found.database.migrate) == ("/srv/example/data/mqi_communicator.db", False)
    assert (found.mirror.enabled, found.mirror.range) == (True, (40, 90))
    assert "NO LOG" not in checks(draft)


def test_simulations_on_a_host_become_a_source_of_kind_ssh(tmp_path: Path) -> None:
    draft = made(tmp_path, PLAN, ("HpcJobSubmitter: local", "HpcJobSubmitter: remote"))
    [source] = settings(draft).sources
    assert isinstance(source, SshSourceSettings)
    assert (source.host, source.port, source.user) == ("hpc1.example", 2222, "simulations")
    assert str(source.key_file) == "/srv/example/keys/hpc1"
    assert source.connect_timeout_seconds == 30
    assert source.log_path == ("{base_directory}/tps_env/logs/{case_id}_{beam_id}.log",)
    for word in ("NO LOG", "ExecutionHandler"):
        assert word not in checks(draft)
    for word in ("known_hosts_file", "key_file", "base directory of its own machine"):
        assert word in checks(draft)


@pytest.mark.parametrize(
    ("secret", "key"),
    [("password", "password_file"), ("key_passphrase", "passphrase_file"), ("auth_token", "password_file")],
)
def test_secrets_are_named_and_not_copied(tmp_path: Path, secret: str, key: str) -> None:
    remote = ("HpcJobSubmitter: local", "HpcJobSubmitter: remote")
    draft = made(tmp_path, PLAN, remote, ("    user: simulations\n", f"    user: simulations\n    {secret}: hunter2\n"))
    assert "hunter2" not in draft.text
    assert f"connections.hpc.{secret} is a secret and was not copied" in checks(draft)
    assert f"# {key}: " in draft.text


def test_a_key_that_stands_in_the_file_itself_is_not_copied(tmp_path: Path) -> None:
    remote = ("HpcJobSubmitter: local", "HpcJobSubmitter: remote")
    draft = made(tmp_path, PLAN, remote, ("/srv/example/keys/hpc1", "'-----BEGIN OPENSSH PRIVATE KEY----- hunter2'"))
    assert "hunter2" not in draft.text
    assert "connections.hpc.ssh_key_path holds is no absolute path" in checks(draft)


def test_a_log_in_the_home_folder_of_the_host_must_be_checked_by_hand(tmp_path: Path) -> None:
    remote = ("HpcJobSubmitter: local", "HpcJobSubmitter: remote")
    text, _, tail = PLAN.rpartition("'{mqi_run_dir}/logs/{case_id}_{beam_id}.log'")
    draft = made(tmp_path, text + "~/SMC/{beam_id}.log" + tail, remote)
    assert settings(draft).sources[0].log_path == ("/home/simulations/SMC/{beam_id}.log",)
    assert "/home/simulations" in checks(draft)


@pytest.mark.parametrize(
    ("running", "enabled", "scale"),
    [("40.0", True, (40, 90)), ("70.0", True, (30, 90)), ("55.0", False, (0, 100))],
)
def test_the_mirror_agrees_with_what_the_communicator_writes_itself(
    tmp_path: Path, running: str, enabled: bool, scale: tuple[int, int]
) -> None:
    found = settings(made(tmp_path, NEWEST, ("HPC_RUNNING: 40.0", f"HPC_RUNNING: {running}")))
    assert (found.mirror.enabled, found.mirror.range) == (enabled, scale)


@pytest.mark.parametrize(("enabled", "mirrored"), [("true", False), ("false", True)])
def test_the_mirror_is_off_if_the_communicator_writes_progress_itself(
    tmp_path: Path, enabled: str, mirrored: bool
) -> None:
    section = f"""
progress_tracking:
  enabled: {enabled}
  patterns:
    total_batches: "with (\\\\d+) batches"
    current_batch: "Batch (\\\\d+) of (\\\\d+)"
  monitoring:
    poll_interval_seconds: 0.25
    update_throttle_percent: 2.0
    timeout_seconds: 7200
"""
    found = settings(made(tmp_path, PLAN + section))
    assert found.mirror.enabled is mirrored
    assert found.progress_tracking.enabled
    assert found.progress_tracking.patterns.total_batches == ()
    assert found.progress_tracking.patterns.current_batch == (r"Batch (\d+) of (\d+)",)
    monitoring = found.progress_tracking.monitoring
    assert (monitoring.poll_interval_seconds, monitoring.update_throttle_percent) == (0.25, 2)
    assert monitoring.timeout_seconds == 7200


def test_completion_markers_that_are_built_in_are_not_repeated_and_others_are_taken_literally(tmp_path: Path) -> None:
    assert settings(made(tmp_path, PLAN)).completion_markers.failure_patterns == ()
    draft = made(
        tmp_path,
        PLAN,
        ("- FATAL ERROR", "- FATAL ERROR\n  - 'Dose (Gy) is [nan]'"),
        ("completed successfully", "is over."),
    )
    assert settings(draft).completion_markers.failure_patterns == (r"Dose \(Gy\) is \[nan\]",)
    assert settings(draft).completion_markers.success_patterns == (r"Simulation is over\.",)
    assert "mqi-exporter verify" in checks(draft)


def test_a_line_before_the_dose_is_saved_is_not_taken_for_success(tmp_path: Path) -> None:
    draft = made(tmp_path, PLAN, ("Simulation completed successfully", "Simlulation finalizing.."))
    assert settings(draft).completion_markers.success_patterns == ()
    assert "does not count as the end of a run" in checks(draft)


def test_text_of_the_communicator_cannot_leave_its_comment_or_value(tmp_path: Path) -> None:
    marker = r"- 'ok'" + '\n  - "a\\nmirror: {enabled: false}\\u2028b \\U0001F600"'
    draft = made(tmp_path, PLAN, ("- FATAL ERROR", marker))
    found = settings(draft)
    assert found.mirror.enabled
    assert found.completion_markers.failure_patterns == (
        "ok",
        "a\nmirror: \\{enabled: false\\}\u2028b \U0001f600",
    )


class TestBaseDirectory:
    EMPTY = ("base_directory: /srv/example", "base_directory: ''")

    def test_the_base_directory_may_be_given(self, tmp_path: Path) -> None:
        draft = made(tmp_path, NEWEST, self.EMPTY, base_directory="/opt/smc")
        assert settings(draft).base_directory == "/opt/smc"

    def test_an_empty_base_directory_comes_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOQUI_SMC_ROOT", "/opt/from-environment")
        draft = made(tmp_path, NEWEST, self.EMPTY)
        assert settings(draft).base_directory == "/opt/from-environment"
        assert "MOQUI_SMC_ROOT" in checks(draft)

    def test_or_else_it_is_the_folder_around_the_communicators_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MOQUI_SMC_ROOT", raising=False)
        folder = tmp_path / "mqi_communicator" / "config"
        folder.mkdir(parents=True)
        assert settings(made(folder, NEWEST, self.EMPTY)).base_directory == str(tmp_path)

    def test_or_else_the_base_directory_must_be_given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MOQUI_SMC_ROOT", raising=False)
        assert "paths.base_directory: is empty" in wrong(tmp_path, NEWEST, self.EMPTY)

    def test_a_base_directory_of_another_system_must_be_given(self, tmp_path: Path) -> None:
        assert "--base-directory" in wrong(
            tmp_path, NEWEST, ("base_directory: /srv/example", r"base_directory: C:\SMC")
        )


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (
            PLAN,
            "HpcJobSubmitter: local",
            "HpcJobSubmitter: cloud",
            "ExecutionHandler.HpcJobSubmitter: must be local or",
        ),
        (PLAN, "HpcJobSubmitter: local", "HpcJobSubmitter: [a]", "ExecutionHandler.HpcJobSubmitter: must be text"),
        (NEWEST, "    log_path:", "    other_path:", "paths.local.log_path: is missing"),
        (NEWEST, "    database_path:", "    other_path:", "paths.local.database_path: is missing"),
        (
            NEWEST,
            "'{base_directory}/data/mqi_communicator.db'",
            "data/mqi.db",
            "paths.local.database_path: 'data/mqi.db'",
        ),
        (
            NEWEST,
            "'{base_directory}/data/mqi_communicator.db'",
            "'/x/{case_id}.db'",
            "database_path: differs from beam",
        ),
        (NEWEST, "sim_{beam_id}.log", "sim_{unheard}.log", "paths.local.log_path: {unheard} is not known"),
        (NEWEST, "sim_{beam_id}.log", "sim.log", "names no beam"),
        (
            NEWEST,
            "'{base_directory}/mqi_communicator/logs/",
            "'logs/",
            "paths.local.log_path: 'logs/sim_{beam_id}.log' is",
        ),
        (PLAN, "'{tps_dir}'", "'{mqi_run_dir}/x'", "paths.local.remote_log_path: its placeholders lead back"),
        (PLAN, "'{tps_dir}'", "'{mqi_run_dir}{mqi_run_dir}{mqi_run_dir}{mqi_run_dir}{mqi_run_dir}'", "lead back"),
        (NEWEST, "HPC_RUNNING: 40.0", "HPC_RUNNING: forty", "HPC_RUNNING: must be a finite number, not text"),
        (
            NEWEST,
            "  success_pattern: 'Total execution time:'",
            "  success_pattern: [1]",
            "completion_markers.success_patt",
        ),
        (NEWEST, "paths:", "paths: 3\nother:", "paths: must be a section"),
        (NEWEST, "paths:", "paths: {", "not valid YAML"),
        (NEWEST, "paths:", "ui:\n  mode: x\npaths:", "ui: given twice"),
    ],
)
def test_what_is_missing_or_broken_is_one_error_with_file_and_key(
    tmp_path: Path, text: str, old: str, new: str, says: str
) -> None:
    assert says in wrong(tmp_path, text, (old, new))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    host: hpc1.example\n", "", "connections.hpc.host: is missing"),
        ("host: hpc1.example", "host: 'user:hunter2@hpc1'", "connections.hpc.host: is no host name"),
        ("port: 2222", "port: 99999", "connections.hpc.port: is no port"),
        ("  hpc:\n", "  hpc: hunter2\n  other:\n", "connections.hpc: must be a section"),
    ],
)
def test_a_connection_that_is_missing_or_broken_is_one_error_that_quotes_no_secret(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    mistake = wrong(tmp_path, PLAN, ("HpcJobSubmitter: local", "HpcJobSubmitter: remote"), (old, new))
    assert says in mistake
    if "@" in new:
        assert "hunter2" not in mistake


def test_a_file_of_another_program_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("scrape_configs: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a configuration of the communicator"):
        draft_config(path)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.lists(st.text(max_size=5), max_size=2),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    st.text(max_size=20),
    st.sampled_from(
        ["{", "{}", "{0}", "{case_id", "{local}", "{room}", "~", "/", "..", "/x/{beam_id}", "local", "remote"]
    ),
)
PLACES = [
    ("paths",),
    ("paths", "base_directory"),
    ("paths", "remote"),
    ("paths", "local", "remote_log_path"),
    ("paths", "remote", "remote_log_path"),
    ("paths", "local", "mqi_run_dir"),
    ("paths", "local", "database_path"),
    ("ExecutionHandler", "HpcJobSubmitter"),
    ("connections",),
    *(("connections", "hpc", name) for name in ("host", "user", "ssh_key_path", "port", "connection_timeout_seconds")),
    ("command_templates",),
    ("command_templates", "remote", "remote_submit_simulation"),
    ("completion_markers",),
    ("completion_markers", "success_pattern"),
    ("completion_markers", "failure_patterns"),
    ("progress_tracking",),
    *(("progress_tracking", "patterns", name) for name in ("total_batches", "current_batch")),
    *(("progress_tracking", "monitoring", name) for name in ("poll_interval_seconds", "timeout_seconds")),
    ("progress_tracking", "coarse_phase_progress", "HPC_RUNNING"),
]


@given(mode=st.sampled_from(["local", "remote"]), changes=st.dictionaries(st.sampled_from(PLACES), ODD, max_size=4))
@example(mode="remote", changes={("connections", "hpc", "port"): float("nan")})
@example(mode="remote", changes={("connections", "hpc", "connection_timeout_seconds"): float("inf")})
def test_any_file_gives_a_valid_configuration_or_an_error_with_its_name(
    tmp_path_factory: pytest.TempPathFactory, mode: str, changes: dict[tuple[str, ...], object]
) -> None:
    data: Any = yaml.safe_load(PLAN.replace("HpcJobSubmitter: local", f"HpcJobSubmitter: {mode}"))
    for place, value in changes.items():
        node = data
        for part in place[:-1]:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        node[place[-1]] = value
    path = tmp_path_factory.mktemp("odd") / "config.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    mistakes: tuple[str, ...] = ()
    try:
        settings(draft_config(path))
    except ConfigError as error:
        mistakes = error.mistakes
    assert all(mistake.startswith(str(path)) for mistake in mistakes)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


class TestCommand:
    def test_prints_the_configuration(self) -> None:
        result = call("--communicator", DATA / "newest.config.yaml")
        assert result.exit_code == 0
        assert settings_from(result.stdout, "made").database is not None

    def test_writes_a_file_and_never_over_one(self, tmp_path: Path) -> None:
        output = tmp_path / "exporter.yaml"
        arguments: list[str | Path] = ["--communicator", DATA / "plan.config.yaml", "--output", output]
        first = call(*arguments)
        assert (first.exit_code, first.stdout) == (0, "")
        assert "things to check by hand" in first.stderr
        output.write_text("kept: true\n", encoding="utf-8")
        second = call(*arguments)
        assert second.exit_code == 1
        assert "--force" in second.output
        assert output.read_text(encoding="utf-8") == "kept: true\n"
        assert call(*arguments, "--force").exit_code == 0
        assert CliRunner().invoke(main, ["--config.file", str(output), "check-config"]).exit_code == 0

    def test_a_missing_file_is_one_line_that_names_it(self, tmp_path: Path) -> None:
        result = call("--communicator", tmp_path / "none.yaml")
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert str(tmp_path / "none.yaml") in result.output

    def test_an_output_that_cannot_be_written_is_reported(self, tmp_path: Path) -> None:
        result = call("--communicator", DATA / "plan.config.yaml", "--output", tmp_path / "none" / "x.yaml")
        assert result.exit_code == 1
        assert "cannot be written" in result.output


@pytest.mark.parametrize(
    ("name", "beams", "status", "beam_id", "log", "low", "high"),
    [
        ("plan", db.PLAN_BEAMS, "csv_interpreting", "04010004_beam 1 (G90)", "tps_env/logs/{case}_{beam}.log", 0, 100),
        (
            "newest",
            db.NEWEST_BEAMS,
            "simulation_running",
            "04010004_beam_1",
            "mqi_communicator/logs/sim_{beam}.log",
            40,
            90,
        ),
    ],
)
def test_the_made_configuration_works_with_a_database_of_that_revision(
    tmp_path: Path, name: str, beams: str, status: str, beam_id: str, log: str, low: float, high: float
) -> None:
    """From ``init`` to the number in the column, with nothing changed by hand."""
    communicator = tmp_path / "config.yaml"
    text = (DATA / f"{name}.config.yaml").read_text(encoding="utf-8").replace("/srv/example", str(tmp_path))
    communicator.write_text(text, encoding="utf-8")
    (tmp_path / "data").mkdir()
    database = db.make(tmp_path / "data" / "mqi_communicator.db", beams)
    db.add(database, beam_id, status, "04010004")
    path = tmp_path / log.format(case="04010004", beam=beam_id)
    path.parent.mkdir(parents=True)
    data = (LOGS / "v2_b18.log").read_bytes()
    path.write_bytes(data[: data.index(b"Generating particles for (6 of 18")])
    output = tmp_path / "exporter.yaml"
    assert call("--communicator", communicator, "--output", output).exit_code == 0
    with ExporterProcess("--config.file", output, "--web.listen-address", "127.0.0.1:0") as exporter:
        wait_for(lambda: exporter.value("mqi_beam_batch_current", beam_id=beam_id) == 5, "the fifth batch")
        expected = low + (high - low) * 5 / 18

        def shown() -> bool:
            columns = [row[1] for row in db.execute(database, "PRAGMA table_info(beams)")]
            return "progress" in columns and db.progress(database, beam_id) == pytest.approx(expected, abs=0.01)

        wait_for(shown, "progress in the column")
    assert db.execute(database, "SELECT status FROM beams") == [(status,)]
