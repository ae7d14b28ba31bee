"""Basic authentication: who may have an answer.

A check costs a bcrypt computation, a tenth of a second or more of a processor. So one is made at a time, in a worker
thread, never in the event loop, and addresses take turns. Who was right once is remembered (by a keyed digest, in
memory only) and never waits again, which is what a scraper is. A name that does not exist costs the same as one that
does. Addresses that were wrong too often are turned away unchecked for a while, unless what they bring is remembered as
right: a proxy brings everybody.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import math
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

import bcrypt
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.web.connections import address_key
from exporter.web.login_queue import LoginQueue, LoginQueueFull

_LOG = structlog.get_logger(__name__)

REASONS = ("password", "limited", "certificate")
"""Why a login failed: wrong; not looked at since the address was wrong too often; no acceptable certificate."""
FAILURES_AT_ONCE = 10
"""So many wrong logins an address may make in a row ..."""
FAILURE_SECONDS = 6.0
"""... and one more after each of these. A scraper with an old password asks every 15 s and stays below."""
USER = "mqi.user"
"""Where in the scope of a request that is let through the user's name is, if a password was asked for."""
_ADDRESSES_AT_MOST = 10_000
_REMEMBERED_AT_MOST = 1024
_CHECKS_WAITING_AT_MOST = 32
_CHECKS_OF_ONE_ADDRESS = 4
_PASSWORD_BYTES = 72
"""What bcrypt looks at; the rest of a longer password counts nothing, as everywhere."""
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="mqi-exporter", charset="UTF-8"'}


class FailedLogins:
    """How many logins have failed, by reason. Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """One more, for one of :data:`REASONS`."""
        with self._lock:
            self._counts[reason] += 1

    def read(self) -> dict[str, int]:
        """Every reason, those that never came too."""
        with self._lock:
            return {reason: self._counts[reason] for reason in REASONS}


class LoginRateLimiter:
    """How many more wrong logins each address may make. For one thread.

    Args:
        clock: seconds from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when an address may make all its mistakes again

    def wait_seconds(self, address: str) -> float:
        """How long an address must wait before its next login is looked at; 0 where it need not."""
        debt = self._full_at.get(address, 0.0) - self._clock()
        return max(0.0, debt - (FAILURES_AT_ONCE - 1) * FAILURE_SECONDS)

    def failed(self, address: str) -> None:
        """An address was wrong once more."""
        now = self._clock()
        self._full_at[address] = max(self._full_at.pop(address, now), now) + FAILURE_SECONDS
        if len(self._full_at) > _ADDRESSES_AT_MOST:
            self._full_at.popitem(last=False)


class Authentication:
    """Lets requests through to an application whose user and password are right.

    Args:
        app: the application.
        users: users and bcrypt hashes as they are now; none: everybody is let through.
        failed: counts what fails.
        clock: seconds from any start.
    """

    def __init__(
        self,
        app: ASGIApp,
        users: Callable[[], Mapping[str, str]],
        failed: FailedLogins,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._users = users
        self._failed = failed
        self._patience = LoginRateLimiter(clock)
        self._secret = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._checks_of: Counter[str] = Counter()
        self._turns = LoginQueue(_CHECKS_WAITING_AT_MOST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        users = self._users()
        refusal = await self._refusal(scope, users) if users else None
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope, users: Mapping[str, str]) -> Response | None:
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            return _asked_for_a_password()  # a browser's first request: no login has failed
        address = address_key((scope.get("client") or ("", 0))[0])
        login = _login(given)
        if login is None:
            return self._wrong(address)
        name, password = login
        known = users.get(name)
        hashed = known if known is not None else self._stand_in(name, users)
        digest = self._digest(name, hashed, password)
        scope[USER] = name
        if known is not None and digest in self._right:
            self._right.move_to_end(digest)
            return None
        seconds = self._patience.wait_seconds(address)
        if seconds > 0:
            self._failed.count("limited")
            return _turned_away(429, seconds, "Too many wrong logins from this address")
        check = self._checks.get(digest)
        if check is None:
            if self._checks_of[address] >= _CHECKS_OF_ONE_ADDRESS:
                self._failed.count("limited")
                return _turned_away(429, 1, "Too many logins at once from this address")
            check = self._checks[digest] = asyncio.create_task(self._check(address, digest, password, hashed))
        try:
            # Several requests with the same login share its check, and none of them may end it for the others.
            right = await asyncio.shield(check)
        except LoginQueueFull:
            self._failed.count("limited")
            return _turned_away(503, 1, "Too many logins at once")
        if right and known is not None:
            self._remember(digest)
            return None
        return self._wrong(address)

    async def _check(self, address: str, digest: bytes, password: bytes, hashed: str) -> bool:
        self._checks_of[address] += 1
        try:
            async with self._turns.turn(address):
                return await run_in_threadpool(_matches, password, hashed)
        finally:
            del self._checks[digest]
            self._checks_of[address] -= 1
            if not self._checks_of[address]:
                del self._checks_of[address]

    def _wrong(self, address: str) -> Response:
        self._failed.count("password")
        self._patience.failed(address)
        if self._patience.wait_seconds(address) > 0:
            _LOG.warning("too many wrong logins, the address must wait", address=address)
        return _asked_for_a_password()

    def _remember(self, digest: bytes) -> None:
        self._right[digest] = None
        self._right.move_to_end(digest)
        if len(self._right) > _REMEMBERED_AT_MOST:
            self._right.popitem(last=False)

    def _digest(self, name: str, hashed: str, password: bytes) -> bytes:
        """What is remembered of a login: worthless outside this process, other where the hash in the file is other."""
        parts = (name.encode("utf-8", "surrogateescape"), hashed.encode(), password)
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, text, hashlib.sha256)

    def _stand_in(self, name: str, users: Mapping[str, str]) -> str:
        """The hash that an unknown name is checked against: always the same real one, so it costs what that costs."""
        hashes = sorted(users.values())
        drawn = hmac.digest(self._secret, name.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return hashes[int.from_bytes(drawn[:8], "big") % len(hashes)]


def _login(given: list[str]) -> tuple[str, bytes] | None:
    """User and password; ``None`` where the header holds none."""
    scheme, _, text = given[0].partition(" ")
    if len(given) != 1 or scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name.decode("utf-8", "surrogateescape"), password) if colon else None


def _matches(password: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password[:_PASSWORD_BYTES], hashed.encode("ascii"))
    except ValueError:  # a zero byte, in some versions
        return False


def _asked_for_a_password() -> Response:
    return PlainTextResponse("User and password are needed.\n", 401, _CHALLENGE)


def _turned_away(status: int, seconds: float, why: str) -> Response:
    wait = max(1, math.ceil(seconds))
    return PlainTextResponse(f"{why}; try again in {wait} s.\n", status, {"Retry-After": str(wait)})
