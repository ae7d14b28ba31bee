"""The exporter's own log: one line per event, whatever its values."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from exporter.runtime.log_output import configure, render_json, render_logfmt

FIELD = re.compile(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|[^ ]*)(?: |$)')


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream for the log. The logging of the test run is restored afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def fields(line: str) -> dict[str, str]:
    """Parse a logfmt line."""
    assert "".join(found[0] for found in FIELD.finditer(line)) == line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in FIELD.findall(line)}


def test_an_event_is_one_logfmt_line_with_time_level_and_message_first(stream: io.StringIO) -> None:
    configure("info", "logfmt", stream)
    structlog.get_logger().info("beam found", beam_id="7_1", source="local", batches=18)
    line = stream.getvalue().removesuffix("\n")
    assert re.fullmatch(r'ts=\S+Z level=info msg="beam found" beam_id=7_1 source=local batches=18', line)
    written = datetime.fromisoformat(fields(line)["ts"].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - written).total_seconds()) < 60


def test_an_event_is_one_json_object(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    structlog.get_logger().warning("late", seconds=float("inf"), path=b"x")
    event = json.loads(stream.getvalue())
    assert list(event) == ["ts", "level", "msg", "seconds", "path"]
    assert event["level"] == "warning"
    assert event["seconds"] == "inf"


def test_events_below_the_level_are_not_written(stream: io.StringIO) -> None:
    configure("warning", "logfmt", stream)
    structlog.get_logger().info("routine")
    logging.getLogger("uvicorn.error").info("routine")
    assert stream.getvalue() == ""


def test_a_second_configuration_applies_to_existing_loggers_without_duplicate_lines(stream: io.StringIO) -> None:
    configure("warning", "logfmt", stream)
    logger = structlog.get_logger().bind(source="local")
    configure("debug", "json", stream)
    logger.debug("now visible")
    assert json.loads(stream.getvalue())["msg"] == "now visible"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_line_break_in_a_value_does_not_start_a_new_line(stream: io.StringIO, form: str) -> None:
    configure("info", "json" if form == "json" else "logfmt", stream)
    structlog.get_logger().info("a\nb", beam_id="x\nts=2000 level=error msg=forged", text="\r\u2028\u0085\x1b[2J")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


@given(st.dictionaries(st.text(min_size=1), st.text(st.characters()) | st.floats() | st.none() | st.booleans()))
def test_any_fields_make_one_line_that_can_be_parsed(event: dict[str, object]) -> None:
    event = {re.sub(r"^(ts|level)$", "other", key): value for key, value in event.items()} | {"msg": "m"}
    as_logfmt, as_json = render_logfmt(None, "", event), render_json(None, "", event)
    for line in (as_logfmt, as_json):
        assert line.isprintable()
    assert len(FIELD.findall(as_logfmt)) == len(event)
    texts = {key: value for key, value in event.items() if isinstance(value, str)}
    assert {key: json.loads(as_json)[key] for key in texts} == texts


@given(st.text(st.characters(max_codepoint=0xFFFF)))
def test_a_logfmt_value_can_be_parsed_back(text: str) -> None:
    assert fields(render_logfmt(None, "", {"text": text})) == {"text": text}


def test_an_exception_is_one_field_without_the_values_of_variables(stream: io.StringIO) -> None:
    configure("info", "logfmt", stream)
    patient = "".join(["Doe", "John"])
    try:
        raise ValueError(f"cannot read {len(patient)} bytes")
    except ValueError:
        structlog.get_logger().exception("poll failed", source="local")
    (line,) = stream.getvalue().splitlines()
    found = fields(line)
    assert found["level"] == "error"
    assert found["exception"].endswith("ValueError: cannot read 7 bytes")
    assert patient not in line


def test_messages_of_the_web_server_have_the_same_format(stream: io.StringIO) -> None:
    configure("info", "logfmt", stream)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    assert fields(stream.getvalue().strip()) | {"ts": ""} == {
        "ts": "",
        "level": "info",
        "msg": "Started server process [7]",
        "logger": "uvicorn.error",
    }


def test_handlers_of_the_web_server_are_replaced(stream: io.StringIO) -> None:
    own = io.StringIO()
    logger = logging.getLogger("uvicorn")
    logger.addHandler(logging.StreamHandler(own))
    logger.propagate = False
    configure("info", "logfmt", stream)
    logger.info("Waiting for connections to close")
    assert own.getvalue() == ""
    assert 'msg="Waiting for connections to close"' in stream.getvalue()


def test_single_requests_are_not_logged(stream: io.StringIO) -> None:
    configure("debug", "logfmt", stream)
    logging.getLogger("uvicorn.access").info("GET /metrics")
    assert stream.getvalue() == ""


def test_handlers_of_other_programs_are_kept(stream: io.StringIO) -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure("info", "logfmt", stream)
    assert other in logging.getLogger().handlers


def test_the_default_stream_is_standard_error(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "logfmt")
    structlog.get_logger().info("hello")
    written = capsys.readouterr()
    assert "msg=hello" in written.err
    assert written.out == ""
    assert stream.getvalue() == ""


@pytest.mark.parametrize("level", ["debug", "info"])
def test_a_connection_closed_by_a_host_is_not_logged_by_paramiko(
    stream: io.StringIO, level: Literal["debug", "info"]
) -> None:
    configure(level, "logfmt", stream)
    logging.getLogger("paramiko.transport").error("Traceback (most recent call last):")
    assert stream.getvalue() == ""
