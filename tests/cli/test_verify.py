from pathlib import Path

import pytest

from exporter.cli.verify import text, verify
from exporter.logs.parser import SitePatterns
from tests.support.replay import LOGS, expected, names

DOSE_AND_TIMES = (
    "dose_path",
    "dose_dimensions",
    "dose_max_gy",
    "doses_written",
    "dose_text",
    "engine_times",
)


@pytest.mark.parametrize("name", names())
def test_the_report_of_every_captured_log_is_right(name: str) -> None:
    row = expected()[name]
    report = verify(LOGS / f"{name}.log", SitePatterns()).as_json()
    assert report == {
        "log": str(LOGS / f"{name}.log"),
        "dialect": row["dialect"] or "unknown",
        "outcome": row["outcome_in_log"],
        "reason": row["reason"] or None,
        "batches_total": int(row["total_in_log"]) if row["total_in_log"] else None,
        "batches_started": int(row["started_in_log"]),
        "batches_completed": int(row["completed_in_log"]),
        "progress_ratio": pytest.approx(
            int(row["started_in_log"]) / int(row["total_in_log"]) if int(row["total_in_log"] or 0) else 0.0
        ),
        "particles": report["particles"],
        "anomalies": {},
        "buffered": report["buffered"],
        **{key: report[key] for key in DOSE_AND_TIMES},
    }
    assert report["buffered"] == (row["dialect"] not in ("", "smc")) or not row["dialect"]


@pytest.mark.parametrize("name", names())
def test_a_report_for_a_person_has_eleven_lines(name: str) -> None:
    assert len(text(verify(LOGS / f"{name}.log", SitePatterns())).splitlines()) == 11


def test_particles_are_all_histories_whatever_the_limit_per_batch() -> None:
    assert verify(LOGS / "v2_b1.log", SitePatterns()).particles == 49350


def test_block_buffering_is_reported_with_a_remedy() -> None:
    assert "stdbuf -oL" in text(verify(LOGS / "mgh_b18.log", SitePatterns()))
    assert "stdbuf -oL" not in text(verify(LOGS / "v2_b18.log", SitePatterns()))


def test_a_log_without_a_known_line_is_not_understood_and_says_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "other.log"
    log.write_text("Batch 3/7 started\n", encoding="utf-8")
    report = verify(log, SitePatterns())
    assert not report.understood
    assert "progress_tracking.patterns" in text(report)
    with_site = verify(log, SitePatterns.of(current_batch=[r"Batch (\d+)/(\d+) started"]))
    assert (with_site.understood, with_site.batches_started, with_site.batches_total) == (True, 3, 7)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_log_that_cannot_be_read_is_said_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "none.log"
    report = verify(path, SitePatterns())
    assert report.error is not None
    assert str(path) in text(report)
    assert not report.understood


@pytest.mark.parametrize("name", names())
def test_a_captured_dose_file_is_reported_with_its_size_and_largest_dose(name: str) -> None:
    """Every ``Successfully ... DICOM`` line of a capture is one dose file, and the last one is shown."""
    lines = (LOGS / f"{name}.log").read_bytes().splitlines()
    files = [line.split(b" file: ")[1] for line in lines if b"Successfully " in line and b" DICOM " in line]
    report = verify(LOGS / f"{name}.log", SitePatterns())
    assert report.doses_written == len(files)
    assert report.dose_path == (files[-1].decode() if files else None)
    if files:
        assert report.dose_dimensions is not None
        assert report.dose_max_gy is not None
        assert str(report.dose_path) in text(report)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("goodmain_abort_at_exit", True),
        ("goodmain_multibeam", True),
        ("goodmain_rel_dcm", True),
        ("jkh_main_abort_at_save", True),
        ("goodmain_rel_outdir_missing", False),
        ("jkh_rel_diskfull", False),
        ("good_sigkill", False),
        ("jkh_rel_dcm", False),
    ],
)
def test_a_crash_after_the_dose_was_written_is_distinguished(name: str, before: bool) -> None:
    report = verify(LOGS / f"{name}.log", SitePatterns())
    assert (report.dose_text is not None) == before
    assert ("the dose file was written before the crash" in text(report)) == before
