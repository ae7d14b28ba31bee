"""``python -m alerts`` writes ``mqi-rules.yml`` from the rules and their parameters."""

from __future__ import annotations

from pathlib import Path

from alerts.parameters import Parameters
from alerts.rules import rule_file

FILE = Path(__file__).with_name("mqi-rules.yml")

if __name__ == "__main__":
    FILE.write_text(rule_file(Parameters()), encoding="utf-8")
