"""Keeps the last lines of a log, for people who ask how a beam is.

Only bytes are kept, and split into lines when somebody asks. So a catch-up of gigabytes costs one slice per read, and
ten thousand beams cost 40 MB at most.
"""

from __future__ import annotations

LAST_BYTES = 4096
"""Bytes kept of each log: about fifty lines, which are 40 to 80 bytes long."""
LAST_LINES = 50
LAST_LINE_CHARACTERS = 500


def keep_last_bytes(before: bytes, data: bytes) -> bytes:
    """Return the last bytes of a log, given those kept so far and those read now."""
    if len(data) >= LAST_BYTES:
        return data[-LAST_BYTES:]
    return (before + data)[-LAST_BYTES:]


def last_lines(kept: bytes) -> tuple[str, ...]:
    """Return the last lines, with an unfinished one: the last message of a shell may have no newline.

    Args:
        kept: the result of :func:`keep_last_bytes`.

    Returns:
        At most 50 lines of at most 500 characters, oldest first, decoded as UTF-8 with replacement. A line whose
        beginning was dropped is left out, unless it is the only one.
    """
    lines = kept.translate(None, b"\0").split(b"\n")
    if len(kept) >= LAST_BYTES and len(lines) > 1:
        del lines[0]
    if not lines[-1]:
        lines.pop()
    return tuple(line.rstrip(b"\r").decode("utf-8", "replace")[:LAST_LINE_CHARACTERS] for line in lines[-LAST_LINES:])
