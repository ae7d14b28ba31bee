"""The exporter's own log where ids are redacted: what has not been cleared does not get into it."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

import exporter
from exporter.privacy import redaction
from exporter.privacy.identifiers import SafeText
from exporter.privacy.pseudonyms import PseudonymKey, Pseudonyms
from exporter.runtime import log_output
from exporter.runtime.log_output import _Output, configure
from exporter.sources.source import SourceUnavailable

NAME = "Kowalczyk"
IDENTIFIERS = Pseudonyms(PseudonymKey.of(bytes(32)))


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, as JSON; logging, and what Python prints by itself, are as before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for module, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))
    written = io.StringIO()
    configure("debug", "json", written, identifiers=IDENTIFIERS)
    yield written
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def entries(stream: io.StringIO) -> list[dict[str, object]]:
    assert NAME not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ids_paths_texts_and_problems_are_converted_by_the_name_of_their_field(stream: io.StringIO) -> None:
    IDENTIFIERS.allow_plain(["at_the_gpu"], ["/data/logs"])
    problem = SourceUnavailable("connect", f"no route to {NAME}")
    log = structlog.get_logger()
    log.info("x", case=NAME, beam=NAME, folder="/data/logs", status="at_the_gpu", error=problem)
    log.info("x", folder=f"/data/{NAME}", database=f"/{NAME}.db", status=NAME, text=NAME, error=OSError(NAME))
    first, second = entries(stream)
    assert (first["case"], first["beam"]) == (IDENTIFIERS.case(NAME), IDENTIFIERS.beam(NAME))
    assert (first["folder"], first["status"]) == ("/data/logs", "at_the_gpu")
    assert first["error"] == f"connect, the rest is redacted; {problem.advice}"
    assert {second[name] for name in ("folder", "database", "status", "text", "error")} == {"redacted"}


def test_texts_are_redacted_unless_they_are_safe_numbers_or_our_own_words(stream: io.StringIO) -> None:
    structlog.get_logger().warning(
        "run failed",
        case=SafeText("case-7"),
        path=NAME,
        source="local",
        run=2,
        ratio=0.5,
        ended=None,
        late=True,
        error=f"cannot read {NAME}",
        keys=[NAME],
        data=NAME.encode(),
    )
    [entry] = entries(stream)
    assert {key: value for key, value in entry.items() if key != "ts"} == {
        "level": "warning",
        "msg": "run failed",
        "case": "case-7",
        "path": "redacted",
        "source": "local",
        "run": 2,
        "ratio": 0.5,
        "ended": None,
        "late": True,
        "error": "redacted",
        "keys": "redacted",
        "data": "redacted",
    }


def test_exceptions_keep_their_types_and_places_and_lose_their_words(stream: io.StringIO) -> None:
    try:
        try:
            raise FileNotFoundError(2, "No such file", NAME)
        except FileNotFoundError as error:
            raise ValueError(NAME) from error
    except ValueError:
        structlog.get_logger().exception("unexpected error")
    [entry] = entries(stream)
    lines = str(entry["exception"]).splitlines()
    assert [line for line in lines if line.endswith(": redacted")] == [
        "builtins.FileNotFoundError: redacted",
        "builtins.ValueError: redacted",
    ]
    assert sum(f'"{__file__}"' in line for line in lines) == 2


def test_exceptions_that_cause_each_other_are_rendered_once(stream: io.StringIO) -> None:
    first, second = ValueError(NAME), KeyError(NAME)
    first.__cause__, second.__cause__ = second, first
    structlog.get_logger().error("unexpected error", exc_info=first)
    [entry] = entries(stream)
    assert str(entry["exception"]).count("redacted") == 2


def test_of_a_library_record_only_logger_and_code_location_are_logged(stream: io.StringIO) -> None:
    try:
        raise OSError(NAME)
    except OSError:
        logging.getLogger("uvicorn.error").exception("lost %s", NAME)
    [entry] = entries(stream)
    assert (entry["msg"], entry["logger"]) == ("redacted", "uvicorn.error")
    assert str(entry["where"]).startswith("test_redaction.py:")
    assert str(entry["exception"]).endswith("builtins.OSError: redacted")


def test_what_python_prints_by_itself_comes_to_the_log(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError(NAME)

    # pytest's own hook catches it before Python's would.
    monkeypatch.setattr(threading, "excepthook", redaction._uncaught_in_thread)
    thread = threading.Thread(target=fail, name="faulty")
    thread.start()
    thread.join()
    error = ValueError(NAME)
    sys.excepthook(ValueError, error, None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn(NAME, stacklevel=1)
    assert [entry["msg"] for entry in entries(stream)] == [
        "unexpected error, a thread ends",
        "unexpected error, the exporter ends",
        "redacted",
    ]
    assert NAME not in "".join(capsys.readouterr())


def test_a_line_that_cannot_be_written_is_not_printed_instead(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [each for each in root.handlers if isinstance(each, _Output)])
    logging.getLogger("anybody").error("%d", NAME)
    assert entries(stream) == []
    said = capsys.readouterr().err
    assert NAME not in said
    assert said.startswith("a log line of test_redaction.py:")


def test_log_messages_are_literals() -> None:
    """What stands in the message itself is not redacted: it must be written in the code, whole."""
    methods = {"debug", "info", "warning", "error", "exception", "critical"}
    found = []
    for path in Path(exporter.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in methods
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("_log", "_LOG")
            ):
                [*arguments] = node.args
                literal = len(arguments) == 1 and isinstance(arguments[0], ast.Constant)
                found.append((literal, f"{path.name}: {ast.unparse(node)[:80]}"))
    assert len(found) > 30
    # The one that is handed its message gets it from calls that are looked at here as well.
    assert [call for literal, call in found if not literal] == ["connections.py: _LOG.warning(event, **fields)"]


def test_that_lines_were_left_out_is_not_redacted(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_output, "LINES_PER_MINUTE", 1)
    [handler] = [each for each in logging.getLogger().handlers if isinstance(each, _Output)]
    for _ in range(3):
        structlog.get_logger().warning("source down")
    monkeypatch.setattr(handler, "_minute_began", handler._minute_began - 60)
    structlog.get_logger().warning("source up")
    said = [entry["msg"] for entry in entries(stream)]
    assert said == ["source down", "log lines left out: 2, more than 1 came in a minute", "source up"]
