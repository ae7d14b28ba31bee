"""The OpenAPI description of the API."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.sources.tail_lines import LAST_LINE_CHARACTERS, LAST_LINES
from exporter.web.api_schema import COUNT, NUMBER, STATE, TEXT, Json, object_schema, strict_object
from exporter.web.beam_fields import BEAM, ENDED_RUN
from exporter.web.explanation import explanation_schema
from exporter.web.overview_fields import CASE, DATABASE, SOURCE, SUMMARY_SCHEMA
from exporter.web.responses import JSON_TYPE
from exporter.web.run_history import DEFAULT_LIMIT, LARGEST_LIMIT, RUN

PREFIX = "/api/v1"
SEARCHED_FIELDS = (
    "case_id",
    "beam_id",
    "source",
    "state",
    "reason",
    "reason_text",
    "failure_text",
    "status",
    "hpc_job_id",
    "log_path",
    "output_path",
)
"""Fields that the query parameter ``text`` searches."""


def openapi(version: str) -> Json:
    """Make the API's OpenAPI 3.1 description."""
    at = {**NUMBER, "description": "Since when the content of this answer is unchanged."}
    lines = {
        "type": "array",
        "maxItems": LAST_LINES,
        "items": {"type": "string", "maxLength": LAST_LINE_CHARACTERS},
        "description": "The last lines of its log, oldest first.",
    }
    database = {"anyOf": [_reference("Database"), {"type": "null"}], "description": "The mirror; null without one."}
    by_pseudonym = {"type": "object", "additionalProperties": TEXT}
    schemas = {
        "Beam": object_schema(BEAM, "One beam."),
        "EndedRun": object_schema(ENDED_RUN, "A run that ended while the exporter was running."),
        "Case": object_schema(CASE, "One case."),
        "Source": object_schema(SOURCE, "A place where logs are read: the local file system or an SSH host."),
        "Database": object_schema(DATABASE, "Writing progress to the communicator's database."),
        "Summary": SUMMARY_SCHEMA,
        "Beams": strict_object(
            {
                "at": at,
                "summary": _reference("Summary"),
                "beams_dropped": {**COUNT, "description": "Beams beyond `max_beams`; they are not shown."},
                "beams": {"type": "array", "items": _reference("Beam")},
                "ended": {
                    "type": "array",
                    "items": _reference("EndedRun"),
                    "description": "The last ended runs, oldest first; their number is bounded.",
                },
            },
            "Beams and ended runs.",
        ),
        "BeamAndLines": strict_object(
            {"at": at, "beam": _reference("Beam"), "recent_lines": lines}, "One beam and the last lines of its log."
        ),
        "Explanation": explanation_schema(at),
        "Cases": strict_object({"at": at, "cases": {"type": "array", "items": _reference("Case")}}, "Cases."),
        "Sources": strict_object(
            {"at": at, "sources": {"type": "array", "items": _reference("Source")}, "database": database}, "Sources."
        ),
        "Run": object_schema(RUN, "A run of the history."),
        "Runs": strict_object({"runs": {"type": "array", "items": _reference("Run")}}, "Runs that ended."),
        "Names": strict_object(
            {
                "cases": {**by_pseudonym, "description": "Ids of cases by their pseudonyms."},
                "beams": {**by_pseudonym, "description": "Ids of beams by their pseudonyms."},
            },
            "The ids behind the pseudonyms of the beams on the store and of the last runs that ended.",
        ),
        "Events": {**TEXT, "description": "Server-sent events with JSON data."},
        "Error": strict_object({"error": TEXT}, "Why the query has no answer."),
    }
    states = {"type": "array", "items": STATE}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MQI beam exporter",
            "version": version,
            "description": "Progress of Monte Carlo dose simulations. Times are UTC epoch seconds, ratios 0..1; null "
            "means unknown. Answers that may be cached have a strong ETag.",
        },
        "paths": {
            f"{PREFIX}/beams": _get(
                "listBeams",
                "Beams on the store and the last runs that ended.",
                "Beams",
                _query("state", "Only beams in these states; may be repeated.", {**states, "uniqueItems": True}),
                _query("case", "Only this case.", TEXT),
                _query("text", f"Only beams with this text in one of: {', '.join(SEARCHED_FIELDS)}.", TEXT),
                _query("format", "`csv` for the beams as comma-separated values.", TEXT),
                errors={"400": "A state is unknown."},
            ),
            f"{PREFIX}/beams/{{case_id}}/{{beam_id}}": _get(
                "getBeam",
                "One beam and the last lines of its log.",
                "BeamAndLines",
                _in_path("case_id"),
                _in_path("beam_id"),
                errors={"404": "There is no such beam."},
            ),
            f"{PREFIX}/beams/{{case_id}}/{{beam_id}}/explain": _get(
                "explainBeam",
                "Why a beam is in its state: row, log paths, log, dose file, and the rules that were applied.",
                "Explanation",
                _in_path("case_id"),
                _in_path("beam_id"),
                errors={"404": "There is no such beam."},
            ),
            f"{PREFIX}/cases": _get("listCases", "Cases on the store.", "Cases"),
            f"{PREFIX}/sources": _get("listSources", "All sources, and the database.", "Sources"),
            f"{PREFIX}/runs": _get(
                "listRuns",
                "The history of runs: those that ended while an exporter watched, newest first.",
                "Runs",
                _query("case", "Only this case.", TEXT),
                _query("beam", "Only beams with this id.", TEXT),
                _query("since", "Only runs that ended then or later: an age (24h, 7d), ISO 8601, or seconds.", TEXT),
                _query("limit", f"At most so many; {DEFAULT_LIMIT} if not given, at most {LARGEST_LIMIT}.", COUNT),
                _query("format", "`csv` for comma-separated values.", TEXT),
                errors={
                    "400": "A parameter cannot be used.",
                    "404": "No history is kept.",
                    "503": "The history cannot be read.",
                },
            ),
            f"{PREFIX}/names": _get(
                "listNames",
                "The ids behind pseudonyms, for the users of privacy.resolve_for; logged, counted, never cached.",
                "Names",
                errors={
                    "403": "The user may not see ids.",
                    "404": "No user may see ids, or ids are not pseudonymised.",
                },
                cacheable=False,
            ),
            f"{PREFIX}/events": _get(
                "listen",
                "The store as it changes, as server-sent events: state, then change, and beat where nothing does.",
                "Events",
                errors={"503": "Too many clients listen already; poll instead."},
                cacheable=False,
                media_type="text/event-stream",
            ),
        },
        "components": {"schemas": schemas},
    }


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(
    operation: str,
    meaning: str,
    schema: str,
    *parameters: Json,
    errors: Mapping[str, str] | None = None,
    cacheable: bool = True,
    media_type: str = JSON_TYPE,
) -> Json:
    """Describe a path with the method GET.

    Args:
        cacheable: whether the answer has an ETag.
    """

    def answer(meaning: str, schema: str, media_type: str = JSON_TYPE) -> Json:
        return {"description": meaning, "content": {media_type: {"schema": _reference(schema)}}}

    return {
        "get": {
            "operationId": operation,
            "summary": meaning,
            "parameters": list(parameters),
            "responses": {
                "200": answer(meaning, schema, media_type),
                **({"304": {"description": "The client has this answer already."}} if cacheable else {}),
                **{status: answer(text, "Error") for status, text in (errors or {}).items()},
            },
        }
    }


def _query(name: str, meaning: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "description": meaning, "schema": schema}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}
