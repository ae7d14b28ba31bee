"""A TCP relay on loopback that does to a connection what networks do: delay, stall, drop, cut, reset."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import sys
import threading
import time
from types import TracebackType

_CHUNK_BYTES = 1 << 16
_QUEUE_CHUNKS = 256


class Relay:
    """Passes each connection on to a server; ended at the end of the ``with`` block.

    Args:
        target: host and port of the server.
        delay_seconds: one-way latency, in both directions; order and bandwidth stay.
    """

    def __init__(self, target: tuple[str, int], delay_seconds: float = 0.0) -> None:
        self._target = target
        self.delay_seconds = delay_seconds
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._dropping = False
        self._refusing = False
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Relay:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._flowing.set()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def stall(self) -> None:
        """Nothing passes, nothing is lost, until :meth:`resume`."""
        self._flowing.clear()

    def drop(self) -> None:
        """What is sent from now on is lost, and nobody is told (a half-open link), until :meth:`resume`."""
        self._dropping = True

    def refuse(self) -> None:
        """Further connections are ended at once, until :meth:`resume`."""
        self._refusing = True

    def resume(self) -> None:
        """Back to normal; connections whose bytes were lost stay broken."""
        self._dropping = self._refusing = False
        self._flowing.set()

    def cut(self) -> None:
        """End every connection in good order."""
        self._end_all(reset=False)

    def reset(self) -> None:
        """End every connection with RST."""
        self._end_all(reset=True)

    def _end_all(self, *, reset: bool) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    # Wakes the thread that waits for bytes, and sends nothing.
                    each.shutdown(socket.SHUT_RD)
                else:
                    each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                ready, _, _ = select.select([self._listener], [], [], 0.1)
                if not ready:
                    continue
                near, _ = self._listener.accept()
            except (OSError, ValueError):
                return
            self.connections += 1
            if self._refusing:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            for each in (near, far):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(_QUEUE_CHUNKS)
                for work in (self._receive, self._send):
                    thread = threading.Thread(target=work, args=(source, sink, waiting), daemon=True)
                    thread.start()
                    self._threads.append(thread)

    def _receive(self, source: socket.socket, _: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(_CHUNK_BYTES)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self.delay_seconds, data))

    def _send(self, _: socket.socket, sink: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, data = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            self._flowing.wait()
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                if not self._dropping:
                    sink.sendall(data)
            except OSError:
                # The other direction has ended the connection; the sender must not block on a full queue.
                while data:
                    data = waiting.get()[1]
                return


def main() -> None:
    """``python -m tests.support.relay HOST PORT DELAY``: a relay as a process of its own; prints its port and waits."""
    host, port, delay = sys.argv[1:]
    with Relay((host, int(port)), float(delay)) as relay:
        sys.stdout.write(f"{relay.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
