import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import BENCHMARKS, main


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_runs_in_its_short_form(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [name, "--short", "--json", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))[name]
    assert figures
    assert all(value >= 0 for value in figures.values())
    assert "\n| --- |" in result.output
    if name == "ssh":
        assert figures["look 20 round trips"] <= 2
    if name == "soak":
        assert figures["runs counted"] == figures["runs ended"]
