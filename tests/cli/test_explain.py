"""The command ``explain`` against a web server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from exporter.cli.main import main
from tests.web.site import Site, serve
from tests.web.store_snapshots import make_beam, make_snapshot


@pytest.fixture
def site() -> Iterator[Site]:
    snapshot = make_snapshot(
        make_beam("case 1", "one"), make_beam("case 1", "both"), make_beam("case/2", "both"), make_beam("c", "\x1bhue")
    )
    with serve(snapshot=lambda: snapshot) as running:
        yield running


def explain(site: Site, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", "--url", f"http://{site.server.address}", *arguments])


def test_a_beam_is_explained_in_words_with_the_names_of_the_rules(site: Site) -> None:
    result = explain(site, "one")
    assert result.exit_code == 0
    assert result.output.startswith("Beam one of case case 1, run 1\n\nState\n  Running since ")
    assert "  The log shows progress. [progress]\n" in result.output
    assert "  local /logs/70010001_b1.log: this log is followed.\n" in result.output
    assert "  hpc1 /x.log: nothing is there.\n" in result.output


def test_json_is_what_the_api_answers(site: Site) -> None:
    result = explain(site, "one", "--json")
    said = json.loads(result.output)
    assert said == site.get("/api/v1/beams/case%201/one/explain").json()
    assert said["explanation"]["state_rule"] == "progress"


def test_a_beam_that_several_cases_have_is_named_with_its_case(site: Site) -> None:
    result = explain(site, "both")
    assert result.exit_code == 1
    assert "several cases have a beam both; name one of: case 1/both, case/2/both" in result.output
    assert "Beam both of case case/2" in explain(site, "case/2/both").output


def test_an_unknown_beam_is_refused_with_those_that_are_similar(site: Site) -> None:
    result = explain(site, "ONE")
    assert result.exit_code == 1
    assert "no beam ONE is shown by the exporter; did you mean: case 1/one" in result.output
    assert "no beam zzz is shown by the exporter\n" in explain(site, "zzz").output


def test_ids_send_nothing_to_the_terminal(site: Site) -> None:
    assert "\x1b" not in explain(site, "\x1bhue").output
    assert "\x1b" not in explain(site, "\x1b").output


def test_without_an_exporter_it_says_where_none_answers() -> None:
    result = CliRunner().invoke(main, ["explain", "one", "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9: no exporter answers" in result.output
