"""A read-only SFTP client that sends many requests at once.

The SSH library's own client waits for each answer before it sends the next request, so a thousand logs cost a thousand
round trips. SFTP numbers its requests, so this client sends a batch of them and then collects the answers. It uses only
STAT, LSTAT, REALPATH, OPENDIR, READDIR, OPEN for reading, READ and CLOSE.

The host is not trusted. Answers that were not requested or are too long end the session (:class:`SftpError`), so memory
is bounded whatever the host sends. A folder's listing is decoded while it arrives, and only wanted entries are kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporter.sources.ssh import sftp_messages as wire
from exporter.sources.ssh.sftp_messages import Attributes, SftpEnded, SftpError, SftpRefusal

REQUESTS_IN_FLIGHT = 128
"""Most requests without an answer. 100 to 200 are fastest (measured); with many more, both sides could block while
writing."""

READ_BYTES = 32 * 1024
"""Bytes per READ request; every server must support this size."""

FILES_AT_ONCE = 100
"""Most files that are open on the host at once."""

ENTRIES_PER_READDIR = 100
"""Entries that OpenSSH puts into one answer."""

ENTRIES_LIMIT = 1 << 20
"""Most entries of one folder."""

ANSWERS_LIMIT_BYTES = 256 << 20
"""Most bytes of answers to one batch of requests, or of all folders listed at once: about a million names."""

GATHERED_LIMIT_BYTES = 64 << 20
"""Most bytes of answers in memory at once. Listings do not count, since they are decoded while they arrive."""

_SHORT_ANSWER_BYTES = 64 * 1024
"""Longest answer to a request about one file."""

_NAME_LIMIT = 255
"""Longest file name on the usual file systems. Longer names are skipped."""

_READDIRS_AT_ONCE = 512
"""Most READDIR requests per folder in one batch of :meth:`SftpSession.listings`."""
_SCANNED_AT_ONCE = 32
"""The same in :meth:`SftpSession.scan`."""


class Channel(Protocol):
    """Channel to the host's SFTP subsystem, as paramiko provides it."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """Listing of a folder.

    Args:
        entries: attributes of the wanted entries by name; links are not followed.
        count: number of all entries in the folder.
    """

    entries: dict[bytes, Attributes]
    count: int


Wanted = Collection[bytes] | Callable[[bytes, Attributes], bool]
"""The entries of a folder to keep: a set of names, or a function of name and attributes."""


class SftpSession:
    """One SFTP session, for one thread.

    Args:
        channel: channel to the host's SFTP subsystem. The caller sets its time-outs.

    Raises:
        SftpError: the server does not speak SFTP 3.

    Attributes:
        round_trips: number of request batches so far.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._next_id = 0
        self._closing: set[int] = set()
        self.round_trips = 0
        self._send(struct.pack(">IBI", 5, wire.INIT, 3))
        kind, body = self._packet()
        if kind != wire.VERSION or len(body) < 4 or struct.unpack(">I", body[:4])[0] < 3:
            raise SftpError("the SFTP server does not speak version 3")

    def close(self) -> None:
        """End the session."""
        self._channel.close()

    def stat(self, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        """Return the attributes of each path; links are followed."""
        return self._attributes_of(wire.STAT, paths)

    def lstat(self, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        """Return the attributes of each path; links are not followed."""
        return self._attributes_of(wire.LSTAT, paths)

    def real_paths(self, paths: Sequence[bytes]) -> list[bytes | SftpRefusal]:
        """Resolve the links in each path."""
        return [
            wire.read_string(body, 4)[0] if kind == wire.NAME else wire.read_refusal(kind, body)
            for kind, body in self._ask((wire.REALPATH, wire.pack_string(path)) for path in paths)
        ]

    def _attributes_of(self, question: int, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        return [
            wire.read_attributes(body) if kind == wire.ATTRS else wire.read_refusal(kind, body)
            for kind, body in self._ask((question, wire.pack_string(path)) for path in paths)
        ]

    def listings(
        self, folders: Sequence[bytes], expected_entries: Sequence[int], wanted: Sequence[Wanted] = ()
    ) -> list[Listing | SftpRefusal]:
        """List many folders, without ``.`` and ``..``; links are not followed.

        Args:
            folders: their paths.
            expected_entries: expected number of entries of each, which decides how many requests go out at once.
            wanted: the entries to keep of each; empty to keep all.
        """
        answers = self._ask((wire.OPENDIR, wire.pack_string(folder)) for folder in folders)
        opened = [wire.read_handle(*answer) for answer in answers]
        kept: list[dict[bytes, Attributes]] = [{} for _ in folders]
        refused: dict[int, SftpRefusal] = {
            index: handle for index, handle in enumerate(opened) if isinstance(handle, SftpRefusal)
        }
        open_handles = {index: handle for index, handle in enumerate(opened) if isinstance(handle, bytes)}
        unread = dict.fromkeys(open_handles, True)
        asks = {index: expected_entries[index] // ENTRIES_PER_READDIR + 2 for index in open_handles}
        received = dict.fromkeys(open_handles, 0)
        counts = dict.fromkeys(open_handles, 0)
        size_bytes = 0
        while any(unread.values()):
            order = [index for index in unread if unread[index] for _ in range(min(asks[index], _READDIRS_AT_ONCE))]
            messages = ((wire.READDIR, wire.pack_string(open_handles[index])) for index in order)
            for number, kind, body in self._answers(messages, wire.PACKET_LIMIT):
                index = order[number]
                if kind == wire.NAME:
                    # Count empty answers, too, or a host could send them forever.
                    received[index] += max(1, wire.read_count(body))
                    if received[index] > ENTRIES_LIMIT:
                        raise SftpError(f"a folder has more than {ENTRIES_LIMIT} entries; move old files out of it")
                    size_bytes += len(body)
                    if size_bytes > ANSWERS_LIMIT_BYTES:
                        raise SftpError(f"listings of more than {ANSWERS_LIMIT_BYTES} bytes")
                    counts[index] += _keep(body, wanted[index] if wanted else _all, kept[index])
                else:
                    refusal = wire.read_refusal(kind, body)
                    unread[index] = False
                    if refusal.code != wire.EOF:
                        refused[index] = refusal
            asks = {index: 2 * asked for index, asked in asks.items()}
        self._close(open_handles.values())
        return [refused.get(index) or Listing(entries, counts[index]) for index, entries in enumerate(kept)]

    def scan(self, folder: bytes) -> Generator[Mapping[bytes, Attributes], None, None]:
        """Yield the entries of a folder in blocks, keeping nothing in memory; links are not followed.

        Raises:
            SftpRefusal: the folder cannot be listed.
        """
        [answer] = self._ask([(wire.OPENDIR, wire.pack_string(folder))])
        handle = wire.read_handle(*answer)
        if not isinstance(handle, bytes):
            raise handle
        at_once = 1
        try:
            while True:
                for kind, body in self._ask([(wire.READDIR, wire.pack_string(handle))] * at_once, wire.PACKET_LIMIT):
                    if kind != wire.NAME:
                        refusal = wire.read_refusal(kind, body)
                        if refusal.code != wire.EOF:
                            raise refusal
                        return
                    yield dict(wire.read_names(body))
                at_once = min(2 * at_once, _SCANNED_AT_ONCE)
        finally:
            self._close([handle])

    def read(
        self,
        requests: Sequence[tuple[bytes, int, int]],
        places: Sequence[bytes] = (),
        forbidden: Callable[[Mapping[bytes, bytes]], Collection[bytes]] = lambda _: (),
    ) -> list[bytes | SftpRefusal]:
        """Read from at most :data:`FILES_AT_ONCE` files.

        Args:
            requests: path, offset and length of each.
            places: paths to resolve after the files are opened and before they are read, in the same round trip.
            forbidden: receives the resolved paths by path and returns the paths that must not be read.

        Returns:
            The bytes of each, fewer at the end of a file.
        """
        openings = [(wire.OPEN, wire.pack_string(path) + wire.FOR_READING) for path, _, _ in requests]
        answers = self._ask([*openings, *((wire.REALPATH, wire.pack_string(place)) for place in places)])
        opened = [wire.read_handle(*answer) for answer in answers[: len(openings)]]
        leads = {
            place: wire.read_string(body, 4)[0]
            for place, (kind, body) in zip(places, answers[len(openings) :], strict=True)
            if kind == wire.NAME
        }
        skipped = forbidden(leads)
        found: list[bytes | SftpRefusal] = [b"" if isinstance(handle, bytes) else handle for handle in opened]
        pieces = [
            (index, handle, offset, min(READ_BYTES, end - offset))
            for index, ((path, start, length), handle) in enumerate(zip(requests, opened, strict=True))
            if isinstance(handle, bytes) and path not in skipped
            for end in (start + length,)
            for offset in range(start, end, READ_BYTES)
        ]
        read = self._ask(
            (wire.READ, wire.pack_string(handle) + struct.pack(">QI", offset, size))
            for _, handle, offset, size in pieces
        )
        parts: dict[int, list[bytes]] = {}
        ended: set[int] = set()
        for (index, _, _, size), (kind, body) in zip(pieces, read, strict=True):
            if index in ended:
                continue
            if kind == wire.DATA:
                data = wire.read_string(body, 0)[0]
                if len(data) > size:
                    raise SftpError(f"{len(data)} bytes of a file instead of the {size} requested")
                parts.setdefault(index, []).append(data)
                if len(data) < size:
                    # The end of the file, or a server that sends less than requested: what follows the gap is read
                    # later.
                    ended.add(index)
                continue
            ended.add(index)
            refusal = wire.read_refusal(kind, body)
            if refusal.code != wire.EOF:
                found[index] = refusal
        for index, data_parts in parts.items():
            if isinstance(found[index], bytes):
                found[index] = b"".join(data_parts)
        self._close(handle for handle in opened if isinstance(handle, bytes))
        return found

    def _close(self, handles: Iterable[bytes]) -> None:
        """Close handles. The answers arrive with those of the next requests."""
        for handle in handles:
            request_id, packet = self._packed(wire.CLOSE, wire.pack_string(handle))
            self._closing.add(request_id)
            self._send(packet)
        if len(self._closing) > wire.COUNT_LIMIT:
            raise SftpError("the host does not confirm that files are closed")

    def _packed(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        return self._next_id, struct.pack(">IBI", len(payload) + 5, kind, self._next_id) + payload

    def _ask(
        self, messages: Iterable[tuple[int, bytes]], longest_bytes: int = _SHORT_ANSWER_BYTES
    ) -> list[tuple[int, bytes]]:
        """Send all requests and return their answers in the same order."""
        found: dict[int, tuple[int, bytes]] = {}
        size_bytes = 0
        for number, kind, body in self._answers(messages, longest_bytes):
            found[number] = (kind, body)
            size_bytes += len(body)
            if size_bytes > GATHERED_LIMIT_BYTES:
                raise SftpError(f"answers of more than {GATHERED_LIMIT_BYTES} bytes")
        return [found[number] for number in range(len(found))]

    def _answers(
        self, messages: Iterable[tuple[int, bytes]], longest_bytes: int
    ) -> Generator[tuple[int, int, bytes], None, None]:
        """Send all requests and yield their answers as they arrive. The caller must consume all of them.

        Args:
            messages: kind and payload of each request.
            longest_bytes: limit for one answer.

        Yields:
            Index of the request, kind and body of the answer.
        """
        packed = [self._packed(kind, payload) for kind, payload in messages]
        if not packed:
            return
        waiting = {request_id: number for number, (request_id, _) in enumerate(packed)}
        sent = size_bytes = 0
        self.round_trips += 1
        while waiting:
            room = REQUESTS_IN_FLIGHT - (sent - (len(packed) - len(waiting)))
            if sent < len(packed) and room >= REQUESTS_IN_FLIGHT // 2:
                self._send(b"".join(packet for _, packet in packed[sent : sent + room]))
                sent = min(len(packed), sent + room)
            kind, body = self._packet()
            if len(body) < 4:
                raise SftpError("an answer without a number")
            request_id = struct.unpack(">I", body[:4])[0]
            number = waiting.pop(request_id, None)
            if number is not None:
                size_bytes += len(body)
                if size_bytes > ANSWERS_LIMIT_BYTES:
                    raise SftpError(f"answers of more than {ANSWERS_LIMIT_BYTES} bytes")
                if len(body) > longest_bytes:
                    raise SftpError(f"an answer of {len(body)} bytes")
                yield number, kind, body[4:]
            elif request_id in self._closing:
                self._closing.remove(request_id)
            else:
                raise SftpError("an answer that was not requested")

    def _send(self, data: bytes) -> None:
        self._channel.sendall(data)

    def _packet(self) -> tuple[int, bytes]:
        """Receive the next answer; return its kind and body."""
        length = struct.unpack(">I", self._bytes(4))[0]
        if not 1 <= length <= wire.PACKET_LIMIT:
            raise SftpError(f"an answer of {length} bytes: the host does not speak SFTP here (a shell that prints?)")
        packet = self._bytes(length)
        return packet[0], packet[1:]

    def _bytes(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self._channel.recv(1 << 18)
            if not data:
                raise SftpEnded("the host has ended the SFTP session")
            self._buffer += data
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def _keep(body: bytes, wanted: Wanted, entries: dict[bytes, Attributes]) -> int:
    """Keep the wanted entries of an answer; return the number of all its entries."""
    count = 0
    if callable(wanted):
        for name, attributes in wire.read_names(body):
            count += 1
            if len(name) <= _NAME_LIMIT and wanted(name, attributes):
                entries[name] = attributes
        return count
    for name, attributes in wire.read_names(body, wanted):
        count += 1
        if attributes is not wire.SKIPPED:
            entries[name] = attributes
    return count


def _all(_name: bytes, _attributes: Attributes) -> bool:
    return True
