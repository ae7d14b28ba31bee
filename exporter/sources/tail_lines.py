"""The last lines of a log, for people: what stands there when somebody asks how a beam is.

Only the last bytes are kept, as they came; they become lines when somebody asks. So a catch-up of gigabytes costs a
slice per read, and ten thousand beams cost 40 MB at most.
"""

from __future__ import annotations

LAST_BYTES = 4096
"""Kept of each log. The engines' lines are 40 to 80 bytes long: this is about fifty of them."""
LAST_LINES = 50
LAST_LINE_CHARACTERS = 500


def keep_last_bytes(before: bytes, data: bytes) -> bytes:
    """The last bytes of a log of which ``before`` was kept and to which ``data`` has been added."""
    if len(data) >= LAST_BYTES:
        return data[-LAST_BYTES:]
    return (before + data)[-LAST_BYTES:]


def last_lines(kept: bytes) -> tuple[str, ...]:
    """The last lines in what was kept, the unfinished one included: a shell's last word has no newline.

    Args:
        kept: from :func:`keep_last_bytes`.

    Returns:
        At most 50 lines of at most 500 characters, decoded as UTF-8 with replacement, oldest first. A line whose
        beginning is no longer there is left out, unless it is the only one.
    """
    lines = kept.translate(None, b"\0").split(b"\n")
    if len(kept) >= LAST_BYTES and len(lines) > 1:
        del lines[0]
    if not lines[-1]:
        lines.pop()
    return tuple(line.rstrip(b"\r").decode("utf-8", "replace")[:LAST_LINE_CHARACTERS] for line in lines[-LAST_LINES:])
