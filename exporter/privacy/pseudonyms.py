"""Pseudonyms for the ids of cases and beams (``privacy.identifiers: pseudonym``).

A pseudonym is the beginning of an HMAC-SHA-256 of the id, with a key that only the site has. An id has the same
pseudonym on every host and after every restart. Without the key nobody can check a guessed id. Cases, beams and the
state file use different keys, derived from the key file, so that equal texts get different results.

Texts that could contain an id (paths, lines of logs, messages of other programs) are redacted completely, because
nobody can know every spelling of a name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from exporter.beams import statuses as communicator_statuses
from exporter.privacy.identifiers import Problem, SafeText
from exporter.process.trusted_files import readable_by_others
from exporter.process.user import own_user

REDACTED = SafeText("redacted")
CHARACTERS = 12
"""Length of a pseudonym in base32, 60 bits. Among a million ids, two collide with a probability of 1 in 2 million."""
KEY_BYTES = 32
"""Smallest size of a key file. A shorter key could be guessed."""
HOW_TO_MAKE_A_KEY = "make one: (umask 077; openssl rand -base64 48 > FILE)"
_KEY_BYTES_AT_MOST = 4096
_CASE, _BEAM = "case-", "beam-"
_FORM = re.compile(rf"({_CASE}|{_BEAM})[a-z2-7]{{{CHARACTERS},52}}")


class UnusableKey(Exception):
    """The key file cannot be used. The message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """The keys derived from the content of a key file; equal for equal contents."""

    cases: bytes = field(repr=False)
    beams: bytes = field(repr=False)
    state: bytes = field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> PseudonymKey:
        """Derive the keys from the content of a key file. Line ends at its end are ignored: editors add them."""
        secret = content.rstrip(b"\r\n")
        return cls(
            *(hmac.digest(secret, b"mqi-exporter " + use, hashlib.sha256) for use in (b"case", b"beam", b"state"))
        )


def read_key(path: Path, *, any_owner: bool = False) -> PseudonymKey:
    """Read a key file.

    Args:
        path: the file.
        any_owner: allow any owner, not only this user and root: for members of its group who run commands.

    Raises:
        UnusableKey: the file is missing, too short or too long, belongs to another user, or can be read by others.
    """
    try:
        # Non-blocking, because the path may be a pipe.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(opened)
            mode = status.st_mode
            content = os.read(opened, _KEY_BYTES_AT_MOST + 1) if stat.S_ISREG(mode) else b""
        finally:
            os.close(opened)
    except FileNotFoundError:
        raise UnusableKey(f"{path} does not exist; {HOW_TO_MAKE_A_KEY}") from None
    except OSError as error:
        raise UnusableKey(f"{path} cannot be read: {error.strerror}; let the exporter's user read it") from None
    if not stat.S_ISREG(mode):
        raise UnusableKey(f"{path} is not a file; {HOW_TO_MAKE_A_KEY}")
    # The owner can read and change the file, whatever its mode is.
    if not any_owner and status.st_uid not in (0, os.geteuid()):
        raise UnusableKey(
            f"{path} belongs to another user, who can read and change it; it must be the exporter's own: run "
            f"`chown {own_user()} {path}`"
        )
    # Sites often use a group for people who may resolve pseudonyms.
    if (exposed := readable_by_others(path, status, group_may_read=True)) is not None:
        raise UnusableKey(exposed)
    if len(content) > _KEY_BYTES_AT_MOST:
        raise UnusableKey(f"{path} is larger than {_KEY_BYTES_AT_MOST} bytes, so no key; {HOW_TO_MAKE_A_KEY}")
    if len(content.rstrip(b"\r\n")) < KEY_BYTES:
        raise UnusableKey(f"{path} holds fewer than {KEY_BYTES} bytes, which could be guessed; {HOW_TO_MAKE_A_KEY}")
    return PseudonymKey.of(content)


class _Register:
    """Computes and caches the pseudonyms of cases or of beams. Thread-safe.

    If two ids would get the same pseudonym, the second one gets a longer one. The oldest entries are dropped.
    """

    def __init__(self, prefix: str, key: bytes, characters: int, cache_size: int) -> None:
        self._prefix = prefix
        self._key = key
        self._characters = characters
        self._remembered_at_most = cache_size
        self._lock = threading.Lock()
        self._pseudonyms: OrderedDict[str, SafeText] = OrderedDict()
        self._taken: set[str] = set()

    def pseudonym(self, identifier: str) -> SafeText:
        with self._lock:
            known = self._pseudonyms.get(identifier)
            if known is not None:
                self._pseudonyms.move_to_end(identifier)
                return known
            whole = full_pseudonym(self._prefix, self._key, identifier)
            length = len(self._prefix) + self._characters
            while whole[:length] in self._taken:
                length += 1
            made = SafeText(whole[:length])
            self._pseudonyms[identifier] = made
            self._taken.add(made)
            if len(self._pseudonyms) > self._remembered_at_most:
                _, forgotten = self._pseudonyms.popitem(last=False)
                self._taken.remove(forgotten)
            return made


class Pseudonyms:
    """Shows ids as pseudonyms and redacts everything that could contain an id.

    Args:
        key: the site's key.
        cache_size: number of cases, and of beams, that are cached and kept distinct.
        characters: length of a pseudonym without its prefix.
    """

    def __init__(self, key: PseudonymKey, *, cache_size: int = 40_000, characters: int = CHARACTERS) -> None:
        self._cases = _Register(_CASE, key.cases, characters, cache_size)
        self._beams = _Register(_BEAM, key.beams, characters, cache_size)
        self.allow_plain()

    def allow_plain(self, statuses: Collection[str] = (), paths: Collection[str] = ()) -> None:
        """Set the texts that may be shown unchanged, because the site itself configured them.

        Args:
            statuses: statuses of rows, in addition to the communicator's own.
            paths: whole paths.
        """
        self._statuses = {status: SafeText(status) for status in communicator_statuses.ALL.union(statuses)}
        self._paths = {path: SafeText(path) for path in paths}

    def case(self, case_id: str) -> str:
        return self._cases.pseudonym(case_id)

    def beam(self, beam_id: str) -> str:
        return self._beams.pseudonym(beam_id)

    def path(self, path: str) -> str:
        return self._paths.get(path, REDACTED)

    def text(self, text: str) -> str:
        return REDACTED if text else SafeText()

    def lines(self, lines: Iterable[str]) -> list[str]:
        return [REDACTED] if any(lines) else []

    def status(self, status: str) -> str:
        return self._statuses.get(status, REDACTED)

    def problem(self, problem: Problem) -> str:
        said = f"{problem.kind}, the rest is {REDACTED}"
        return SafeText(f"{said}; {problem.advice}" if problem.advice else said)


def full_pseudonym(prefix: str, key: bytes, identifier: str) -> str:
    """Return the prefix and the whole digest of an id. A pseudonym is the beginning of it."""
    # An id may contain bytes that are not UTF-8.
    digest = hmac.digest(key, identifier.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return prefix + base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def is_pseudonym(text: str) -> bool:
    """Return whether a text has the form of a pseudonym."""
    return _FORM.fullmatch(text) is not None


def matches_case(pseudonym: str, key: PseudonymKey, case_id: str) -> bool:
    """Return whether a pseudonym, or the beginning of one, belongs to a case."""
    return full_pseudonym(_CASE, key.cases, case_id).startswith(pseudonym)


def matches_beam(pseudonym: str, key: PseudonymKey, beam_id: str) -> bool:
    """Return whether a pseudonym, or the beginning of one, belongs to a beam."""
    return full_pseudonym(_BEAM, key.beams, beam_id).startswith(pseudonym)
