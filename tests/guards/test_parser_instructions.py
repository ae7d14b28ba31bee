"""What parsing a noisy log costs, in instructions, beside one search for one literal in the same bytes and process."""

from __future__ import annotations

from pathlib import Path

from bench import noisy
from tests.support.callgrind import counted

LOG_BYTES = 1 << 20
TIMES_THE_REFERENCE = 3.65
"""The search for all beginnings of lines, and that for the marks; measured, the same to 0.1 % at every run.

3.65 to 3.69 with Python 3.11 to 3.13, and 4.23 with 3.10.
"""


def test_parsing_a_noisy_log_takes_few_times_the_instructions_of_one_search(tmp_path: Path) -> None:
    log = tmp_path / "noisy.log"
    noisy.write(log, LOG_BYTES)
    with counted(tmp_path, Path(__file__).with_name("parsing.py"), log) as process:
        ratio = process.instructions("parser") / process.instructions("reference")

    assert ratio <= 1.3 * TIMES_THE_REFERENCE
