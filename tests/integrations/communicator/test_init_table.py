"""``mqi-exporter init`` looks at the communicator's table, too: it tells what the configuration does not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli.main import main
from exporter.config import Settings, SshSourceSettings, settings_from
from exporter.integrations.communicator import ConfigDraft, draft_config
from exporter.integrations.communicator.table import TableState, inspect_table
from tests.support import communicator_db as db

DATA = Path(__file__).parents[2] / "data" / "communicator"
PLAN = (DATA / "plan.config.yaml").read_text(encoding="utf-8")
NEWEST = (DATA / "newest.config.yaml").read_text(encoding="utf-8")
REDIRECTED = PLAN.replace(
    "./tps_env {tps_input_file}\n    check", "./tps_env {tps_input_file} > {remote_log_path} 2>&1\n    check"
)
LATER = REDIRECTED.replace(
    "'{mqi_run_dir}/logs/{case_id}_{beam_id}.log'",
    "'{base_directory}/mqi_communicator/logs/sim_{case_id}_{beam_id}.log'",
)
WITHOUT_SECTION = NEWEST[: NEWEST.index("progress_tracking:")] + NEWEST[NEWEST.index("completion_markers:") :]
assert len({PLAN, REDIRECTED, LATER}) == 3

PHASES = (0.0, 10.0, 30.0, 70.0, 85.0, 100.0)


class Communicator:
    """A communicator's configuration and database in a folder."""

    def __init__(self, folder: Path, text: str, columns: str | None = db.NEWEST_BEAMS) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(text.replace("/srv/example", str(folder)), encoding="utf-8")
        self.database = folder / "data" / "mqi_communicator.db"
        self.database.parent.mkdir()
        if columns is not None:
            db.make(self.database, columns)

    def rows(self, values: tuple[float, ...], status: str = "simulation_running") -> Communicator:
        for number, value in enumerate(values):
            db.add(self.database, f"secret{number}", status, "secret")
            db.execute(self.database, "UPDATE beams SET progress = ? WHERE beam_id = ?", value, f"secret{number}")
        return self

    def draft(self) -> ConfigDraft:
        return draft_config(self.config)

    @property
    def settings(self) -> Settings:
        return settings_from(self.draft().text, "made")

    @property
    def checks(self) -> str:
        return "\n".join(self.draft().checks)


@pytest.mark.parametrize(
    ("text", "columns", "values", "migrate", "scale", "because"),
    [
        (PLAN, db.PLAN_BEAMS, (), True, (0, 100), "The table has no column progress: this revision writes none."),
        (REDIRECTED, db.PLAN_BEAMS, (), True, (0, 100), "The table has no column progress: this revision writes none."),
        (PLAN, db.NEWEST_BEAMS, PHASES, False, (0, 100), "10, 70, 85 are in the column: this revision writes fixed"),
        (LATER, db.NEWEST_BEAMS, PHASES, False, (30, 90), "10, 70, 85 are in the column; there is no section"),
        (LATER, db.NEWEST_BEAMS, (0.0, 30 + 60 * 5 / 18), False, (30, 90), "46.6667 is in the column; there is no"),
        (REDIRECTED, db.NEWEST_BEAMS, (30 + 60 / 7,), False, (30, 90), "38.5714 is in the column: the communicator"),
        (WITHOUT_SECTION, db.NEWEST_BEAMS, (70.0, 85.0), False, (30, 90), "70, 85 are in the column; there is no"),
        (NEWEST, db.NEWEST_BEAMS, (0.0, 40.0, 40 + 50 * 5 / 18), False, (40, 90), "coarse_phase_progress.HPC_RUNNING"),
        (
            NEWEST,
            db.NEWEST_BEAMS,
            (0.0, 40.0, 30 + 60 / 18),
            False,
            (30, 90),
            "33.3333 is in the column: the communicator",
        ),
        (PLAN, db.NEWEST_BEAMS, (0.0, 27.78), False, (0, 100), "27.78 is in the column, which was written as 0 to 100"),
    ],
)
def test_the_scale_is_inferred_from_configuration_and_table_together(
    tmp_path: Path,
    text: str,
    columns: str,
    values: tuple[float, ...],
    migrate: bool,
    scale: tuple[int, int],
    because: str,
) -> None:
    communicator = Communicator(tmp_path, text, columns).rows(values)
    found = communicator.settings
    assert found.database is not None
    assert (found.mirror.enabled, found.mirror.range, found.database.migrate) == (True, scale, migrate)
    said = " ".join(line.strip().removeprefix("# ") for line in communicator.draft().text.splitlines())
    assert because in said
    assert "is an assumption" not in communicator.checks
    assert "secret" not in communicator.draft().text.replace(str(tmp_path), "")


@pytest.mark.parametrize(("text", "scale"), [(PLAN, (0, 100)), (LATER, (30, 90)), (WITHOUT_SECTION, (30, 90))])
@pytest.mark.parametrize("there", [True, False])
def test_an_unproven_scale_is_called_an_assumption(
    tmp_path: Path, text: str, scale: tuple[int, int], there: bool
) -> None:
    communicator = Communicator(tmp_path, text, db.NEWEST_BEAMS if there else None)
    if there:
        communicator.rows((0.0, 100.0))
    assert communicator.settings.mirror.range == scale
    assert f"mirror.range: {list(scale)} is an assumption" in communicator.checks
    assert ("could not be read" in communicator.checks) is not there


def test_the_new_column_may_be_that_of_a_communicator_that_has_not_been_started_yet(tmp_path: Path) -> None:
    found = Communicator(tmp_path, NEWEST, db.PLAN_BEAMS).settings
    assert found.database is not None
    assert (found.database.migrate, found.mirror.range) == (True, (40, 90))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.write_bytes(b"no database, but long enough to have a head" * 20), "not a database"),
        (lambda path: path.mkdir(), "it is not a file"),
        (lambda path: path.write_bytes(b""), "it has no table beams"),
        (lambda path: db.make(path, "CREATE TABLE beams (id TEXT)"), "it has no table beams"),
    ],
)
def test_an_unreadable_database_is_reported_and_stops_nothing(tmp_path: Path, make: object, says: str) -> None:
    communicator = Communicator(tmp_path, PLAN, None)
    assert callable(make)
    make(communicator.database)
    assert says in communicator.checks
    assert communicator.settings.mirror.range == (0, 100)


def test_rows_only_in_the_wal_are_read_and_nothing_is_changed(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, LATER)
    writer = db.connect(communicator.database)
    writer.execute(
        "INSERT INTO beams (beam_id, parent_case_id, beam_path, status, progress) VALUES ('b', 'c', '/', 'x', 33.5)"
    )
    folder = communicator.database.parent
    assert "mqi_communicator.db-wal" in os.listdir(folder)

    def files() -> dict[str, tuple[bytes, int]]:
        return {each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in folder.iterdir()}

    before = files()
    table = inspect_table(communicator.database)
    assert (table.state, table.values, table.statuses) == (TableState.READ, (33.5,), ("x",))
    assert files() == before
    writer.close()
    assert os.listdir(folder) == ["mqi_communicator.db"], "their own last connection can take the -wal away"
    assert inspect_table(communicator.database).values == (33.5,)
    assert os.listdir(folder) == ["mqi_communicator.db"]


def test_a_lock_of_the_communicator_is_neither_waited_for_nor_disturbed(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, LATER).rows((50.5,))
    writer = db.connect(communicator.database)
    writer.execute("BEGIN EXCLUSIVE")
    assert inspect_table(communicator.database).values == (50.5,)
    writer.execute("UPDATE beams SET progress = 60")
    writer.execute("COMMIT")
    writer.close()


def test_a_database_that_changes_all_the_time_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    communicator = Communicator(tmp_path, LATER)
    copy = shutil.copyfile

    def copy_while_written(source: Path, target: Path) -> None:
        copy(source, target)
        db.add(communicator.database, f"b{len(os.listdir(tmp_path))}{os.urandom(4).hex()}")

    monkeypatch.setattr(shutil, "copyfile", copy_while_written)
    assert inspect_table(communicator.database).problem.startswith("it is written all the time")


def test_odd_values_in_the_progress_column_do_no_harm(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, LATER).rows((1e300, -5.0, 100.0))
    for value in ("text", None, b"\xff"):
        db.add(communicator.database, f"odd {value!r}")
        db.execute(communicator.database, "UPDATE beams SET progress = ? WHERE beam_id = ?", value, f"odd {value!r}")
    assert communicator.settings.mirror.range == (30, 90)


def test_statuses_that_the_exporter_does_not_know_are_named(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, NEWEST).rows((0.0,), "on_hold\n# mirror:")
    assert "discovery: the table holds statuses that the exporter does not know" in communicator.checks
    assert communicator.settings.mirror.enabled, "and cannot leave their comment"
    for known in ("simulation_running", "hpc_running", "csv_interpreting", "completed", "downloading", "pending"):
        db.execute(communicator.database, "UPDATE beams SET status = ?", known)
        assert "does not know" not in communicator.checks


def test_a_log_path_by_a_job_that_no_row_has_is_warned_of(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, NEWEST.replace("sim_{beam_id}", "slurm-{hpc_job_id}")).rows((0.0,))
    assert "{hpc_job_id}, which is empty in every row" in communicator.checks
    db.execute(communicator.database, "UPDATE beams SET hpc_job_id = '77'")
    assert "which is empty" not in communicator.checks
    assert "hpc_job_id is filled in 1 of them" in communicator.draft().text.replace("\n# ", " ")


def test_another_copy_of_the_database_may_be_named(tmp_path: Path) -> None:
    communicator = Communicator(tmp_path, PLAN, None)
    copy = db.make(tmp_path / "copy.db", db.PLAN_BEAMS)
    result = CliRunner().invoke(main, ["init", "--communicator", str(communicator.config), "--database", str(copy)])
    assert result.exit_code == 0
    assert f'database "{copy}" was read' in result.output.replace("\n# ", " ")
    found = settings_from(result.output, "made")
    assert found.database is not None
    assert found.database.path == communicator.database


class TestHost:
    REMOTE = PLAN.replace("HpcJobSubmitter: local", "HpcJobSubmitter: remote")
    TOP = "\nhpc:\n  host: real.hospital\n  user: mqi\n  ssh_key_path: /keys/real\n"

    def test_the_top_level_section_has_precedence(self, tmp_path: Path) -> None:
        communicator = Communicator(tmp_path, self.REMOTE + self.TOP)
        [source] = communicator.settings.sources
        assert isinstance(source, SshSourceSettings)
        assert (source.host, source.user, str(source.key_file)) == ("real.hospital", "mqi", "/keys/real")
        assert "connections.hpc" not in communicator.draft().text

    def test_the_nested_section_is_used_alone_and_must_be_checked_by_hand(self, tmp_path: Path) -> None:
        communicator = Communicator(tmp_path, self.REMOTE)
        assert "sources[0].host: taken from connections.hpc" in communicator.checks
        placeholder = Communicator(tmp_path / "other", self.REMOTE.replace("hpc1.example", "hpc.example.com"))
        assert "looks like a placeholder" in placeholder.checks


class TestDoseFiles:
    OUTPUTS = """    simulation_output_dir: '{base_directory}/data/Dose_raw/{case_id}'
    final_dicom_dir: '{base_directory}/data/Dose_dcm/{case_id}'
"""
    RAW, DCM = "{base_directory}/data/Dose_raw/{case_id}/*", "{base_directory}/data/Dose_dcm/{case_id}/*"

    def text(self, parameters: str = "OutputDir: ../data/Dose_raw/{case_id}") -> str:
        local = "    tps_dir: '{base_directory}/tps_env'\n"
        assert local in PLAN
        return f"{PLAN.replace(local, self.OUTPUTS + local)}moqui_tps_parameters:\n  {parameters}\n"

    def test_the_output_check_is_on_if_dose_files_are_found(self, tmp_path: Path) -> None:
        communicator = Communicator(tmp_path, self.text())
        dose = tmp_path / "data" / "Dose_raw" / "secret" / "dose.raw"
        dose.parent.mkdir(parents=True)
        dose.touch()
        assert communicator.settings.sources[0].output_path == (self.RAW, self.DCM)
        assert "sources[0].output_path: check that each run writes a dose file there" in communicator.checks
        assert "secret" not in communicator.draft().text.replace(str(tmp_path), "")

    def test_the_output_check_is_a_comment_if_no_dose_files_are_found(self, tmp_path: Path) -> None:
        communicator = Communicator(tmp_path, self.text())
        (tmp_path / "data" / "Dose_raw" / "empty").mkdir(parents=True)
        assert communicator.settings.sources[0].output_path == ()
        assert f'# output_path: ["{self.RAW}", "{self.DCM}"]' in communicator.draft().text
        assert "Remove the #" in communicator.checks
        proposed = communicator.draft().text.replace("# output_path", "output_path")
        assert settings_from(proposed, "made").sources[0].output_path == (self.RAW, self.DCM)

    def test_a_relative_output_folder_is_in_the_run_folder_of_the_engine(self, tmp_path: Path) -> None:
        communicator = Communicator(tmp_path, self.text("OutputDir: ../data/Other[1]/{case_id}"))
        assert '"{base_directory}/data/Other[[]1]/{case_id}/*"' in communicator.draft().text

    @pytest.mark.parametrize(
        "value",
        ["''", "7", "[a]", "'D:/x/{case_id}'", "/all/one", "'{unheard}/x'", "'../../../../{case_id}'", "'/{case_id}'"],
    )
    def test_an_output_folder_without_a_field_of_the_beam_is_ignored(self, tmp_path: Path, value: str) -> None:
        text = f"{PLAN}moqui_tps_parameters:\n  OutputDir: {value}\n"
        assert "output_path" not in Communicator(tmp_path, text).draft().text

    def test_each_room_has_a_folder_of_its_own(self, tmp_path: Path) -> None:
        local = "    mqi_run_dir:"
        assert local in NEWEST
        folder = "    final_dicom_dir: '{base_directory}/data/Output/{room_path}{case_id}/Dose'\n"
        text = Communicator(tmp_path, NEWEST.replace(local, folder + local)).draft().text
        for room in ("", "G1/", "G2/"):
            assert f'"{{base_directory}}/data/Output/{room}{{case_id}}/Dose/*"' in text
        assert "The rooms are assumed to be G1 and G2" in text.replace("\n#    ", " ")


def test_the_copy_of_the_database_is_private_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    modes: list[int] = []
    connect = sqlite3.connect

    def looked_at(path: Path) -> sqlite3.Connection:
        modes.append(path.parent.stat().st_mode & 0o777)
        return connect(path)

    monkeypatch.setattr(sqlite3, "connect", looked_at)
    path = tmp_path / "a.db"
    connection = connect(path)
    connection.execute(db.PLAN_BEAMS)
    connection.close()
    assert inspect_table(path).state is TableState.READ
    assert modes == [0o700]
    assert os.listdir(temporary) == []
