from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.beams.snapshot import BeamKey, BeamRow, BeamState, BeamView, StoreSnapshot
from exporter.database.beams_table import BeamsTable
from exporter.database.mirror import ROWS_PER_TRANSACTION, Mirror
from exporter.database.table import WriteResult
from tests.support import communicator_db as db

KEY = BeamKey("c", "b")


def view(
    current: int = 5,
    total: int | None = 18,
    *,
    state: BeamState = BeamState.RUNNING,
    status: str | None = "simulation_running",
    run_number: int = 1,
    announcements: int = 1,
    grew: bool = False,
    succeeded: bool = False,
    estimated: float = 0.25,
    key: BeamKey = KEY,
    row_progress: float | None = None,
    read_at: float = 0.0,
) -> BeamView:
    """Make the view of a beam."""
    return BeamView(
        key=key,
        source="local",
        state=state,
        state_since=0.0,
        run_number=run_number,
        dialect="smc",
        phase="simulating",
        batches_total=total,
        batch_current=current,
        batches_completed=max(0, current - 1),
        announcements=announcements,
        progress_ratio=current / total if total else 0.0,
        estimated_ratio=estimated,
        remaining_seconds=None,
        started_at=0.0,
        ended_at=None,
        last_progress_at=0.0,
        stall_threshold_seconds=100.0,
        batch_duration_seconds=None,
        particles_per_batch=None,
        particles=None,
        log_path="/logs/b.log",
        log_size_bytes=1,
        log_modified_at=0.0,
        log_seen_growing=grew,
        log_buffered=False,
        log_unmatched=False,
        reason="cuda" if state is BeamState.FAILED else None,
        failure_text=None,
        log_succeeded=succeeded,
        row=BeamRow(key, read_at, status=status, progress=row_progress),
        status_mismatch=False,
    )


def ended(**changes: object) -> BeamView:
    """Make the view of a beam whose run has succeeded."""
    return view(18, succeeded=True, state=BeamState.SUCCEEDED)._replace(**changes)  # type: ignore[arg-type]


def snapshot(*views: BeamView, at: float = 0.0) -> StoreSnapshot:
    return StoreSnapshot(at, views, 0, (), None, {}, {}, {}, {}, ())


def row(
    current: int,
    *,
    progress: float | None = None,
    updated_at: float | None,
    read_at: float = 0.0,
    status: str = "simulation_running",
) -> BeamView:
    """Make the view of a beam in batch ``current`` of 18, with this row."""
    return view(current, 18)._replace(
        row=BeamRow(KEY, read_at, status=status, progress=progress, updated_at=updated_at)
    )


class Site:
    """A database with one row, and a mirror with a manual clock."""

    def __init__(
        self,
        folder: Path,
        *,
        value: Literal["batch", "estimated"] = "batch",
        value_range: tuple[float, float] = (0.0, 100.0),
        throttle: float = 1.0,
        interval: float = 2.0,
    ) -> None:
        self.path = db.make(folder / "mqi_communicator.db")
        db.add(self.path, "b")
        self.table = BeamsTable(self.path, busy_timeout_ms=50)
        self.at = 1000.0
        self.mirror = Mirror(
            self.table,
            terminal_statuses=("completed", "failed", "cancelled"),
            completed_statuses=("completed",),
            reset_statuses=("pending",),
            value=value,
            value_range=value_range,
            minimum_interval_seconds=interval,
            throttle_percent=throttle,
            timer=time.perf_counter,
        )

    def round(self, *views: BeamView) -> None:
        """Update the mirror with these views, then write."""
        self.at += 100.0
        self.mirror.update(snapshot(*views, at=self.at))
        self.mirror.flush(self.at)

    def shows(self, *views: BeamView) -> object:
        """Update and write; return the value of the column."""
        self.round(*views)
        return self.column

    @property
    def column(self) -> object:
        return db.progress(self.path, "b")

    def stands(self, value: float, status: str | None = None) -> None:
        """Write the row like another program."""
        db.execute(self.path, "UPDATE beams SET progress = ?", value)
        if status is not None:
            db.execute(self.path, "UPDATE beams SET status = ?", status)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class TestValues:
    def test_batch_5_of_18_is_written_as_27_78(self, site: Site) -> None:
        assert site.shows(view(5, 18)) == 27.78

    @pytest.mark.parametrize(
        ("value_range", "expected"), [((30.0, 90.0), 46.67), ((40.0, 90.0), 53.89), ((0.0, 50.0), 13.89)]
    )
    def test_values_are_mapped_onto_the_range(
        self, tmp_path: Path, value_range: tuple[float, float], expected: float
    ) -> None:
        site = Site(tmp_path, value_range=value_range)
        assert site.shows(view(5, 18)) == expected
        assert site.shows(ended()) == value_range[1]

    def test_the_estimate_can_be_written(self, tmp_path: Path) -> None:
        site = Site(tmp_path, value="estimated")
        assert site.shows(view(5, 18, estimated=0.25)) == 25.0
        assert site.shows(ended(estimated_ratio=1.0)) == 100.0

    def test_small_changes_wait_until_they_add_up_to_the_throttle(self, tmp_path: Path) -> None:
        site = Site(tmp_path, throttle=2.0)
        assert site.shows(view(10, 1000)) == 1.0
        assert site.shows(view(29, 1000)) == 1.0
        assert site.shows(view(30, 1000)) == 3.0

    def test_the_end_of_a_run_is_not_throttled(self, tmp_path: Path) -> None:
        site = Site(tmp_path, throttle=50.0)
        assert site.shows(view(995, 1000)) == 99.5
        assert site.shows(ended()) == 100.0

    def test_a_failure_keeps_the_last_value(self, tmp_path: Path) -> None:
        site = Site(tmp_path, throttle=50.0)
        site.shows(view(1, 18))
        assert site.shows(view(5, 18, state=BeamState.FAILED)) == 27.78
        assert site.mirror.pending == 0

    def test_a_waiting_beam_or_one_without_a_row_is_not_written(self, site: Site) -> None:
        site.stands(70.0)
        assert site.shows(view(0, None, state=BeamState.WAITING)) == 70.0
        assert site.shows(view(5, 18, status=None, grew=True)) == 70.0


class TestLowering:
    def test_a_value_is_never_lowered_within_a_run(self, site: Site) -> None:
        site.shows(view(9, 18))
        assert site.shows(view(5, 18)) == 50.0

    def test_a_value_is_lowered_once_for_a_new_run(self, site: Site) -> None:
        site.shows(ended())
        assert site.shows(view(0, None, run_number=2, announcements=0, state=BeamState.STARTING)) == 0.0
        site.stands(60.0)
        assert site.shows(view(1, 18, run_number=2)) == 60.0

    def test_a_value_is_lowered_once_when_a_log_is_first_seen_growing(self, site: Site) -> None:
        site.stands(100.0)
        assert site.shows(view(2, 18)) == 100.0, "nothing shows yet that this run is alive"
        assert site.shows(view(2, 18, grew=True)) == 11.11
        site.stands(70.0)
        assert site.shows(view(3, 18, grew=True)) == 70.0

    def test_a_value_is_lowered_once_for_a_new_announcement(self, site: Site) -> None:
        assert site.shows(view(3, 3, announcements=1)) == 100.0
        assert site.shows(view(3, 6, announcements=2)) == 50.0
        assert site.shows(view(4, 6, announcements=2)) == 66.67

    def test_a_pending_lowering_is_kept_when_the_value_grows(self, site: Site) -> None:
        site.shows(ended())
        locker = db.Locker(site.path)
        site.shows(view(1, 18, run_number=2))
        site.mirror.update(snapshot(view(2, 18, run_number=2)))
        locker.release()
        assert site.shows(view(2, 18, run_number=2)) == 11.11


class TestTerminalRows:
    def test_terminal_rows_are_not_written(self, site: Site) -> None:
        site.shows(view(5, 18))
        site.stands(27.78, "failed")
        assert site.shows(view(9, 18, status="failed")) == 27.78
        assert site.shows(ended(row=BeamRow(KEY, 0.0, status="failed"))) == 27.78

    def test_a_completed_row_is_raised_to_100_percent_once(self, tmp_path: Path) -> None:
        site = Site(tmp_path, value_range=(40.0, 90.0))
        site.shows(view(17, 18))
        site.stands(87.22, "completed")
        done = ended(row=BeamRow(KEY, 0.0, status="completed"))
        assert site.shows(done) == 90.0
        db.execute(site.path, "UPDATE beams SET progress = 1.0")
        assert site.shows(done) == 1.0

    def test_a_completed_row_is_raised_again_for_a_retry_that_was_never_seen_running(self, site: Site) -> None:
        assert site.shows(ended()) == 100.0
        site.stands(40.0, "completed")
        retried = ended(run_number=2, row=BeamRow(KEY, 0.0, status="completed"))
        assert site.shows(retried) == 100.0
        site.stands(1.0)
        assert site.shows(retried) == 1.0, "once for each run"

    def test_a_completed_row_is_raised_although_the_row_of_the_previous_run_refused_it(self, site: Site) -> None:
        """The retry's log is read before its row, which still shows the previous run."""
        site.stands(40.0, "simulation_running")
        before = ended(run_number=2, row=BeamRow(KEY, 0.0, status="completed", updated_at=10.0))
        assert site.shows(before) == 40.0
        site.stands(40.0, "completed")
        assert site.shows(before) == 40.0, "nothing is asked again of a row that nobody has read again"
        assert site.shows(ended(run_number=2, row=BeamRow(KEY, 0.0, status="completed", updated_at=20.0))) == 100.0

    def test_a_completed_row_without_success_in_the_log_is_not_written(self, site: Site) -> None:
        site.stands(50.0, "completed")
        assert site.shows(view(9, 18, state=BeamState.SUCCEEDED, status="completed")) == 50.0

    def test_a_row_completed_before_our_last_write_is_still_raised_to_100_percent(self, site: Site) -> None:
        site.shows(view(17, 18))
        site.stands(94.44, "completed")
        assert site.shows(ended()) == 94.44, "refused: the row was over already"
        assert site.shows(ended(row=BeamRow(KEY, 0.0, status="completed"))) == 100.0


class TestFailures:
    def test_a_final_value_of_a_locked_row_stays_due(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patched:
            locked = WriteResult(locked=frozenset({KEY.beam_id}))
            patched.setattr(BeamsTable, "write", lambda *_: locked)
            site.mirror.update(snapshot(ended()))
            for _ in range(3):
                site.at += 100.0
                result = site.mirror.flush(site.at)
                assert (result.pending, result.error, result.outcomes) == (1, None, {"failed": 1})
        assert site.shows(ended()) == 100.0

    def test_while_locked_the_newest_value_waits_with_backoff(self, site: Site) -> None:
        locker = db.Locker(site.path)
        site.mirror.update(snapshot(view(1, 18)))
        pauses = []
        for current in range(2, 10):
            site.at += 100.0
            result = site.mirror.flush(site.at)
            assert result.error is not None
            assert result.error.kind == "locked"
            assert result.pending == 1
            pauses.append(site.mirror.due_at - site.at)
            assert site.mirror.flush(site.at + 0.9 * pauses[-1]).error is None, "too early to try again"
            site.mirror.update(snapshot(view(current, 18)))
        locker.release()
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        assert site.shows(view(9, 18)) == 50.0

    def test_a_pending_value_is_not_written_to_a_row_that_was_reset(self, site: Site) -> None:
        site.shows(view(1, 18))
        locker = db.Locker(site.path)
        site.round(view(17, 18))
        assert site.mirror.pending == 1
        locker.release()
        site.stands(0.0, "pending")
        reset = view(0, None, run_number=2, announcements=0, state=BeamState.WAITING, status="pending")._replace(
            started_at=None
        )
        assert site.shows(reset) == 0.0

    def test_a_row_refuses_a_pending_value_even_if_its_reset_was_not_seen(self, site: Site) -> None:
        site.shows(view(1, 18))
        locker = db.Locker(site.path)
        site.round(view(17, 18))
        locker.release()
        site.stands(0.0, "pending")
        assert site.shows() == 0.0

    def test_a_running_beam_with_a_known_pending_row_is_written(self, site: Site) -> None:
        site.stands(0.0, "pending")
        assert site.shows(view(9, 18, status="pending")) == 50.0

    def test_after_a_restart_a_beam_is_not_written_before_its_row_is_read(self, site: Site) -> None:
        """The row may belong to the next run by now, and the host is down."""
        site.stands(0.0, "simulation_running")
        site.mirror.update(replace(snapshot(ended()), rows_from_restart=frozenset({KEY})))
        site.mirror.flush(site.at, now=True)
        assert site.column == 0.0
        assert site.shows(ended()) == 100.0

    @pytest.mark.parametrize(("run_number", "expected"), [(1, 70.0), (2, 27.78)])
    def test_a_retry_that_ended_before_the_first_write_of_this_process_is_lowered(
        self, site: Site, run_number: int, expected: float
    ) -> None:
        site.stands(70.0)
        assert site.shows(view(5, 18, run_number=run_number, state=BeamState.FAILED)) == expected

    def test_a_lowering_refused_by_a_reset_row_is_due_again_after_the_row_is_read(self, site: Site) -> None:
        """In 2025 rows became pending, with the value 70, when the engine was started."""
        site.stands(70.0, "pending")
        known = view(1, 18, status="tps_generation", grew=True)
        assert site.shows(known) == 70.0
        assert site.shows(known) == 70.0, "nothing is asked again of a row that nobody has read again"
        read = BeamRow(KEY, 0.0, status="pending", updated_at=20.0)
        assert site.shows(view(2, 18, grew=True)._replace(row=read)) == 11.11

    def test_a_run_without_a_log_is_not_written(self, site: Site) -> None:
        site.shows(view(9, 18))
        site.stands(40.0)
        unseen = view(0, None, run_number=2, announcements=0, state=BeamState.UNREACHABLE)._replace(started_at=None)
        assert site.shows(unseen) == 40.0

    @pytest.mark.parametrize("ratio", [math.nan, math.inf, -math.inf])
    def test_a_beam_without_a_finite_value_blocks_no_other(self, site: Site, ratio: float) -> None:
        broken = view(key=BeamKey("c", "broken"))._replace(progress_ratio=ratio)
        assert site.shows(broken, view(5, 18)) == 27.78

    def test_a_beam_that_was_removed_from_the_store_is_still_written(self, site: Site) -> None:
        site.path.rename(site.path.with_suffix(".away"))
        site.round(ended())
        site.round()
        site.path.with_suffix(".away").rename(site.path)
        assert site.shows() == 100.0

    def test_progress_is_written_again_into_a_new_database(self, site: Site) -> None:
        site.shows(view(5, 18))
        for suffix in ("", "-wal", "-shm"):
            Path(f"{site.path}{suffix}").unlink(missing_ok=True)
        db.make(site.path)
        db.add(site.path, "b")
        assert site.shows(view(5, 18)) == 27.78

    def test_there_is_at_least_the_interval_between_two_writes(self, site: Site) -> None:
        site.shows(view(1, 18))
        site.mirror.update(snapshot(view(2, 18)))
        assert site.mirror.flush(site.at + 1.9).outcomes.total() == 0
        assert site.mirror.flush(site.at + 2.0).outcomes["written"] == 1

    def test_many_beams_are_written_in_short_transactions(self, site: Site) -> None:
        keys = [BeamKey("c", f"b{number}") for number in range(2 * ROWS_PER_TRANSACTION + 1)]
        for key in keys:
            db.add(site.path, key.beam_id)
        site.mirror.update(snapshot(*(view(5, 18, key=key) for key in keys)))
        assert site.mirror.pending == len(keys)
        result = site.mirror.flush(site.at)
        assert (result.outcomes["written"], len(result.seconds), result.pending) == (len(keys), 3, 0)


class TestRestored:
    """A backup was copied over the file. It is the same file, but without our last values."""

    def test_progress_is_written_again_after_a_restore(self, site: Site) -> None:
        site.shows(row(5, updated_at=100.0))
        site.stands(0.0)
        assert site.shows(row(5, progress=0.0, updated_at=90.0, read_at=site.at + 50)) == 27.78

    def test_progress_is_written_again_into_a_backup_with_an_old_time_stamp_of_the_row(self, site: Site) -> None:
        site.shows(row(5, updated_at=100.0))
        site.stands(11.11)
        assert site.shows(row(5, progress=11.11, updated_at=100.0, read_at=site.at + 50)) == 27.78

    def test_progress_is_written_again_into_an_earlier_backup_whatever_its_clock_was(self, site: Site) -> None:
        site.shows(row(1, updated_at=5000.0))
        site.shows(row(5, progress=5.56, updated_at=200.0, read_at=site.at + 50))  # the clock was set back in between
        site.stands(0.0)
        assert site.shows(row(5, progress=0.0, updated_at=5000.0, read_at=site.at + 50)) == 27.78

    def test_a_completed_row_with_a_lower_value_is_raised_again(self, site: Site) -> None:
        site.shows(ended())
        site.stands(40.0, "completed")
        restored = BeamRow(KEY, site.at + 50, status="completed", progress=40.0, updated_at=9e9)
        assert site.shows(ended(row=restored)) == 100.0

    @pytest.mark.parametrize(
        ("progress", "updated_at", "status"),
        [(0.0, 300.0, "simulation_running"), (0.0, 90.0, "pending"), (0.0, None, "simulation_running")],
    )
    def test_a_row_that_the_communicator_has_reset_is_not_written_again(
        self, site: Site, progress: float, updated_at: float | None, status: str
    ) -> None:
        site.shows(row(5, updated_at=100.0))
        site.stands(progress, status)
        shown = row(5, progress=progress, updated_at=updated_at, read_at=site.at + 50, status=status)
        assert site.shows(shown) == progress

    @pytest.mark.parametrize(
        ("step", "updated_at", "column"),
        [(-3600.0, 90.0, 0.0), (-3600.0, 100.0, 27.78), (3600.0, 90.0, 27.78), (3600.0, 100.0, 27.78)],
    )
    def test_an_older_time_stamp_is_no_restore_if_the_clock_was_set_back(
        self, site: Site, step: float, updated_at: float, column: float
    ) -> None:
        site.shows(row(5, updated_at=100.0))
        site.stands(0.0)
        site.at += 100.0
        shown = snapshot(row(5, progress=0.0, updated_at=updated_at, read_at=site.at), at=site.at + step)
        site.mirror.update(replace(shown, wall_offset_seconds=step))
        site.mirror.flush(site.at)
        assert site.column == column


class TestOtherWriter:
    def test_another_writer_is_reported_once(self, site: Site) -> None:
        site.shows(view(5, 18))
        assert site.mirror.pop_other_writer() is None
        site.shows(view(5, 18, row_progress=45.6, read_at=site.at + 5))
        assert site.mirror.pop_other_writer() == KEY
        site.shows(view(6, 18, row_progress=45.6, read_at=site.at + 50))
        assert site.mirror.pop_other_writer() is None

    @pytest.mark.parametrize("row_progress", [27.78, 0.0, None])
    def test_our_own_value_and_a_reset_are_no_other_writer(self, site: Site, row_progress: float | None) -> None:
        site.shows(view(5, 18))
        site.shows(view(5, 18, row_progress=row_progress, read_at=site.at + 5))
        assert site.mirror.pop_other_writer() is None

    def test_the_communicators_100_at_the_end_is_no_other_writer(self, tmp_path: Path) -> None:
        site = Site(tmp_path, value_range=(40.0, 90.0))
        site.shows(ended())
        site.shows(ended(row=BeamRow(KEY, site.at + 5, status="postprocessing", progress=100.0)))
        assert site.mirror.pop_other_writer() is None

    def test_a_value_of_the_communicator_on_our_scale_is_no_other_writer(self, tmp_path: Path) -> None:
        site = Site(tmp_path, value_range=(40.0, 90.0))
        site.shows(view(1, 3))
        assert site.column == 56.66
        site.shows(view(1, 3, row_progress=1 / 3 * 50 + 40, read_at=site.at + 5))
        assert site.mirror.pop_other_writer() is None

    def test_a_row_read_before_our_write_shows_no_other_writer(self, site: Site) -> None:
        site.shows(view(5, 18))
        site.shows(view(5, 18, row_progress=11.11, read_at=site.at - 5))
        assert site.mirror.pop_other_writer() is None

    def test_a_refused_write_shows_no_other_writer(self, site: Site) -> None:
        site.stands(70.0)
        site.shows(view(5, 18))
        site.shows(view(5, 18, row_progress=70.0, read_at=site.at + 5))
        assert site.mirror.pop_other_writer() is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["batch", "batch", "batch", "new_run", "announcement", "success", "grow", "quiet"]),
        st.integers(1, 5),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps=STEPS, leftover=st.sampled_from([0.0, 40.0, 100.0]))
def test_after_any_events_the_column_is_in_range_and_lowered_only_if_allowed(
    steps: list[tuple[str, int]], leftover: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), value_range=(20.0, 80.0), throttle=0.0)
        site.stands(leftover)
        run, announcements, current, total, grew, done = 1, 1, 0, 6, False, False
        column = leftover
        for name, count in steps:
            may_lower = False
            if name == "new_run":
                run, announcements, current, total, done, may_lower = run + 1, 1, 0, 6, False, True
            elif name == "announcement" and not done:
                announcements, total, may_lower = announcements + 1, total + 6, True
            elif name == "batch" and not done:
                current = min(total, current + count)
            elif name == "success":
                current, done = total, True
            elif name == "grow" and not grew:
                grew, may_lower = True, True
            shown = view(current, total, run_number=run, announcements=announcements, grew=grew, succeeded=done)
            after = site.shows(shown._replace(state=BeamState.SUCCEEDED if done else BeamState.RUNNING))
            assert isinstance(after, float)
            assert math.isfinite(after)
            assert after == column or 20.0 <= after <= 80.0
            assert after >= column or may_lower
            column = after
        if grew and not done:
            assert column == pytest.approx(20 + 60 * current / total, abs=0.01) or column <= leftover
        site.table.close()
