"""Servers on loopback in a thread of the test: a webhook and a mail server that keep what they get."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import Self


class InThread:
    """Serves while its ``with`` block lasts.

    Args:
        server: listens already.
    """

    def __init__(self, server: socketserver.TCPServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        self.address = f"127.0.0.1:{server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Webhook(InThread):
    """Takes Alertmanager's notifications; the path they are sent to is the receiver's name."""

    def __init__(self) -> None:
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), self._handler()))
        self.received: list[tuple[str, dict[str, Any]]] = []

    def told(self) -> set[tuple[str, str, str, str]]:
        """Receiver, status, alert and what it is about (beam or source), each once."""
        return {
            (
                receiver,
                alert["status"],
                alert["labels"]["alertname"],
                alert["labels"].get("beam_id") or alert["labels"].get("source", ""),
            )
            for receiver, payload in list(self.received)
            for alert in payload["alerts"]
        }

    def _handler(webhook: Webhook) -> type[BaseHTTPRequestHandler]:  # noqa: N805 -- self is the request's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.received.append((self.path.strip("/"), json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class MailServer(InThread):
    """As much of SMTP as a client needs that sends without encryption; every mail is kept."""

    def __init__(self) -> None:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        super().__init__(server)
        self.mails: list[EmailMessage] = []

    def _handler(server: MailServer) -> type[socketserver.StreamRequestHandler]:  # noqa: N805 -- self is the request's
        class Handler(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def handle(self) -> None:
                self.say("220 loopback")
                while line := self.rfile.readline():
                    match line[:4].upper():
                        case b"DATA":
                            self.say("354 go on")
                            lines = []
                            while (part := self.rfile.readline()) not in (b".\r\n", b""):
                                lines.append(part[1:] if part.startswith(b"..") else part)
                            message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                            assert isinstance(message, EmailMessage)
                            server.mails.append(message)
                            self.say("250 kept")
                        case b"QUIT":
                            self.say("221 bye")
                            return
                        case _:
                            self.say("250 well")

        return Handler
