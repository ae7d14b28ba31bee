"""The layers of the design: no folder imports from one above it, and no module lies loose in ``exporter/``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run(
        [*command, "--no-logo", "--cache-dir", str(cache)], cwd=folder, capture_output=True, text=True, check=False
    )


def test_imports_keep_the_layers(tmp_path: Path) -> None:
    done = lint_imports(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_at_most_three_modules_lie_loose() -> None:
    loose = sorted(each.name for each in (ROOT / "exporter").glob("*.py"))
    assert len(loose) <= 3, loose
