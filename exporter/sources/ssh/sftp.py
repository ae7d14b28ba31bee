"""A read-only SFTP client that asks many things at once.

The library's own client waits for each answer before it asks again: a thousand logs cost a thousand round trips. SFTP
(draft-ietf-secsh-filexfer-02, version 3, what OpenSSH speaks) numbers its requests so that answers may come whenever
they come; here a batch of requests goes out together and its answers are gathered. Only what following logs needs is
spoken: STAT, LSTAT, REALPATH, OPENDIR, READDIR, OPEN for reading, READ, CLOSE.

A host is not trusted to answer as it should: answers that nobody asked for, or that are longer than what was asked
for, end the session (:class:`SftpError`). So whatever it sends, what is kept of it is bounded. Of a folder only the
entries that are wanted are kept, and its listing is taken apart while it comes.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _LSTAT, _OPENDIR, _READDIR, _REALPATH, _STAT = 3, 4, 5, 7, 11, 12, 16, 17
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_OK, _EOF, _NO_SUCH_FILE, _PERMISSION_DENIED, _UNSUPPORTED = 0, 1, 2, 3, 8
_FOR_READING = struct.pack(">II", 1, 0)

_SIZE, _OWNER, _PERMISSIONS, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000

_length = struct.Struct(">I").unpack_from
_USUAL_FLAGS = _SIZE | _OWNER | _PERMISSIONS | _TIMES
_USUAL = struct.Struct(">IQIIIII")
_usual = _USUAL.unpack_from
_USUAL_START = struct.pack(">I", _USUAL_FLAGS)

REQUESTS_IN_FLIGHT = 128
"""So many requests go out before the first answer is awaited. More gain nothing (measured: 100 to 200 are best), and
both sides must never be writing while neither reads."""

READ_BYTES = 32 * 1024
"""Bytes that one READ asks for: what every server must be able to answer."""

FILES_AT_ONCE = 100
"""So many files are held open on the host at most."""

ENTRIES_PER_READDIR = 100
"""How many names OpenSSH puts into one answer."""

ENTRIES_LIMIT = 1 << 20
"""Most entries of one folder."""

ANSWERS_LIMIT_BYTES = 256 << 20
"""Most bytes of the answers to one batch of questions, or of the folders listed at once: a million usual names."""

GATHERED_LIMIT_BYTES = 64 << 20
"""Most bytes of answers that are held at once; listings are taken apart while they come."""

_SHORT_ANSWER_BYTES = 64 * 1024
"""Longest answer to a question that names one file."""

_NAME_LIMIT = 255
"""Longest name of a file on the usual file systems; longer ones are none that is wanted."""

_TYPE_BITS = 0o170000
_PACKET_LIMIT = 1 << 20
_DEPTH_LIMIT = 1 << 16
_HANDLE_LIMIT = 256
"""Of the draft."""
_READDIRS_AT_ONCE = 512
_SCANNED_AT_ONCE = 32
_MESSAGE_LIMIT = 200


class Channel(Protocol):
    """What is needed of a channel to the host's SFTP subsystem (paramiko's has it)."""

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class SftpError(Exception):
    """The host's SFTP server does not answer as it should: the connection is of no more use."""


class SftpEnded(SftpError):
    """There is nobody who answers any more."""


class SftpRefusal(Exception):
    """The host says no to one request.

    Args:
        code: of the protocol, 2 for "no such file", 3 for "permission denied".
        message: in the host's words.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message or f"SFTP status {code}")
        self.code = code

    @property
    def missing(self) -> bool:
        """There is no such file."""
        return self.code == _NO_SUCH_FILE

    @property
    def forbidden(self) -> bool:
        """This account may not."""
        return self.code == _PERMISSION_DENIED

    @property
    def unsupported(self) -> bool:
        """The server does not know the question."""
        return self.code == _UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the host says of a file; ``None`` where it does not."""

    size_bytes: int | None
    modified_at: float | None
    mode: int | None

    @property
    def type_known(self) -> bool:
        """The host says what kind of file it is; a mode may hold permissions alone."""
        return self.mode is not None and stat.S_IFMT(self.mode) != 0

    @property
    def complete(self) -> bool:
        """The host says all that following a log needs."""
        return self.size_bytes is not None and self.modified_at is not None and self.type_known

    @property
    def plain(self) -> bool:
        """The host says all that following a log needs, and it is no link."""
        return (
            self.size_bytes is not None
            and self.modified_at is not None
            and self.mode is not None
            and self.mode & _TYPE_BITS not in (0, stat.S_IFLNK)
        )

    @property
    def regular(self) -> bool:
        """It is a regular file, as far as the host says."""
        return self.mode is None or self.mode & _TYPE_BITS in (0, stat.S_IFREG)

    @property
    def folder(self) -> bool:
        """It is a folder."""
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def link(self) -> bool:
        """It is a symbolic link: what it leads to must be asked for by itself."""
        return self.mode is not None and stat.S_ISLNK(self.mode)


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder, as far as it was wanted.

    Args:
        entries: those that were wanted, links not followed.
        count: how many entries the folder has in all.
    """

    entries: dict[bytes, Attributes]
    count: int


Wanted = Collection[bytes] | Callable[[bytes, Attributes], bool]
"""Which entries of a folder are to be kept: those of these names, or what says so by name and attributes."""


class SftpSession:
    """One SFTP conversation; for one thread.

    Args:
        channel: to the host's SFTP subsystem. Its time-outs are the caller's.

    Raises:
        SftpError: the other side does not speak SFTP 3.

    Attributes:
        round_trips: batches of requests sent and awaited.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._buffer = bytearray()
        self._next_id = 0
        self._closing: set[int] = set()
        self.round_trips = 0
        self._send(struct.pack(">IBI", 5, _INIT, 3))
        kind, body = self._packet()
        if kind != _VERSION or len(body) < 4 or struct.unpack(">I", body[:4])[0] < 3:
            raise SftpError("the SFTP server does not speak version 3")

    def close(self) -> None:
        """End the conversation."""
        self._channel.close()

    def stat(self, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        """What each path leads to, links followed."""
        return self._attributes_of(_STAT, paths)

    def lstat(self, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        """What is at each path, links not followed."""
        return self._attributes_of(_LSTAT, paths)

    def real_paths(self, paths: Sequence[bytes]) -> list[bytes | SftpRefusal]:
        """Where each path leads, as a path without links."""
        return [
            _take_string(body, 4)[0] if kind == _NAME else _refusal(kind, body)
            for kind, body in self._ask((_REALPATH, _string(path)) for path in paths)
        ]

    def _attributes_of(self, question: int, paths: Sequence[bytes]) -> list[Attributes | SftpRefusal]:
        return [
            _attributes(body) if kind == _ATTRS else _refusal(kind, body)
            for kind, body in self._ask((question, _string(path)) for path in paths)
        ]

    def listings(
        self, folders: Sequence[bytes], expected_entries: Sequence[int], wanted: Sequence[Wanted] = ()
    ) -> list[Listing | SftpRefusal]:
        """The entries of many folders, without ``.`` and ``..``, links not followed.

        Args:
            folders: their paths.
            expected_entries: how many entries each is thought to have: as many questions go out at once.
            wanted: which entries of each are kept; all of them where nothing is said.
        """
        opened = [_opened(*answer) for answer in self._ask((_OPENDIR, _string(folder)) for folder in folders)]
        kept: list[dict[bytes, Attributes]] = [{} for _ in folders]
        refused: dict[int, SftpRefusal] = {
            index: handle for index, handle in enumerate(opened) if isinstance(handle, SftpRefusal)
        }
        open_handles = {index: handle for index, handle in enumerate(opened) if isinstance(handle, bytes)}
        unread = dict.fromkeys(open_handles, True)
        asks = {index: expected_entries[index] // ENTRIES_PER_READDIR + 2 for index in open_handles}
        told = dict.fromkeys(open_handles, 0)
        counts = dict.fromkeys(open_handles, 0)
        size_bytes = 0
        while any(unread.values()):
            order = [index for index in unread if unread[index] for _ in range(min(asks[index], _READDIRS_AT_ONCE))]
            questions = ((_READDIR, _string(open_handles[index])) for index in order)
            for number, kind, body in self._answers(questions, _PACKET_LIMIT):
                index = order[number]
                if kind == _NAME:
                    # An answer without a name counts, too: else there could be no end of them.
                    told[index] += max(1, _count(body))
                    if told[index] > ENTRIES_LIMIT:
                        raise SftpError(f"a folder has more than {ENTRIES_LIMIT} entries; move old files out of it")
                    size_bytes += len(body)
                    if size_bytes > ANSWERS_LIMIT_BYTES:
                        raise SftpError(f"listings of more than {ANSWERS_LIMIT_BYTES} bytes")
                    counts[index] += _keep(body, wanted[index] if wanted else _all, kept[index])
                else:
                    refusal = _refusal(kind, body)
                    unread[index] = False
                    if refusal.code != _EOF:
                        refused[index] = refusal
            asks = {index: 2 * asked for index, asked in asks.items()}
        self._close(open_handles.values())
        return [refused.get(index) or Listing(entries, counts[index]) for index, entries in enumerate(kept)]

    def scan(self, folder: bytes) -> Generator[Mapping[bytes, Attributes], None, None]:
        """The entries of a folder, some at a time, links not followed; nothing of it is kept.

        Raises:
            SftpRefusal: the folder cannot be listed.
        """
        [answer] = self._ask([(_OPENDIR, _string(folder))])
        handle = _opened(*answer)
        if not isinstance(handle, bytes):
            raise handle
        at_once = 1
        try:
            while True:
                for kind, body in self._ask([(_READDIR, _string(handle))] * at_once, _PACKET_LIMIT):
                    if kind != _NAME:
                        refusal = _refusal(kind, body)
                        if refusal.code != _EOF:
                            raise refusal
                        return
                    yield dict(_names(body))
                at_once = min(2 * at_once, _SCANNED_AT_ONCE)
        finally:
            self._close([handle])

    def read(
        self,
        requests: Sequence[tuple[bytes, int, int]],
        places: Sequence[bytes] = (),
        unwanted: Callable[[Mapping[bytes, bytes]], Collection[bytes]] = lambda _: (),
    ) -> list[bytes | SftpRefusal]:
        """Bytes of files, at most :data:`FILES_AT_ONCE` of them.

        Args:
            requests: path, offset and length of each; shorter at the end of a file.
            places: paths that the host is asked of where they lead, once the files are open; no round trip by itself.
            unwanted: told where each of these leads, as far as the host says, before anything is read: returns which
                paths nothing is read of.
        """
        openings = [(_OPEN, _string(path) + _FOR_READING) for path, _, _ in requests]
        answers = self._ask([*openings, *((_REALPATH, _string(place)) for place in places)])
        opened = [_opened(*answer) for answer in answers[: len(openings)]]
        leads = {
            place: _take_string(body, 4)[0]
            for place, (kind, body) in zip(places, answers[len(openings) :], strict=True)
            if kind == _NAME
        }
        kept_out = unwanted(leads)
        found: list[bytes | SftpRefusal] = [b"" if isinstance(handle, bytes) else handle for handle in opened]
        pieces = [
            (index, handle, offset, min(READ_BYTES, end - offset))
            for index, ((path, start, length), handle) in enumerate(zip(requests, opened, strict=True))
            if isinstance(handle, bytes) and path not in kept_out
            for end in (start + length,)
            for offset in range(start, end, READ_BYTES)
        ]
        read = self._ask(
            (_READ, _string(handle) + struct.pack(">QI", offset, size)) for _, handle, offset, size in pieces
        )
        parts: dict[int, list[bytes]] = {}
        ended: set[int] = set()
        for (index, _, _, size), (kind, body) in zip(pieces, read, strict=True):
            if index in ended:
                continue
            if kind == _DATA:
                data = _take_string(body, 0)[0]
                if len(data) > size:
                    raise SftpError(f"{len(data)} bytes of a file where {size} were asked for")
                parts.setdefault(index, []).append(data)
                if len(data) < size:
                    # The end of the file, or a server that answers with less than it was asked for: what follows the
                    # gap is read another time.
                    ended.add(index)
                continue
            ended.add(index)
            refusal = _refusal(kind, body)
            if refusal.code != _EOF:
                found[index] = refusal
        for index, data_parts in parts.items():
            if isinstance(found[index], bytes):
                found[index] = b"".join(data_parts)
        self._close(handle for handle in opened if isinstance(handle, bytes))
        return found

    def _close(self, handles: Iterable[bytes]) -> None:
        """Give handles back; their answers are gathered with those of the next question."""
        for handle in handles:
            request_id, packet = self._packed(_CLOSE, _string(handle))
            self._closing.add(request_id)
            self._send(packet)
        if len(self._closing) > _DEPTH_LIMIT:
            raise SftpError("the host does not say that files are closed")

    def _packed(self, kind: int, payload: bytes) -> tuple[int, bytes]:
        self._next_id = (self._next_id + 1) & 0xFFFFFFFF
        return self._next_id, struct.pack(">IBI", len(payload) + 5, kind, self._next_id) + payload

    def _ask(
        self, questions: Iterable[tuple[int, bytes]], longest_bytes: int = _SHORT_ANSWER_BYTES
    ) -> list[tuple[int, bytes]]:
        """Send all questions and gather their answers, in the order of the questions."""
        found: dict[int, tuple[int, bytes]] = {}
        size_bytes = 0
        for number, kind, body in self._answers(questions, longest_bytes):
            found[number] = (kind, body)
            size_bytes += len(body)
            if size_bytes > GATHERED_LIMIT_BYTES:
                raise SftpError(f"answers of more than {GATHERED_LIMIT_BYTES} bytes")
        return [found[number] for number in range(len(found))]

    def _answers(
        self, questions: Iterable[tuple[int, bytes]], longest_bytes: int
    ) -> Generator[tuple[int, int, bytes], None, None]:
        """Send all questions and yield their answers as they come.

        Args:
            questions: kind and payload of each.
            longest_bytes: of one answer.

        Returns:
            Of each answer the number of its question, its kind and its body. They must all be taken.
        """
        packed = [self._packed(kind, payload) for kind, payload in questions]
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
                raise SftpError("an answer that nobody asked for")

    def _send(self, data: bytes) -> None:
        self._channel.sendall(data)

    def _packet(self) -> tuple[int, bytes]:
        """The next answer: its kind, and its body."""
        length = struct.unpack(">I", self._bytes(4))[0]
        if not 1 <= length <= _PACKET_LIMIT:
            raise SftpError(f"an answer of {length} bytes: the host does not speak SFTP here (a shell that prints?)")
        packet = self._bytes(length)
        return packet[0], packet[1:]

    def _bytes(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self._channel.recv(1 << 18)
            if not data:
                raise SftpEnded("the host has ended the SFTP session")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _keep(body: bytes, wanted: Wanted, entries: dict[bytes, Attributes]) -> int:
    """Keep the wanted entries of an answer; returns how many it has."""
    count = 0
    if callable(wanted):
        for name, attributes in _names(body):
            count += 1
            if len(name) <= _NAME_LIMIT and wanted(name, attributes):
                entries[name] = attributes
        return count
    for name, attributes in _names(body, wanted):
        count += 1
        if attributes is not _PASSED_OVER:
            entries[name] = attributes
    return count


_PASSED_OVER = Attributes(None, None, None)


def _all(_name: bytes, _attributes: Attributes) -> bool:
    return True


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _take_string(body: bytes, at: int) -> tuple[bytes, int]:
    try:
        end = at + 4 + int(_length(body, at)[0])
    except struct.error:
        raise SftpError("an answer ends in the middle") from None
    if len(body) < end:
        raise SftpError("an answer ends in the middle")
    return body[at + 4 : end], end


def _opened(kind: int, body: bytes) -> bytes | SftpRefusal:
    if kind != _HANDLE:
        return _refusal(kind, body)
    handle = _take_string(body, 0)[0]
    if len(handle) > _HANDLE_LIMIT:
        raise SftpError(f"a handle of {len(handle)} bytes")
    return handle


def _refusal(kind: int, body: bytes) -> SftpRefusal:
    if kind != _STATUS or len(body) < 4:
        raise SftpError(f"an answer of the unexpected kind {kind}")
    code = int(struct.unpack_from(">I", body, 0)[0])
    message = _take_string(body, 4)[0] if len(body) >= 8 else b""
    return SftpRefusal(code, message[:_MESSAGE_LIMIT].decode("utf-8", "replace"))


def _attributes(body: bytes) -> Attributes:
    return _take_attributes(body, 0)[0]


def _take_attributes(body: bytes, at: int) -> tuple[Attributes, int]:
    try:
        (flags,) = _length(body, at)
        if flags == _USUAL_FLAGS:
            # All that OpenSSH says, for every entry of every listing.
            _, size, _, _, mode, _, modified = _usual(body, at)
            return Attributes(size, float(modified), mode), at + _USUAL.size
        at += 4
        size = mode = modified = None
        if flags & _SIZE:
            (size,) = struct.unpack_from(">Q", body, at)
            at += 8
        if flags & _OWNER:
            at += 8
        if flags & _PERMISSIONS:
            (mode,) = struct.unpack_from(">I", body, at)
            at += 4
        if flags & _TIMES:
            modified = float(struct.unpack_from(">II", body, at)[1])
            at += 8
        if flags & _EXTENDED:
            (count,) = struct.unpack_from(">I", body, at)
            at += 4
            for _ in range(2 * min(count, _DEPTH_LIMIT)):
                _, at = _take_string(body, at)
    except struct.error:
        raise SftpError("an answer ends in the middle") from None
    return Attributes(size, modified, mode), at


def _count(body: bytes) -> int:
    if len(body) < 4:
        raise SftpError("an answer ends in the middle")
    return int(_length(body, 0)[0])


def _names(body: bytes, wanted: Collection[bytes] | None = None) -> Iterator[tuple[bytes, Attributes]]:
    """The entries of an answer; of names that are not ``wanted`` the attributes are not looked at."""
    at = 4
    for _ in range(_count(body)):
        name, at = _take_string(body, at)
        _, at = _take_string(body, at)
        if wanted is None or name in wanted:
            attributes, at = _take_attributes(body, at)
        elif body[at : at + 4] == _USUAL_START:
            attributes, at = _PASSED_OVER, at + _USUAL.size
        else:
            attributes, at = _PASSED_OVER, _take_attributes(body, at)[1]
        if name not in (b".", b".."):
            yield name, attributes
