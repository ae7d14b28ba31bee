"""Accepting connections while the server stops."""

from __future__ import annotations

import asyncio
import socket

from exporter.web.connections import _accepted


async def _cancelled_when_somebody_has_come(listener: socket.socket) -> socket.socket:
    """Somebody connects, and accepting is cancelled between the loop's noticing and the connection's being taken.

    Returns:
        The client.
    """
    accepting = asyncio.create_task(_accepted(listener))
    await asyncio.sleep(0)  # it waits for somebody
    client = socket.create_connection(listener.getsockname())
    # In its next round the loop sees the client, after it has gone on here; what is added here comes in the round after
    # that, before the task that is woken.
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(accepting.cancel)
    await asyncio.wait([accepting])
    assert accepting.cancelled()
    return client


def test_who_came_when_accepting_was_cancelled_is_not_lost() -> None:
    """Closing the listener, which comes next, tells the client; a connection that was taken and dropped would not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with asyncio.run(_cancelled_when_somebody_has_come(listener)) as client:
            connection, peer = listener.accept()
            connection.close()
            assert peer == client.getsockname()
