import json
from pathlib import Path

from click.testing import CliRunner

from bench.__main__ import BENCHMARKS, main


def test_every_benchmark_runs_in_its_short_form(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--short", "--json", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert figures["ssh"]["look 20 round trips"] <= 2
    assert all(value > 0 for of_one in figures.values() for value in of_one.values())
    assert set(figures) == set(BENCHMARKS)
    assert result.output.count("| --- |") >= len(BENCHMARKS)
