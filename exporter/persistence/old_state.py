"""The JSON state file of earlier versions: read once, and turned into what the store holds now.

The file is lines of JSON between a head and a checksum: the counters, then one line for each beam. Version 1 kept each
object through a class of its own, whose fields were named without the leading underscore.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from exporter.beams.saved import StoredState
from exporter.beams.snapshot import EndedRun
from exporter.persistence.errors import StateReadable, StateUnusable
from exporter.persistence.lock import LockFile
from exporter.privacy.encryption import DecryptionFailed, Encryption

FORMAT = "mqi-beam-exporter state"
VERSION = 1

LARGEST_BYTES = 64 << 20
"""Ten thousand beams are about 17 MB."""

_ENCRYPTED = "sealed"
_LONGEST_HEAD_BYTES = 1024

_RUN = ("phase", "family", "past_histories", "succeeded", "understood", "first_growth_at", "finished_in_read")
_RUN_PRIVATE = (*_RUN, "line_buffered_reads", "read_over", "last_batch_done")
_BATCHES_PRIVATE = ("past_total", "past_started", "past_finished", "total", "started", "finished")
_BEAM_NAMES = {
    "backlog": "more_to_read",
    "bookmark": "checkpoint",
    "counted": "run_counted",
    "grew": "log_seen_growing",
    "set_aside": "provisional_run",
    "succession": "run_sequence",
    "terminal_since": "row_terminal_since",
    "unknown_to_row_since": "run_met_at",
}
"""Names in version 1, and the names now."""

_ended = TypeAdapter(list[EndedRun])


def store_path(file: Path) -> Path:
    """Return where the store is.

    Args:
        file: ``state.file`` of the configuration, which may still name the JSON file of earlier versions.
    """
    return file.with_suffix(".db") if file.suffix == ".json" else file


def find_old_state(file: Path, encryption: Encryption | None) -> OldStateFile | None:
    """Return the JSON file of an earlier version; ``None`` if there is none.

    Args:
        file: ``state.file`` of the configuration.
        encryption: decrypts it.
    """
    for path in dict.fromkeys((file, file.with_suffix(".json"))):
        with contextlib.suppress(OSError):
            # A pipe at the path must not hold up the start.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as opened:
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
                if regular and _head(opened.readline(_LONGEST_HEAD_BYTES)).get("format") == FORMAT:
                    return OldStateFile(path, encryption)
    return None


class OldStateFile:
    """The JSON state file of an earlier version.

    Args:
        path: the file.
        encryption: decrypts it; ``None`` where ids are plain.
    """

    def __init__(self, path: Path, encryption: Encryption | None) -> None:
        self.path = path
        self._encryption = encryption
        self._lock = None if path == store_path(path) else LockFile(path)  # else it is the store's, which is held

    def read(self) -> StoredState:
        """Return its state. The file stays locked against exporters of earlier versions until :meth:`release`.

        Raises:
            StateInUse: such an exporter uses it now.
            StateReadable: it cannot be used, and is not encrypted although it should be.
            StateUnusable: it cannot be used, or was encrypted with another key.
            OSError: it cannot be locked.
        """
        if self._lock is not None:
            self._lock.acquire()
        status = os.stat(self.path)
        if status.st_uid not in (os.geteuid(), 0):
            raise StateUnusable("belongs to another user")
        try:
            with self.path.open("rb") as file:
                data = file.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise StateUnusable(f"cannot be read: {error.strerror}") from error
        try:
            return _upgraded(self._lines(data))
        except StateUnusable as error:
            raise (StateReadable if self._must_not_be_kept(data) else StateUnusable)(str(error)) from None

    def _lines(self, data: bytes) -> list[bytes]:
        lines = _checked(data)
        if not _is_encrypted(data):
            return lines
        if self._encryption is None:
            raise StateUnusable("is encrypted, and privacy.identifiers is plain: there is no key to open it")
        try:
            return self._encryption.decrypt_lines(lines)
        except DecryptionFailed as error:
            raise StateUnusable(str(error)) from None

    def _must_not_be_kept(self, data: bytes) -> bool:
        return self._encryption is not None and not _is_encrypted(data)

    def retire(self, suffix: str) -> Path | None:
        """Rename the file, or delete it if it is not encrypted although it should be.

        Args:
            suffix: what is added to the name.

        Returns:
            The new path; ``None`` if it was deleted.

        Raises:
            OSError: it cannot be renamed or deleted.
        """
        kept = self.path.with_name(f"{self.path.name}{suffix}")
        with self.path.open("rb") as file:
            must_go = self._must_not_be_kept(file.readline(_LONGEST_HEAD_BYTES))
        if must_go:
            os.unlink(self.path)
        else:
            os.replace(self.path, kept)
        return None if must_go else kept

    def release(self) -> None:
        """Release the lock, and delete the lock file."""
        if self._lock is not None:
            self._lock.release()
            with contextlib.suppress(OSError):
                os.unlink(self._lock.path)


def is_readable(path: Path) -> bool:
    """Whether a state file exists that is not marked as encrypted.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return not _is_encrypted(file.readline(_LONGEST_HEAD_BYTES))
    except FileNotFoundError:
        return False


def _is_encrypted(data: bytes) -> bool:
    return _head(data).get(_ENCRYPTED) is True


def _head(data: bytes) -> dict[str, object]:
    return _parsed(data[: data.find(b"\n") + 1])


def _checked(data: bytes) -> list[bytes]:
    """The lines between head and checksum.

    Raises:
        StateUnusable: they are not there, or not as they were written.
    """
    if len(data) > LARGEST_BYTES:
        raise StateUnusable(f"is larger than {LARGEST_BYTES} bytes")
    version = _head(data).get("version")
    if version != VERSION:
        raise StateUnusable(f"was written by another exporter (version {version!r}, not {VERSION})")
    last = data.rfind(b"\n", 0, -1) + 1
    checksum = _parsed(data[last:])
    if not data.endswith(b"\n") or "sha256" not in checksum:
        raise StateUnusable("is cut off")
    if checksum["sha256"] != hashlib.sha256(data[:last]).hexdigest():
        raise StateUnusable("is damaged: its checksum is another")
    return data[:last].splitlines()[1:]


def _parsed(line: bytes) -> dict[str, object]:
    """A line that should be a JSON object; an empty one where it is not."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _upgraded(lines: list[bytes]) -> StoredState:
    try:
        store, *beams = map(json.loads, lines)
        parts = {
            "counters": {name: store[name] for name in ("since", "runs", "durations", "anomalies")},
            "sources": {"states": store["source_states"], "clocks": store.get("clocks")},
            "rates": store["rates"],
        }
        return StoredState(
            {name: _json(part) for name, part in parts.items()},
            [_json(_beam(beam)) for beam in beams],
            [_json(each) for each in store["retired"]],
            _ended.validate_json(_json(store["ended"]), strict=True),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        raise StateUnusable("holds what it should not") from None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _beam(beam: dict[str, Any]) -> dict[str, Any]:
    new = {_BEAM_NAMES.get(name, name): value for name, value in beam.items()}
    new["run_sequence"] = _run_sequence(new["run_sequence"])
    if new.get("provisional_run") is not None:
        new["provisional_run"] = _run(new["provisional_run"])
    new["log"], new["log_rule"] = _attribution(new, looked=new.pop("looked"), stale=new.pop("stale"))
    new["row_knowledge"] = "current" if new.get("run_met_at") is None else "older_than_run"
    if new.get("checkpoint") is not None:
        new["checkpoint"] = _checkpoint(new["checkpoint"])
    # Instants were wall-clock times.
    new["row_written_at"] = new["row"].get("updated_at")
    if new.get("stat") is not None:
        new["log_modified_at"] = new["stat"]["modified_at"] - (new.get("clock_offset_seconds") or 0.0)
    return new


def _attribution(beam: Mapping[str, Any], *, looked: bool, stale: bool) -> tuple[str, str]:
    """Which run the log belongs to, and the rule: version 1 kept flags instead."""
    if beam["source"] is None:
        return "none", "no_log"
    if stale and beam.get("provisional_run") is not None:
        return "previous_by_date", "log_older_than_row"
    if stale:
        return "previous", "log_of_run_before_reset"
    if beam["run_sequence"]["_undecided"] is not None:
        return "undecided", "log_replaced"
    return ("current", "log_written_while_watched") if looked else ("unread", "log_not_read")


def _run_sequence(sequence: dict[str, Any]) -> dict[str, Any]:
    undecided = sequence["undecided"]
    if undecided is not None:
        undecided = [[{"event": event["kind"], **event["fields"]}, at] for event, at in undecided]
    return {"number": sequence["number"], "run": _run(sequence["run"]), "_undecided": undecided}


def _run(run: dict[str, Any]) -> dict[str, Any]:
    return {**_private(run, _RUN_PRIVATE), "batches": _private(run["batches"], _BATCHES_PRIVATE)}


def _checkpoint(bookmark: dict[str, Any]) -> dict[str, Any]:
    parser = dict(bookmark["parser"])
    unfinished = parser["unfinished"].encode("latin-1")
    prefixes = {"prefixes": parser.get("prefixes", "undecided")}
    return {
        "log": bookmark["tailer"],
        "parser": {**parser, "unfinished": base64.b64encode(unfinished).decode(), "prefixes": prefixes},
    }


def _private(fields: Mapping[str, Any], private: Iterable[str]) -> dict[str, Any]:
    names = set(private)
    return {f"_{name}" if name in names else name: value for name, value in fields.items()}
