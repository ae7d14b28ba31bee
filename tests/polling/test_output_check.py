"""The output check, step by step: a run that claims success has succeeded when its dose file is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.beams.output import GRACE_SECONDS, LATE_SECONDS
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import BeamKey, BeamState, OutputState
from exporter.database.beams_table import BeamsTable
from exporter.database.mirror import Mirror
from exporter.polling import output_check
from exporter.polling.output_check import OutputRules
from exporter.sources.output_paths import OutputPathTemplate
from exporter.sources.source import LogProblem
from tests.support import communicator_db as db
from tests.support.world import BEAM, FragileSource, World, after, captured, quick, upto

LOG = "v2_b18"
MIDDLE = b"(6 of 18"


class Site(World):
    """A world whose source has an output_path: ``dose/CASE/`` beside the logs."""

    def __init__(
        self, folder: Path, rules: StoreRules | None = None, glob: str = "{case_id}/*", minimum_bytes: int = 1
    ) -> None:
        self.doses = folder / "dose"
        self.doses.mkdir(exist_ok=True)
        outputs = OutputRules((OutputPathTemplate(f"{self.doses}/{glob}"),), minimum_bytes)
        rules = replace(rules or quick(), output_sources=frozenset({"local"}))
        super().__init__(folder, rules, source=FragileSource("local"), outputs=outputs)

    def dose(self, name: str = "1_Dose.dcm", data: bytes = b"dose", *, age: float = 0.0, key: BeamKey = BEAM) -> Path:
        """A dose file is written now, or was so many seconds ago."""
        path = self.doses / key.case_id / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (self.at - age, self.at - age))
        return path

    def watch(self, key: BeamKey = BEAM) -> None:
        """A run is met at its beginning and gets to the middle."""
        self.row(key=key)
        self.look()
        self.write(upto(LOG, MIDDLE), key)
        self.look()

    def end(self, key: BeamKey = BEAM) -> None:
        """Its log goes on to its normal end."""
        self.write(after(LOG, MIDDLE), key)

    @property
    def output(self) -> OutputState:
        return self.view().output

    def wait(self, seconds: float) -> None:
        """Time passes, with a look each second."""
        for _ in range(int(seconds)):
            self.look(1.0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_run_whose_dose_is_there_has_succeeded_at_once(site: Site) -> None:
    site.watch()
    assert site.output is OutputState.NOT_DUE
    site.dose(data=b"12345")
    site.end()
    site.look()
    view = site.view()
    assert (view.state, view.output, view.estimated_ratio, view.log_succeeded) == ("succeeded", "found", 1.0, True)
    assert view.output_file is not None
    assert (view.output_file.size_bytes, Path(view.output_file.path).name) == (5, "1_Dose.dcm")
    site.wait(5)
    assert site.runs == {("succeeded", ""): 1}


def test_until_the_dose_is_found_the_run_is_saving_and_not_at_100_percent(site: Site) -> None:
    site.watch()
    site.end()
    site.look()
    view = site.view()
    assert (view.state, view.phase, view.output) == ("running", "saving", "pending")
    assert view.estimated_ratio < 1
    assert (view.ended_at, view.log_succeeded, view.reason) == (None, False, None)
    site.wait(GRACE_SECONDS - 3)
    assert site.state == "running"
    site.dose()
    site.wait(20)
    assert (site.state, site.view().estimated_ratio) == ("succeeded", 1.0)
    assert site.runs == {("succeeded", ""): 1}


def test_a_run_without_a_dose_fails_after_the_grace(site: Site) -> None:
    site.watch()
    site.end()
    site.wait(GRACE_SECONDS + 2)
    view = site.view()
    assert (view.state, view.reason, view.output) == ("failed", "output_missing", "missing")
    assert view.estimated_ratio < 1
    assert not view.log_succeeded
    site.wait(5)
    assert site.runs == {("failed", "output_missing"): 1}


@pytest.mark.parametrize("age", [3, 60, 3000, 86400])
def test_the_dose_of_an_earlier_run_does_not_count(site: Site, age: float) -> None:
    site.dose(age=age)
    site.watch()
    site.end()
    site.wait(GRACE_SECONDS + 2)
    assert (site.state, site.view().reason) == ("failed", "output_missing")


def test_a_file_that_is_too_small_does_not_count(tmp_path: Path) -> None:
    site = Site(tmp_path, minimum_bytes=100)
    site.watch()
    site.dose(data=b"x" * 99)
    site.end()
    site.wait(GRACE_SECONDS + 2)
    assert site.state == "failed"


def test_what_is_no_regular_file_does_not_count(site: Site) -> None:
    site.watch()
    (site.doses / BEAM.case_id / "folder").mkdir(parents=True)
    os.mkfifo(site.doses / BEAM.case_id / "fifo")
    site.end()
    site.wait(GRACE_SECONDS + 2)
    assert site.state == "failed"


def test_a_link_out_of_the_fixed_folder_does_not_count(site: Site) -> None:
    site.watch()
    elsewhere = site.folder / "elsewhere"
    elsewhere.write_bytes(b"dose")
    os.utime(elsewhere, (site.at, site.at))
    (site.doses / BEAM.case_id).mkdir()
    (site.doses / BEAM.case_id / "dose.dcm").symlink_to(elsewhere)
    site.end()
    site.wait(GRACE_SECONDS + 2)
    assert (site.state, site.view().reason) == ("failed", "output_missing")


def test_a_dose_that_appears_late_makes_the_run_succeed_and_is_counted_once(site: Site) -> None:
    site.watch()
    site.end()
    site.wait(GRACE_SECONDS + 5)
    assert site.state == "failed"
    site.dose()
    site.wait(70)
    view = site.view()
    assert (view.state, view.reason, view.output, view.log_succeeded) == ("succeeded", None, "found", True)
    assert view.state_since > site.at - 70, "it is shown for as long as any that has just succeeded"
    site.wait(5)
    assert site.runs == {("failed", "output_missing"): 1}


def test_after_an_hour_a_late_dose_is_not_looked_for_any_more(tmp_path: Path) -> None:
    site = Site(tmp_path, replace(quick(), failed_retention_seconds=1e6))
    site.watch()
    site.end()
    site.wait(GRACE_SECONDS + 5)
    for _ in range(int(LATE_SECONDS / 60) + 1):
        site.look(60)
    site.dose()
    for _ in range(5):
        site.look(60)
    assert site.state == "failed"


def test_a_failure_in_the_log_outranks_the_output_check(site: Site) -> None:
    site.watch()
    site.end()
    site.look()
    site.write(b"Segmentation fault (core dumped)\n")
    site.wait(GRACE_SECONDS + 5)
    assert (site.state, site.view().reason) == ("failed", "segmentation_fault")


class TestSuccessByRow:
    def test_a_silent_log_needs_the_dose_too(self, site: Site) -> None:
        site.watch()
        site.row("completed")
        site.wait(4)
        assert (site.state, site.output) == ("running", "pending")
        site.wait(GRACE_SECONDS + 2)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_with_the_dose_the_row_is_believed(self, site: Site) -> None:
        site.watch()
        site.dose()
        site.row("completed")
        site.wait(4)
        assert (site.state, site.output) == ("succeeded", "found")

    def test_without_any_log_the_dose_is_looked_for_all_the_same(self, site: Site) -> None:
        site.row()
        site.look()
        site.row("completed")
        site.wait(4)
        assert (site.state, site.output) == ("waiting", "pending")
        site.dose()
        site.wait(5)
        assert (site.state, site.output) == ("succeeded", "found")


class TestRuns:
    def test_the_second_run_needs_a_dose_of_its_own(self, site: Site) -> None:
        site.watch()
        site.dose()
        site.end()
        site.wait(5)
        assert site.state == "succeeded"
        site.write(upto(LOG, MIDDLE), anew=True)
        site.look()
        assert (site.view().run_number, site.output) == (2, "not_due")
        site.end()
        site.wait(GRACE_SECONDS + 5)
        assert (site.state, site.view().reason) == ("failed", "output_missing")
        site.dose("second.dcm")
        site.wait(70)
        assert site.state == "succeeded"
        assert site.runs == {("succeeded", ""): 1, ("failed", "output_missing"): 1}

    def test_a_run_that_is_met_whole_in_one_poll_may_have_written_its_dose_before_the_logs_end(
        self, site: Site
    ) -> None:
        site.row()
        site.look()
        site.at += 120  # nobody could look meanwhile
        site.dose(age=40)
        site.write(captured(LOG))
        site.look()
        assert (site.state, site.output) == ("succeeded", "found")

    def test_a_retry_whole_in_one_poll_is_not_believed_before_its_dose_is_found(self, site: Site) -> None:
        site.watch()
        site.dose()
        site.end()
        site.wait(5)
        site.write(captured("v2_b2"), anew=True)
        site.look()
        assert (site.view().run_number, site.state) == (2, "running")
        site.wait(GRACE_SECONDS + 5)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_a_finished_log_that_was_there_before_us_has_its_dose_from_before_its_end(self, site: Site) -> None:
        site.row()
        site.dose(age=200)
        site.write(captured(LOG))
        site.look()
        assert (site.state, site.output) == ("succeeded", "found")

    def test_a_finished_log_that_was_there_before_us_without_a_dose_fails(self, site: Site) -> None:
        site.row()
        site.dose(age=7300)
        site.write(captured(LOG))
        site.wait(GRACE_SECONDS + 5)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_a_log_met_in_the_middle_needs_a_dose_of_after_that(self, site: Site) -> None:
        site.row()
        site.dose(age=600)
        site.write(upto(LOG, MIDDLE))
        site.wait(3)
        site.end()
        site.wait(GRACE_SECONDS + 5)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_a_run_that_ended_long_before_it_was_met_is_not_checked(self, site: Site) -> None:
        """It is shown while its case is open; its dose may have been moved away by now."""
        sibling = BeamKey(BEAM.case_id, "sibling")
        site.row()
        site.row(key=sibling)
        site.write(captured(LOG))
        site.at += site._rules.retention_seconds + 1
        site.row("completed")
        site.look()
        assert (site.view().state, site.output) == ("succeeded", "skipped")

    def test_the_newest_of_several_files_is_told(self, site: Site) -> None:
        site.watch()
        site.dose("a.dcm", b"1")
        site.at += 1
        site.dose("b.dcm", b"22")
        site.end()
        site.look()
        found = site.view().output_file
        assert found is not None
        assert found.size_bytes == 2


class TestSourcesThatCannotTell:
    def test_a_source_that_is_down_fails_no_beam(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.watch()
        site.end()
        assert isinstance(site.source, FragileSource)

        def gone(*arguments: object) -> None:
            assert isinstance(site.source, FragileSource)
            site.source.down = True
            FragileSource._check(site.source)

        with monkeypatch.context() as patched:
            patched.setattr(FragileSource, "entries", gone)
            site.look()
        site.wait(200)
        assert site.state == "unreachable"
        site.dose()
        site.source.down = False
        site.wait(2)
        assert (site.state, site.runs) == ("succeeded", {})
        site.wait(3)
        assert site.runs == {("succeeded", ""): 1}

    def test_when_it_is_back_without_a_dose_the_run_has_failed(self, site: Site) -> None:
        site.watch()
        site.end()
        site.look()
        assert isinstance(site.source, FragileSource)
        site.source.down = True
        site.wait(100)
        assert (site.state, site.runs) == ("unreachable", {})
        site.source.down = False
        site.wait(2)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_a_folder_that_cannot_be_listed_fails_no_beam_and_is_said(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object) -> None:
            raise LogProblem("permission", "cannot list /dose: Permission denied", "give it read access")

        site.watch()
        site.end()
        with monkeypatch.context() as patched:
            patched.setattr(FragileSource, "entries", refuse)
            site.wait(9)
            view = site.view()
            assert (view.state, view.output, view.output_problem) == ("running", "blocked", "permission")
            site.wait(120)
            assert site.state == "stalled", "somebody must be told"
            assert site.snapshot().sources[0].errors == {"permission": 1}
        site.dose()
        site.wait(65)
        assert (site.state, site.output) == ("succeeded", "found")

    def test_a_beam_whose_id_cannot_be_a_path_is_not_failed_for_it(self, tmp_path: Path) -> None:
        site = Site(tmp_path, glob="{hpc_job_id}/*")
        site.watch()
        site.end()
        site.wait(GRACE_SECONDS + 5)
        assert (site.output, site.view().output_problem) == ("blocked", "path")
        assert site.state != "failed"


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_a_source_whose_clock_is_wrong_is_judged_by_its_own_clock(tmp_path: Path, offset: float) -> None:
    class Skewed(Site):
        def write(self, data: bytes, key: BeamKey = BEAM, *, anew: bool = False) -> None:
            super().write(data, key, anew=anew)
            os.utime(self.log(key), (self.at + offset, self.at + offset))

    site = Skewed(tmp_path)
    site.dose(age=60 - offset)
    site.watch()
    site.wait(3)
    site.end()
    site.look()
    assert (site.state, site.output) == ("running", "pending"), "that of the run before"
    site.dose("new.dcm", age=-offset)
    site.wait(2)
    assert (site.state, site.output) == ("succeeded", "found")


class TestRestarts:
    def test_a_run_that_waits_for_its_dose_goes_on_waiting(self, site: Site) -> None:
        site.watch()
        site.end()
        site.wait(10)
        site.restart()
        site.look()
        assert (site.state, site.output) == ("running", "pending")
        site.wait(GRACE_SECONDS - 8)
        assert (site.state, site.view().reason) == ("failed", "output_missing")
        site.wait(5)
        assert site.runs == {("failed", "output_missing"): 1}

    def test_a_missing_dose_stays_missing_and_may_still_come(self, site: Site) -> None:
        site.watch()
        site.end()
        site.wait(GRACE_SECONDS + 5)
        site.restart()
        site.look()
        assert site.state == "failed"
        site.dose()
        site.wait(70)
        assert (site.state, site.runs) == ("succeeded", {("failed", "output_missing"): 1})

    def test_a_dose_that_was_found_is_not_looked_for_again(self, site: Site) -> None:
        site.watch()
        path = site.dose()
        site.end()
        site.wait(5)
        site.restart()
        path.unlink()
        site.wait(5)
        assert (site.state, site.output, site.runs) == ("succeeded", "found", {("succeeded", ""): 1})

    def test_a_run_that_ends_while_nobody_looks_is_checked_however_late(self, site: Site) -> None:
        site.watch()
        state = site.saved()
        site.at += 100
        site.end()
        site.at += 50_000
        site.restart(state)
        site.wait(GRACE_SECONDS + 5)
        assert (site.state, site.view().reason) == ("failed", "output_missing")

    def test_what_was_done_before_there_was_a_check_stays_done(self, tmp_path: Path) -> None:
        before = World(tmp_path, quick(), source=FragileSource("local"))
        before.row()
        before.look()
        before.write(captured(LOG))
        before.look(3)
        before.look(3)
        assert before.state == "succeeded"
        after_restart = Site(tmp_path)
        after_restart.at, after_restart.rows = before.at, before.rows
        after_restart.restart(before.saved())
        after_restart.look()
        assert (after_restart.state, after_restart.output) == ("succeeded", "skipped")
        before.store.set_rules(replace(quick(), output_sources=frozenset({"local"})))
        before.look()
        assert (before.state, before.view().output) == ("succeeded", "skipped"), "after a reload, too"


def test_without_output_path_nothing_changes(tmp_path: Path) -> None:
    world = World(tmp_path, quick())
    world.row()
    world.look()
    world.write(captured(LOG))
    world.look()
    assert (world.state, world.view().output) == ("succeeded", "not_configured")


def test_a_clock_that_is_set_meanwhile_ends_no_grace(site: Site) -> None:
    site.watch()
    site.end()
    site.look()
    site.set_clock(3600)
    site.wait(10)
    assert site.state == "running"
    site.wait(GRACE_SECONDS)
    assert site.state == "failed"


@pytest.mark.parametrize("case_id", ["P(01)", "a*b", "[x]", "?"])
def test_an_id_with_glob_characters_finds_only_its_own_dose(tmp_path: Path, case_id: str) -> None:
    site = Site(tmp_path, glob="{case_id}/{beam_id}*.dcm")
    key = BeamKey(case_id, f"{case_id}_1")
    site.watch(key)
    for other in ("P01", "aXb", "x", "y"):
        site.dose(f"{other}_1.dcm", key=BeamKey(other, "x"))
    site.end(key)
    site.wait(5)
    assert site.view(key).output is OutputState.PENDING
    site.dose(f"{case_id}_1_Dose.dcm", key=key)
    site.wait(5)
    assert site.view(key).output is OutputState.FOUND


def test_globs_may_stand_for_folders(tmp_path: Path) -> None:
    site = Site(tmp_path, glob="{case_id}/run_*/[ab].raw")
    site.watch()
    for folder, name in (("run_1", "c.raw"), ("other", "a.raw"), ("run_2", "b.raw")):
        path = site.doses / BEAM.case_id / folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"1")
        os.utime(path, (site.at, site.at))
    site.end()
    site.look()
    found = site.view().output_file
    assert found is not None
    assert found.path.endswith("/run_2/b.raw")


def test_more_folders_than_are_gone_into_are_a_problem_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_check, "FOLDERS_PER_CHECK", 5)
    site = Site(tmp_path, glob="{case_id}/*/dose.raw")
    site.watch()
    for number in range(8):
        (site.doses / BEAM.case_id / f"{number}").mkdir(parents=True)
    site.end()
    site.wait(5)
    assert (site.output, site.view().output_problem) == ("blocked", "too_many")


def counted_entries(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders that are asked for from now on."""
    asked: list[str] = []
    ask: Callable[..., None] = FragileSource.entries

    def entries(self: FragileSource, folder: str, *others: object) -> None:
        asked.append(folder)
        ask(self, folder, *others)

    monkeypatch.setattr(FragileSource, "entries", entries)
    return asked


def test_only_runs_that_claim_success_are_looked_for_and_seldom(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted_entries(site, monkeypatch)
    site.watch()
    site.wait(100)
    assert asked == []
    site.end()
    site.wait(GRACE_SECONDS + 1)
    assert len(asked) == 6
    site.wait(600)
    assert len(asked) <= 17


def test_very_many_runs_that_end_at_once_are_looked_for_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    keys = [BeamKey(f"c{number}", f"b{number}") for number in range(40)]
    for key in keys:
        site.row(key=key)
    site.look()
    asked = counted_entries(site, monkeypatch)
    for key in keys:
        site.dose(key=key)
        site.write(captured(LOG), key)
    site.look()
    assert len(asked) == output_check.CHECKS_PER_POLL
    site.look()
    site.look()
    assert len(asked) == 40
    assert {view.state for view in site.snapshot().beams} == {BeamState.SUCCEEDED}


class TestColumn:
    def mirror(self, site: Site, folder: Path) -> tuple[Mirror, Path]:
        path = db.make(folder / "mqi.db")
        db.add(path, BEAM.beam_id, "simulation_running", BEAM.case_id)
        mirror = Mirror(
            BeamsTable(path),
            terminal_statuses=("completed", "failed"),
            completed_statuses=("completed",),
            reset_statuses=("pending",),
            value="batch",
            value_range=(0.0, 100.0),
            minimum_interval_seconds=0.0,
            throttle_percent=0.0,
            timer=lambda: 0.0,
        )
        return mirror, path

    def test_100_percent_is_written_when_the_dose_is_found_and_not_before(self, site: Site, tmp_path: Path) -> None:
        mirror, path = self.mirror(site, tmp_path)

        def written() -> float:
            mirror.update(site.snapshot())
            mirror.flush(site.at, now=True)
            value = db.progress(path, BEAM.beam_id)
            assert isinstance(value, float)
            return value

        site.watch()
        assert written() == pytest.approx(6 / 18 * 100, abs=0.01)
        site.end()
        site.look()
        assert written() == 99.0
        site.wait(GRACE_SECONDS + 5)
        assert site.state == "failed"
        assert written() == 99.0
        site.dose()
        site.wait(70)
        assert written() == 100.0
