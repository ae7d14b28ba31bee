"""Messages through Apprise to a real webhook and a real mail server on loopback."""

from __future__ import annotations

import io
import logging
import socket
from pathlib import Path

import pytest

from exporter.notify.apprise_sender import UrlFileError, explain_failure, read_urls, send, url_id
from exporter.notify.messages import Message
from exporter.notify.notifier import SendFailed
from exporter.notify.occurrences import NotificationKind
from tests.support.receivers import MailServer, Webhook

MESSAGE = Message(NotificationKind.CASE_DONE, "Case 김-12 is done", "All 3 beams are done, the last at 21:58.")


def file_of(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "urls"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_a_webhook_gets_subject_and_text() -> None:
    with Webhook() as webhook:
        send(f"json://{webhook.address}/beams", MESSAGE)
        [(path, payload)] = webhook.received
    assert path == "beams"
    assert (payload["title"], payload["message"], payload["type"]) == (MESSAGE.subject, MESSAGE.body, "success")


def test_a_mail_server_gets_subject_and_text() -> None:
    with MailServer() as server:
        send(f"mailto://{server.address}?from=mqi@clinic.example&to=physics@clinic.example", MESSAGE)
        [mail] = server.mails
    assert mail["Subject"] == MESSAGE.subject
    assert MESSAGE.body in mail.get_content()


def test_a_service_that_cannot_be_reached_is_a_failure_that_shows_no_password(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    logging.getLogger().addHandler(handler)
    url = f"json://user:hunter2@127.0.0.1:{closed_port()}/"
    with pytest.raises(SendFailed) as caught:
        send(url, MESSAGE)
    assert "hunter2" not in str(caught.value)
    told = explain_failure(url, MESSAGE)
    assert told
    assert "hunter2" not in "".join(told)
    logging.getLogger().removeHandler(handler)
    assert "apprise" not in logged.getvalue()
    assert "hunter2" not in logged.getvalue()
    assert capfd.readouterr() == ("", "")


def test_urls_are_read_from_a_file_with_comments(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, "# physics\njson://127.0.0.1:1/a\n\n  mailto://127.0.0.1:2?from=a@b.example&to=c@d.example\n"
    )
    assert [url.partition("://")[0] for url in read_urls(path)] == ["json", "mailto"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# nothing\n", "holds no URL; write one per line"),
        ("json://127.0.0.1/\nnonsense://hunter2\n", "line 2: is not a URL that Apprise can send to"),
        ("hunter2\n", "line 1: is not a URL"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_that_names_the_line_and_shows_no_secret(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(UrlFileError) as caught:
        read_urls(file_of(tmp_path, text))
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_everybody_may_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UrlFileError, match="chmod 600"):
        read_urls(file_of(tmp_path, "json://127.0.0.1/\n", 0o644))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UrlFileError, match="none: No such file"):
        read_urls(tmp_path / "none")


def test_a_file_that_is_not_text_is_an_error_and_not_an_exception(tmp_path: Path) -> None:
    path = file_of(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UrlFileError, match="UTF-8"):
        read_urls(path)


def test_a_destination_is_named_without_its_url() -> None:
    assert "hunter2" not in url_id("json://hunter2@127.0.0.1/")
    assert url_id("json://a/") != url_id("json://b/")
