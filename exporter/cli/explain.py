"""The command ``explain``: shows why a beam is in its state."""

from __future__ import annotations

import contextlib
import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from exporter.cli.configuration import load_settings
from exporter.cli.errors import fail
from exporter.cli.flags import Flags, address_flags, examples
from exporter.cli.top.command import url_of_own_exporter

if TYPE_CHECKING:
    from exporter.cli.top.readers import ApiReader

_MOST_SUGGESTIONS = 10
_COLUMNS = 120


@click.command(epilog=examples("mqi-exporter explain 70010001_beam_2", "mqi-exporter explain 70010001/beam_2 --json"))
@click.argument("beam", metavar="BEAM")
@click.option("--url", metavar="URL", help="A running exporter.  [default: the configuration's web.listen_address]")
@click.option("--json", "as_json", is_flag=True, help="JSON, as /api/v1/beams/CASE/BEAM/explain has it.")
@click.option("--user", metavar="NAME", help="For an exporter that asks for a password; with --password-file.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="Its first line is the password; only you may read it."
)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file of the authority of the exporter's certificate."
)
@address_flags
@click.pass_obj
def explain(
    flags: Flags,
    beam: str,
    url: str | None,
    as_json: bool,
    user: str | None,
    password_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Show why a beam is in its state.

    BEAM is the beam's id as on the page, or CASE/BEAM if several cases have such a beam. The running exporter answers
    with the beam's row, the paths where its log may be, what was found there, the dose file, and the rules that it
    applied.
    """
    from exporter.cli.top.readers import ApiReader, Unavailable, login

    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file: give both or none")
    try:
        credentials = None if user is None or password_file is None else login(user, password_file)
        if url is None:
            readable = flags.config_file is not None or os.access(flags.path, os.R_OK)
            url = url_of_own_exporter(flags, load_settings(flags) if readable else None)
        with contextlib.closing(ApiReader(url, credentials=credentials, ca_file=ca_file)) as api:
            answer = _ask(api, beam)
    except Unavailable as trouble:
        fail(str(trouble))
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2, allow_nan=False))
        return
    for line in _as_text(answer):
        click.echo(line)


def _ask(api: ApiReader, beam: str) -> Any:
    """Return the explanation of the beam with this name. Fail if no beam or several beams have it."""
    from exporter.cli.top.beams import printable
    from exporter.cli.top.readers import API_PATH

    ids = [(each.case_id, each.beam_id) for each in api.read().beams]
    found = [each for each in ids if beam in (each[1], "/".join(each))]
    if not found:
        similar = ["/".join(each) for each in ids if beam.casefold() in "/".join(each).casefold()]
        fail(_with_suggestions(f"no beam {printable(beam)} is shown by the exporter", "did you mean", similar))
    if len(found) > 1:
        choices = ["/".join(each) for each in found]
        fail(_with_suggestions(f"several cases have a beam {printable(beam)}", "name one of", choices))
    case_id, beam_id = (quote(each, safe="") for each in found[0])
    answer = api.get(f"{API_PATH}/{case_id}/{beam_id}/explain")
    if answer is None:
        fail(f"{api.shown}: cannot explain {printable(beam)}; it has just gone, or the exporter is an older version")
    return answer


def _with_suggestions(trouble: str, lead: str, names: list[str]) -> str:
    if not names:
        return trouble
    more = f" and {len(names) - _MOST_SUGGESTIONS} more" if len(names) > _MOST_SUGGESTIONS else ""
    return f"{trouble}; {lead}: {', '.join(names[:_MOST_SUGGESTIONS])}{more}"


def _as_text(answer: Any) -> Iterator[str]:
    from exporter.cli.top.beams import printable

    about = answer["explanation"]
    yield printable(f"Beam {about['beam_id']} of case {about['case_id']}, run {about['run']}")
    for section in answer["sections"]:
        yield ""
        yield printable(section["title"])
        for line in section["lines"]:
            yield textwrap.fill(
                printable(line),
                _COLUMNS,
                initial_indent="  ",
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
