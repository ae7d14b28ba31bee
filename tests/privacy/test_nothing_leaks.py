"""Ids and names are fed through everything, and looked for in all that comes out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.privacy.hospital import IDS, KEYS, NEVER_SHOWN, SAID, SECRETS, Hospital, found
from tests.support.sshd import Sshd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the exporter's temporary files would be too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "site" / "var"))
    return tmp_path / "site"


def test_with_pseudonyms_no_id_and_no_name_comes_out(folder: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("correct horse battery staple, and some more of it\n", encoding="utf-8")
    with Sshd(tmp_path / "sshd") as sshd:
        hospital = Hospital(folder, sshd, f"{{identifiers: pseudonym, key_file: {key}}}")
        said = hospital.everything()
    assert found(SECRETS, said) == {}
    # It was not quiet: every beam is there, and what was redacted is said to be.
    assert len(set(re.findall(r'beam_id="(beam-[a-z2-7]{12})"', said["/metrics"]))) == len(KEYS)
    assert "redacted" in said["/api/v1/beams"]
    assert "ValueError: redacted" in said["log"]
    assert re.search(r"msg=decision rule=log_succeeded case=case-[a-z2-7]{12} ", said["log"])
    assert [said[f"explain {number}"].splitlines()[-1] for number in range(len(KEYS))] == ["0"] * len(KEYS)
    assert "logger=asyncio" in said["log"]
    # Who may know finds the way back, and that is all that is written of it.
    pseudonyms = sorted(set(re.findall(r"(?:case|beam)-[a-z2-7]{12}", said["/metrics"])))
    resolved = hospital.command("whois", *pseudonyms)
    assert resolved.endswith("\n0")
    assert set(found(IDS, {"whois": resolved})) == set(IDS)


def test_without_pseudonyms_ids_and_names_come_out_so_the_search_works(folder: Path, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        said = Hospital(folder, sshd, "{identifiers: plain}").everything()
    leaks = found(SECRETS, said)
    assert set(leaks) == {*IDS, *SAID.values()} - {SAID["a folder of a log"]}
    assert set(found(NEVER_SHOWN, said)) == set()
    places = (
        "/metrics",
        "OpenMetrics",
        "/table",
        "/api/v1/beams",
        "events",
        "file state.db",
        "top",
        "log",
        "explain 0",
    )
    for where in places:
        assert any(where in its for its in leaks.values()), where
