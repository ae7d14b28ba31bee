"""``mqi-exporter runs``: the history of runs at the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.beams.snapshot import BeamKey
from exporter.cli.main import main
from exporter.persistence.store import StateStore
from exporter.privacy.encryption import Encryption
from exporter.privacy.pseudonyms import PseudonymKey
from tests.persistence.test_history import NOW, RUNS
from tests.persistence.test_store import changes

SECRET = b"k" * 40


class Site:
    """A configuration and its store."""

    def __init__(self, folder: Path, *, redacted: bool = False, state: str = "state.db") -> None:
        self.folder = folder
        self.config = folder / "exporter.yaml"
        privacy = ""
        if redacted:
            key_file = folder / "key"
            key_file.touch(mode=0o600)
            key_file.write_bytes(SECRET)
            privacy = f"privacy: {{identifiers: pseudonym, key_file: {key_file}}}\n"
        self.config.write_text(
            f"base_directory: {folder}\ndatabase: {{path: {folder / 'beams.db'}}}\n"
            f"state: {{file: {folder / state}}}\n{privacy}",
            encoding="utf-8",
        )
        self.encryption = Encryption(PseudonymKey.of(SECRET).state) if redacted else None

    def keep(self, *runs: object) -> None:
        store = StateStore(self.folder / "state.db", self.encryption)
        store.write(changes({}, runs=list(runs) or RUNS))  # type: ignore[arg-type]
        store.close()

    def call(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["--config.file", str(self.config), "runs", *arguments])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.keep()
    return site


def test_a_table_says_what_ended_when_and_how(site: Site) -> None:
    result = site.call()
    assert result.exit_code == 0
    head, *rows = result.output.splitlines()
    assert head.split() == [
        "ENDED",
        "CASE",
        "BEAM",
        "RUN",
        "SOURCE",
        "OUTCOME",
        "DURATION",
        "BATCHES",
        "S/BATCH",
        "PARTICLES",
    ]
    assert [re.split(r"  +", row)[1:] for row in rows] == [
        ["Doe", "Doe_1", "2", "local", "failed (killed)", "0:03:10", "-", "-", "-"],
        ["Roe", "Roe_1", "1", "hpc1", "failed (cuda)", "-", "-", "-", "-"],
        ["Doe", "Doe_1", "1", "local", "succeeded", "0:03:20", "18", "10.5", "49350"],
    ]


def test_case_time_and_number_choose(site: Site) -> None:
    def found(*arguments: str) -> list[tuple[str, int]]:
        return [(run["case_id"], run["run"]) for run in json.loads(site.call("--json", *arguments).stdout)]

    assert found("--case", "Doe") == [("Doe", 2), ("Doe", 1)]
    assert found("--since", f"{NOW - 200:.0f}") == [("Doe", 2), ("Roe", 1)]
    assert found("--limit", "1") == [("Doe", 2)]
    assert found("--case", "nobody") == []


def test_csv_has_a_header_and_no_formulas(site: Site) -> None:
    site.keep(replace(RUNS[0], key=BeamKey("=cmd()", "b")))
    rows = list(csv.DictReader(io.StringIO(site.call("--csv").stdout)))
    assert len(rows) == 4
    assert {"ended_at", "outcome", "seconds_per_batch", "output_size_bytes"} <= rows[0].keys()
    assert "'=cmd()" in [row["case_id"] for row in rows]


def test_ids_do_not_control_the_terminal(site: Site) -> None:
    site.keep(replace(RUNS[0], key=BeamKey("\x1b[2J", "b")))
    assert "\x1b" not in site.call().output


def test_a_json_path_of_earlier_versions_names_the_store_beside_it(tmp_path: Path) -> None:
    site = Site(tmp_path, state="state.json")
    site.keep()
    assert site.call().output.count("Doe_1") == 2


def test_without_runs_it_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.keep()
    result = site.call("--since", "4000000000")
    assert (result.exit_code, result.output) == (0, "no runs\n")


@pytest.mark.parametrize("arguments", [("--since", "yesterday"), ("--limit", "0")])
def test_an_option_that_cannot_be_used_is_refused(site: Site, arguments: tuple[str, str]) -> None:
    assert site.call(*arguments).exit_code == 2


def test_without_a_store_or_a_state_file_it_says_what_to_do(tmp_path: Path) -> None:
    site = Site(tmp_path)
    result = site.call()
    assert (result.exit_code, "does not exist yet" in result.output) == (1, True)
    site.config.write_text(f"base_directory: {tmp_path}\ndatabase: {{path: {tmp_path}/b.db}}\n", encoding="utf-8")
    result = site.call()
    assert (result.exit_code, "set state.file" in result.output) == (1, True)


def test_pseudonyms_are_shown_and_id_and_pseudonym_find_the_case(tmp_path: Path) -> None:
    site = Site(tmp_path, redacted=True)
    site.keep()
    for form in ((), ("--json",), ("--csv",)):
        assert "Doe" not in site.call(*form).output
        assert "/dose" not in site.call(*form).output
    runs = json.loads(site.call("--json", "--case", "Doe").stdout)
    [pseudonym] = {run["case_id"] for run in runs}
    assert len(runs) == 2
    assert json.loads(site.call("--json", "--case", pseudonym).stdout) == runs
