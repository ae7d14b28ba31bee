"""Everything goes wrong for forty seconds: the gate. ``make chaos`` does the same for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.campaign import run
from tests.chaos.faults import FAULTS

_SEED = 1
_SECONDS = 40.0
"""Long enough for every kind of fault to happen."""


@pytest.mark.timeout(600)
def test_what_is_shown_is_true_whatever_goes_wrong(tmp_path: Path) -> None:
    report = run(tmp_path, _SEED, _SECONDS)
    assert report.survived.keys() == {kind.__name__ for kind in FAULTS}
    assert report.retries > 0
    assert report.scrapes > 0
