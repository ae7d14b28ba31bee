"""`check-config` finds patterns that become slow on long lines, by measuring them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporter.cli.main import main
from exporter.cli.pattern_attacks import attacks
from exporter.cli.pattern_cost import LINE_BYTES, measure

LINEAR = [
    r"Batch (\d+)/(\d+)",
    r"^(\d+) of (\d+)",
    r"with (\d+) batches",
    r"Generating particles for \((\d+) of \d+ batches\)",
    r"Simulation completed successfully",
    r"ERROR:|FATAL",
    r"Step\s+(\d+)\s+of\s+(\d+)",
    r"\[ *(\d+)%\]",
    r"배치 (\d+)",
    r"(?i)progress[ :]+(\d+)",
    r"^.*done",
    r"(?P<number>batch) [^ ]+ (\d+)",
    "(" * 60 + "done" + ")" * 60,
]
QUADRATIC = [
    r"(\d+)/(\d+)",
    r"\s+$",
    r".*done.*",
    r"Step\s*\d*\s*of",
    r"[^,]*,(\d+)x",
    r"begin.*end",
]
TOO_SLOW = [
    r"(a+)+$",
    r"(a|a)*b",
    r"(a|aa)+$",
    r"(\w+\s?)*:",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(?:x+x+)+y",
    r"([a-z]+[m-p]+)+!",
    r"(\d+(?:,\d+)*)+ of",
    r"(x+x+)+\1y",
    r"Batch (?:(?:ab)*)*c",
    r"(?:(?:가)+)+나",
    r"(?:[A-Z]+)(?:[A-Z0-9]*) ready",
    r"(.*),(.*),(.*),(.*)x",
    r"a{1,60}a{1,60}a{1,60}a{1,60}b",
]


@pytest.mark.parametrize("pattern", LINEAR)
def test_a_pattern_of_linear_time_passes(pattern: str) -> None:
    assert measure(pattern) is None


@pytest.mark.parametrize("pattern", QUADRATIC)
def test_a_pattern_of_more_than_linear_time_is_found(pattern: str) -> None:
    cost = measure(pattern)
    assert cost is not None
    assert not cost.too_slow
    assert cost.length == LINE_BYTES
    assert cost.growth > 3


@pytest.mark.parametrize("pattern", TOO_SLOW)
def test_a_catastrophic_pattern_is_aborted_soon(pattern: str) -> None:
    cost = measure(pattern)
    assert cost is not None
    assert cost.too_slow


def test_a_measurement_that_hangs_is_ended_at_its_deadline() -> None:
    began = time.monotonic()
    cost = measure(r"(a+)+$", deadline_seconds=0.001)
    assert cost is not None
    assert cost.too_slow
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("pattern", ["", "a", "(?=a)b", "(?<!a)b", r"(a)?(?(1)b|c)", "[^a]", "[^\\w]+", "x" * 5000])
def test_every_valid_pattern_gives_texts_of_the_length_asked_for(pattern: str) -> None:
    found = list(attacks(pattern))
    assert found
    assert all(len(attack.text(1000)) <= 1200 for attack in found)


def test_a_text_in_a_message_is_readable_in_korean() -> None:
    cost = measure(r"(?:(?:가)+)+나")
    assert cost is not None
    assert "'가' again and again" in cost.text


def check_config(tmp_path: Path, text: str) -> Result:
    path = tmp_path / "exporter.yaml"
    path.write_text(f"base_directory: {tmp_path}\n{text}", encoding="utf-8")
    return CliRunner().invoke(main, ["check-config", "--config.file", str(path)])


@pytest.mark.parametrize(
    ("key", "yaml"),
    [
        ("progress_tracking.patterns.total_batches", "progress_tracking: {patterns: {total_batches: '(\\w+)+: x'}}"),
        (
            "progress_tracking.patterns.current_batch[1]",
            "progress_tracking: {patterns: {current_batch: ['B (\\d+)', '(\\w+)+: x']}}",
        ),
        ("completion_markers.success_patterns[0]", "completion_markers: {success_patterns: ['(\\w+)+: x']}"),
        ("completion_markers.failure_patterns[0]", "completion_markers: {failure_patterns: ['(\\w+)+: x']}"),
    ],
)
def test_check_config_refuses_a_catastrophic_pattern_with_file_line_key_and_pattern(
    tmp_path: Path, key: str, yaml: str
) -> None:
    result = check_config(tmp_path, f"database: {{path: {tmp_path}/a.db}}\n{yaml}\n")
    assert result.exit_code == 1
    assert f"exporter.yaml:3: {key}: '(\\\\w+)+: x' becomes slow on long lines" in result.output
    assert "again and again" in result.output
    assert "valid" not in result.output


def test_check_config_refuses_a_catastrophic_name_pattern(tmp_path: Path) -> None:
    name = r"(?P<case_id>(?:\w+_?)+)-(?P<beam_id>.+)\.log"
    result = check_config(tmp_path, f"discovery: {{kind: directory, name_pattern: '{name}'}}\n")
    assert result.exit_code == 1
    assert "discovery.name_pattern" in result.output


def test_check_config_warns_of_a_quadratic_pattern_and_the_file_stays_valid(tmp_path: Path) -> None:
    result = check_config(
        tmp_path,
        f"database: {{path: {tmp_path}/a.db}}\nprogress_tracking: {{patterns: {{current_batch: '(\\d+)/(\\d+)'}}}}\n",
    )
    assert result.exit_code == 0
    assert "warning:" in result.output
    assert "'(\\\\d+)/(\\\\d+)' becomes slow on long lines" in result.output
    assert "times as long as half of it" in result.output
    assert "begin it with fixed text" in result.output
