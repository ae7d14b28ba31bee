"""Clients that a web server must survive, many at once: ``python -m tests.support.attackers KIND HOST:PORT COUNT``.

A process of its own, so that the attack does not slow the test that watches. It says ``attacking`` when all its clients
have begun, and goes on until it is killed; who is turned away comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tests.support.process import PATIENCE_SECONDS

_HELLO = bytes.fromhex("16030100c8010000c40303")  # the beginning of a TLS handshake
_GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A request's head, byte by byte, without end."""
    writer.write(b"GET /metrics HTTP/1.1\r\nX: ")
    while not reader.at_eof():
        await asyncio.sleep(0.5)
        writer.write(b"x")
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await reader.read()


async def half_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins TLS and goes no further."""
    writer.write(_HELLO)
    await reader.read()


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Asks for much and reads nothing."""
    writer.write((_GET.format("/metrics") + _GET.format("/table")).encode() * 200)
    await asyncio.sleep(3600)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Good and bad requests in one piece, and bytes of no sense."""
    writer.write(_GET.format("/-/healthy").encode() * 50 + random.randbytes(20_000))
    await reader.read()


async def huge_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head, or an address in it, of many megabytes."""
    writer.write(random.choice((b"GET / HTTP/1.1\r\nX: ", b"GET /")))
    for _ in range(100):
        writer.write(b"x" * 100_000)
        await writer.drain()


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body without end, to what takes none."""
    writer.write(b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()


async def tiny_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A body without end in chunks of one byte, also after it was refused."""
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n" * 10_000)
        await writer.drain()


async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Listens to events, and reads them."""
    writer.write(_GET.format("/api/v1/events").encode())
    while await reader.read(65536):
        pass


def flood(path: str, headers: str = "") -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Asks for a path as fast as it is answered."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)

    return ask


KINDS: dict[str, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
    "slow_head": slow_head,
    "silent": silent,
    "half_handshake": half_handshake,
    "deaf": deaf,
    "garbage": garbage,
    "huge_head": huge_head,
    "endless_body": endless_body,
    "tiny_chunks": tiny_chunks,
    "listener": listener,
    "flood_metrics": flood("/metrics"),
    "flood_openmetrics": flood("/metrics", "Accept: application/openmetrics-text\r\nAccept-Encoding: gzip\r\n"),
    "flood_page": flood("/"),
    "flood_table": flood("/table"),
    "flood_beams": flood("/api/v1/beams"),
    "flood_logins": flood("/metrics", "Authorization: Basic bWU6d3Jvbmc=\r\n"),
}


async def main(kind: str, address: str, count: int) -> None:
    """Attack until killed."""
    host, _, port = address.rpartition(":")
    begun = asyncio.Semaphore(0)

    async def client() -> None:
        first = True
        while True:
            writer = None
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                reader, writer = await asyncio.open_connection(host, int(port))
                if first:
                    begun.release()
                    first = False
                await KINDS[kind](reader, writer)
            if writer is not None:
                writer.close()
            await asyncio.sleep(0.05)

    clients = [asyncio.create_task(client()) for _ in range(count)]
    for _ in range(count):
        await begun.acquire()
    sys.stdout.write("attacking\n")
    sys.stdout.flush()
    await asyncio.gather(*clients)


@contextlib.contextmanager
def attack(kind: str, address: str, count: int) -> Iterator[None]:
    """So many clients of a kind, while the ``with`` block lasts."""
    command = [sys.executable, "-m", "tests.support.attackers", kind, address, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "attacking\n"
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
