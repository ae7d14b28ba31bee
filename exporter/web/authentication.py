"""Basic authentication.

Checking a password costs a bcrypt computation: a tenth of a second or more. So one check runs at a time, in a worker
thread, and client addresses take turns. A correct login is remembered, as a keyed digest in memory, and never waits
again; a scraper logs in with each request. An unknown user costs the same time as a known one. An address with too many
wrong logins is refused for a while without a check, except for remembered logins, since all clients of a proxy share
one address.
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
"""Why a login failed: wrong password; refused unchecked by the rate limiter; no accepted certificate."""
FAILURES_AT_ONCE = 10
"""Wrong logins that an address may make in a row."""
FAILURE_SECONDS = 6.0
"""After this time it may make one more. A scraper with an old password asks every 15 s and stays below."""
USER = "mqi.user"
"""Key of the user's name in the ASGI scope, if a password was needed."""
_ADDRESSES_AT_MOST = 10_000
_REMEMBERED_AT_MOST = 1024
_CHECKS_WAITING_AT_MOST = 32
_CHECKS_OF_ONE_ADDRESS = 4
_PASSWORD_BYTES = 72
"""bcrypt ignores further bytes."""
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="mqi-exporter", charset="UTF-8"'}


class FailedLogins:
    """Counts failed logins by reason. Safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """Add one failed login.

        Args:
            reason: one of :data:`REASONS`.
        """
        with self._lock:
            self._counts[reason] += 1

    def read(self) -> dict[str, int]:
        """Return the count of every reason, also if it is 0."""
        with self._lock:
            return {reason: self._counts[reason] for reason in REASONS}


class LoginRateLimiter:
    """Limits wrong logins per address. For one thread.

    Args:
        clock: monotonic clock, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when an address has its full allowance again

    def retry_after_seconds(self, address: str) -> float:
        """Return how long an address must wait before its next login is checked; 0 if it need not wait."""
        debt = self._full_at.get(address, 0.0) - self._clock()
        return max(0.0, debt - (FAILURES_AT_ONCE - 1) * FAILURE_SECONDS)

    def record_failure(self, address: str) -> None:
        """Count one more wrong login of an address."""
        now = self._clock()
        self._full_at[address] = max(self._full_at.pop(address, now), now) + FAILURE_SECONDS
        if len(self._full_at) > _ADDRESSES_AT_MOST:
            self._full_at.popitem(last=False)


class Authentication:
    """ASGI middleware that admits requests with a correct user and password.

    Args:
        app: the application.
        users: returns the current users and bcrypt hashes; if empty, every request is admitted.
        failed: counts failed logins.
        clock: monotonic clock, seconds.
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
        self._rate_limiter = LoginRateLimiter(clock)
        self._secret = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._checks_of: Counter[str] = Counter()
        self._queue = LoginQueue(_CHECKS_WAITING_AT_MOST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        users = self._users()
        refusal = await self._refusal(scope, users) if users else None
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope, users: Mapping[str, str]) -> Response | None:
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            return _password_needed()  # a browser's first request: no login has failed
        address = address_key((scope.get("client") or ("", 0))[0])
        login = _login(given)
        if login is None:
            return self._wrong(address)
        name, password = login
        known = users.get(name)
        hashed = known if known is not None else self._decoy_hash(name, users)
        digest = self._digest(name, hashed, password)
        scope[USER] = name
        if known is not None and digest in self._remembered:
            self._remembered.move_to_end(digest)
            return None
        seconds = self._rate_limiter.retry_after_seconds(address)
        if seconds > 0:
            self._failed.count("limited")
            return _retry_later(429, seconds, "Too many wrong logins from this address")
        check = self._checks.get(digest)
        if check is None:
            if self._checks_of[address] >= _CHECKS_OF_ONE_ADDRESS:
                self._failed.count("limited")
                return _retry_later(429, 1, "Too many logins at once from this address")
            check = self._checks[digest] = asyncio.create_task(self._check(address, digest, password, hashed))
        try:
            # Requests with the same login share one check; a request that is cancelled must not end it for the others.
            correct = await asyncio.shield(check)
        except LoginQueueFull:
            self._failed.count("limited")
            return _retry_later(503, 1, "Too many logins at once")
        if correct and known is not None:
            self._remember(digest)
            return None
        return self._wrong(address)

    async def _check(self, address: str, digest: bytes, password: bytes, hashed: str) -> bool:
        self._checks_of[address] += 1
        try:
            async with self._queue.slot(address):
                return await run_in_threadpool(_matches, password, hashed)
        finally:
            del self._checks[digest]
            self._checks_of[address] -= 1
            if not self._checks_of[address]:
                del self._checks_of[address]

    def _wrong(self, address: str) -> Response:
        self._failed.count("password")
        self._rate_limiter.record_failure(address)
        if self._rate_limiter.retry_after_seconds(address) > 0:
            _LOG.warning("too many wrong logins, the address must wait", address=address)
        return _password_needed()

    def _remember(self, digest: bytes) -> None:
        self._remembered[digest] = None
        self._remembered.move_to_end(digest)
        if len(self._remembered) > _REMEMBERED_AT_MOST:
            self._remembered.popitem(last=False)

    def _digest(self, name: str, hashed: str, password: bytes) -> bytes:
        """Make the key of a remembered login: useless outside this process, invalid once the hash changes."""
        parts = (name.encode("utf-8", "surrogateescape"), hashed.encode(), password)
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, text, hashlib.sha256)

    def _decoy_hash(self, name: str, users: Mapping[str, str]) -> str:
        """Choose a real hash for an unknown name, always the same one, so that its check takes as long."""
        hashes = sorted(users.values())
        drawn = hmac.digest(self._secret, name.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return hashes[int.from_bytes(drawn[:8], "big") % len(hashes)]


def _login(given: list[str]) -> tuple[str, bytes] | None:
    """Decode user and password; ``None`` where the header has none."""
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


def _password_needed() -> Response:
    return PlainTextResponse("User and password are needed.\n", 401, _CHALLENGE)


def _retry_later(status: int, seconds: float, why: str) -> Response:
    wait = max(1, math.ceil(seconds))
    return PlainTextResponse(f"{why}; try again in {wait} s.\n", status, {"Retry-After": str(wait)})
