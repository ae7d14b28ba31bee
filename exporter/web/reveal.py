"""``/api/v1/names``: the ids behind the pseudonyms of the shown beams, for the users who may see them.

Every answer is logged with its user, and counted. Browsers and proxies must not store it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exporter.beams.snapshot import BeamKey, StoreSnapshot
from exporter.metrics.metric_types import encodable
from exporter.privacy.identifiers import Identifiers
from exporter.web.authentication import USER
from exporter.web.cross_site import is_cross_site
from exporter.web.openapi import PREFIX
from exporter.web.responses import JSON_TYPE, compact_json

_LOG = structlog.get_logger(__name__)

OUTCOMES = ("shown", "refused")
_HEADERS = {"Cache-Control": "no-store"}


class IdReveal:
    """The route that reveals ids.

    Args:
        snapshot: makes a snapshot of all beams; called once per answer, in a worker thread.
        identifiers: turns ids into pseudonyms.
        users: who may see ids.
        redacted: whether everybody else sees pseudonyms; otherwise the route answers 404.
    """

    def __init__(
        self,
        snapshot: Callable[[], StoreSnapshot],
        identifiers: Identifiers,
        users: Collection[str] = (),
        *,
        redacted: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._identifiers = identifiers
        self._users = frozenset(users)
        self._redacted = redacted
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.route = Route(f"{PREFIX}/names", self._answer)

    @property
    def offered(self) -> bool:
        """Whether any user may see ids."""
        return self._redacted and bool(self._users)

    def counts(self) -> dict[str, int]:
        """Count the requests by outcome; nothing where ids are not pseudonymised."""
        with self._lock:
            return {outcome: self._counts[outcome] for outcome in OUTCOMES} if self._redacted else {}

    async def _answer(self, request: Request) -> Response:
        if not self.offered:
            why = "no user may see ids (privacy.resolve_for)" if self._redacted else "ids are not pseudonymised"
            return _json({"error": why}, 404)
        user = request.scope.get(USER)
        cross_site = is_cross_site(request)
        allowed = user in self._users and not cross_site
        with self._lock:
            self._counts["shown" if allowed else "refused"] += 1
        who = {"user": user, "address": request.client.host if request.client else None}
        if cross_site:
            _LOG.warning("ids behind pseudonyms refused: a page of another site asked", **who)
            return _json({"error": "a page of another site asked for this"}, 403)
        if not allowed:
            _LOG.warning("ids behind pseudonyms refused", **who)
            return _json({"error": "you may not see ids; privacy.resolve_for says who may"}, 403)
        if request.method == "HEAD":
            return _json({}, 200)
        ids = await run_in_threadpool(self._ids)
        _LOG.warning("ids behind pseudonyms shown", **who, beams=len(ids["beams"]))
        return _json(ids, 200)

    def _ids(self) -> dict[str, dict[str, str]]:
        snapshot = self._snapshot()
        keys: list[BeamKey] = [*(beam.key for beam in snapshot.beams), *(run.key for run in snapshot.ended)]
        return {
            "cases": {self._identifiers.case(key.case_id): encodable(key.case_id) for key in keys},
            "beams": {self._identifiers.beam(key.beam_id): encodable(key.beam_id) for key in keys},
        }


def _json(content: dict[str, Any], status: int) -> Response:
    return Response(compact_json(content), status, _HEADERS, JSON_TYPE)
