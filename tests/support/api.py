"""A stand-in for a running exporter's API: answers every request with what it was told, and says what was asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.support.sshd import free_port


class StandIn:
    """An HTTP server on loopback; may be stopped and started again at the same port.

    Args:
        answer: the answer to ``/api/v1/beams``, as JSON, or bytes to answer as they are.
    """

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.status = 200
        self.asked: list[tuple[str, str | None]] = []
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.asked.append((self.path, self.headers.get("Authorization")))
                answer = stand_in.answer
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(stand_in.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(10)
            self._server.server_close()
            self._server = None

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def beam(case_id: str, beam_id: str, state: str = "running", **others: Any) -> dict[str, Any]:
    """A beam as the API says it."""
    return {"case_id": case_id, "beam_id": beam_id, "source": "local", "state": state, **others}
