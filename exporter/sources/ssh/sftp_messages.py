"""Messages of SFTP version 3 (draft-ietf-secsh-filexfer-02), which OpenSSH speaks.

A host may send anything. A malformed message raises :class:`SftpError`.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, LSTAT, OPENDIR, READDIR, REALPATH, STAT = 3, 4, 5, 7, 11, 12, 16, 17
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
_OK, EOF, _NO_SUCH_FILE, _PERMISSION_DENIED, _UNSUPPORTED = 0, 1, 2, 3, 8
FOR_READING = struct.pack(">II", 1, 0)

_SIZE, _OWNER, _PERMISSIONS, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000

_length = struct.Struct(">I").unpack_from
_USUAL_FLAGS = _SIZE | _OWNER | _PERMISSIONS | _TIMES
_USUAL = struct.Struct(">IQIIIII")
_usual = _USUAL.unpack_from
_USUAL_START = struct.pack(">I", _USUAL_FLAGS)

_TYPE_BITS = 0o170000
PACKET_LIMIT = 1 << 20
"""Longest message that is accepted, in bytes."""
COUNT_LIMIT = 1 << 16
_HANDLE_LIMIT = 256
"""Longest handle by the draft, in bytes."""
_MESSAGE_LIMIT = 200


class SftpError(Exception):
    """The host's SFTP server violates the protocol or a limit. The connection cannot be used any more."""


class SftpEnded(SftpError):
    """The host has ended the SFTP session."""


class SftpRefusal(Exception):
    """The host refuses one request.

    Args:
        code: SFTP status code: 2 is "no such file", 3 is "permission denied".
        message: text from the host.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message or f"SFTP status {code}")
        self.code = code

    @property
    def missing(self) -> bool:
        """Whether there is no such file."""
        return self.code == _NO_SUCH_FILE

    @property
    def forbidden(self) -> bool:
        """Whether the account lacks the permission."""
        return self.code == _PERMISSION_DENIED

    @property
    def unsupported(self) -> bool:
        """Whether the server does not support the request."""
        return self.code == _UNSUPPORTED


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes of a file; ``None`` if the host does not send one."""

    size_bytes: int | None
    modified_at: float | None
    mode: int | None

    @property
    def type_known(self) -> bool:
        """Whether the type of the file is known. A mode may hold permissions only."""
        return self.mode is not None and stat.S_IFMT(self.mode) != 0

    @property
    def complete(self) -> bool:
        """Whether size, modification time and type are known."""
        return self.size_bytes is not None and self.modified_at is not None and self.type_known

    @property
    def plain(self) -> bool:
        """Whether size, modification time and type are known and it is not a link."""
        return (
            self.size_bytes is not None
            and self.modified_at is not None
            and self.mode is not None
            and self.mode & _TYPE_BITS not in (0, stat.S_IFLNK)
        )

    @property
    def regular(self) -> bool:
        """Whether it is a regular file, or of unknown type."""
        return self.mode is None or self.mode & _TYPE_BITS in (0, stat.S_IFREG)

    @property
    def folder(self) -> bool:
        """Whether it is a folder."""
        return self.mode is not None and stat.S_ISDIR(self.mode)

    @property
    def link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode is not None and stat.S_ISLNK(self.mode)


SKIPPED = Attributes(None, None, None)
"""Attributes of an entry that :func:`read_names` did not read."""


def pack_string(value: bytes) -> bytes:
    """Encode a string."""
    return struct.pack(">I", len(value)) + value


def read_string(body: bytes, at: int) -> tuple[bytes, int]:
    """Decode the string at an offset; return it and the offset after it."""
    try:
        end = at + 4 + int(_length(body, at)[0])
    except struct.error:
        raise SftpError("an answer ends in the middle") from None
    if len(body) < end:
        raise SftpError("an answer ends in the middle")
    return body[at + 4 : end], end


def read_handle(kind: int, body: bytes) -> bytes | SftpRefusal:
    """Decode the answer to an OPEN or OPENDIR."""
    if kind != HANDLE:
        return read_refusal(kind, body)
    handle = read_string(body, 0)[0]
    if len(handle) > _HANDLE_LIMIT:
        raise SftpError(f"a handle of {len(handle)} bytes")
    return handle


def read_refusal(kind: int, body: bytes) -> SftpRefusal:
    """Decode a status message."""
    if kind != STATUS or len(body) < 4:
        raise SftpError(f"an answer of the unexpected kind {kind}")
    code = int(struct.unpack_from(">I", body, 0)[0])
    message = read_string(body, 4)[0] if len(body) >= 8 else b""
    return SftpRefusal(code, message[:_MESSAGE_LIMIT].decode("utf-8", "replace"))


def read_attributes(body: bytes) -> Attributes:
    """Decode the answer to a STAT or LSTAT."""
    return _decode_attributes(body, 0)[0]


def _decode_attributes(body: bytes, at: int) -> tuple[Attributes, int]:
    try:
        (flags,) = _length(body, at)
        if flags == _USUAL_FLAGS:
            # OpenSSH sends exactly these for every entry, so this is the fast path.
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
            for _ in range(2 * min(count, COUNT_LIMIT)):
                _, at = read_string(body, at)
    except struct.error:
        raise SftpError("an answer ends in the middle") from None
    return Attributes(size, modified, mode), at


def read_count(body: bytes) -> int:
    """Decode the number of entries in the answer to a READDIR."""
    if len(body) < 4:
        raise SftpError("an answer ends in the middle")
    return int(_length(body, 0)[0])


def read_names(body: bytes, wanted: Collection[bytes] | None = None) -> Iterator[tuple[bytes, Attributes]]:
    """Yield the entries of an answer to a READDIR. Entries that are not ``wanted`` get :data:`SKIPPED`."""
    at = 4
    for _ in range(read_count(body)):
        name, at = read_string(body, at)
        _, at = read_string(body, at)
        if wanted is None or name in wanted:
            attributes, at = _decode_attributes(body, at)
        elif body[at : at + 4] == _USUAL_START:
            attributes, at = SKIPPED, at + _USUAL.size
        else:
            attributes, at = SKIPPED, _decode_attributes(body, at)[1]
        if name not in (b".", b".."):
            yield name, attributes
