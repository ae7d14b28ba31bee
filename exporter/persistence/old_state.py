"""The JSON state of earlier versions: lines as they were, turned into lines as they are.

Version 1 kept each object through a class of its own, whose fields were named without the leading underscore.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

_RUN = ("phase", "family", "past_histories", "succeeded", "understood", "first_growth_at", "finished_in_read")
_RUN_PRIVATE = (*_RUN, "line_buffered_reads", "read_over", "last_batch_done")
_BATCHES_PRIVATE = ("past_total", "past_started", "past_finished", "total", "started", "finished")
_BEAM_NAMES = {
    "backlog": "more_to_read",
    "bookmark": "checkpoint",
    "counted": "run_counted",
    "grew": "log_seen_growing",
    "set_aside": "provisional_run",
    "succession": "run_sequence",
    "terminal_since": "row_terminal_since",
    "unknown_to_row_since": "run_met_at",
}
"""Names in version 1, and the names now."""


def upgraded_lines(lines: Iterable[bytes]) -> list[bytes]:
    """Return the lines of a state of version 1 as lines of the present version.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: they are no such lines.
    """
    store, *beams = map(json.loads, lines)
    store.pop("beams", None)
    return [json.dumps(each).encode() for each in (store, *map(_beam, beams))]


def _beam(beam: dict[str, Any]) -> dict[str, Any]:
    new = {_BEAM_NAMES.get(name, name): value for name, value in beam.items()}
    new["run_sequence"] = _run_sequence(new["run_sequence"])
    if new.get("provisional_run") is not None:
        new["provisional_run"] = _run(new["provisional_run"])
    new["log"], new["log_rule"] = _attribution(new, looked=new.pop("looked"), stale=new.pop("stale"))
    new["row_knowledge"] = "current" if new.get("run_met_at") is None else "older_than_run"
    if new.get("checkpoint") is not None:
        new["checkpoint"] = _checkpoint(new["checkpoint"])
    # Instants were wall-clock times.
    new["row_written_at"] = new["row"].get("updated_at")
    if new.get("stat") is not None:
        new["log_modified_at"] = new["stat"]["modified_at"] - (new.get("clock_offset_seconds") or 0.0)
    return new


def _attribution(beam: Mapping[str, Any], *, looked: bool, stale: bool) -> tuple[str, str]:
    """Which run the log belongs to, and the rule: version 1 kept flags instead."""
    if beam["source"] is None:
        return "none", "no_log"
    if stale and beam.get("provisional_run") is not None:
        return "previous_by_date", "log_older_than_row"
    if stale:
        return "previous", "log_of_run_before_reset"
    if beam["run_sequence"]["_undecided"] is not None:
        return "undecided", "log_replaced"
    return ("current", "log_written_while_watched") if looked else ("unread", "log_not_read")


def _run_sequence(sequence: dict[str, Any]) -> dict[str, Any]:
    undecided = sequence["undecided"]
    if undecided is not None:
        undecided = [[{"event": event["kind"], **event["fields"]}, at] for event, at in undecided]
    return {"number": sequence["number"], "run": _run(sequence["run"]), "_undecided": undecided}


def _run(run: dict[str, Any]) -> dict[str, Any]:
    return {**_private(run, _RUN_PRIVATE), "batches": _private(run["batches"], _BATCHES_PRIVATE)}


def _checkpoint(bookmark: dict[str, Any]) -> dict[str, Any]:
    parser = dict(bookmark["parser"])
    unfinished = parser["unfinished"].encode("latin-1")
    prefixes = {"prefixes": parser.get("prefixes", "undecided")}
    return {
        "log": bookmark["tailer"],
        "parser": {**parser, "unfinished": base64.b64encode(unfinished).decode(), "prefixes": prefixes},
    }


def _private(fields: Mapping[str, Any], private: Iterable[str]) -> dict[str, Any]:
    names = set(private)
    return {f"_{name}" if name in names else name: value for name, value in fields.items()}
