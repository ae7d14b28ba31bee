"""``/api/v1/names``: the ids behind the pseudonyms on the store, for those few users who may see them.

Every answer is logged with who asked, and counted. None may be kept, by a browser or a proxy.
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
from exporter.web.api import PREFIX, compact
from exporter.web.authentication import USER
from exporter.web.cross_site import is_cross_site

_LOG = structlog.get_logger(__name__)

OUTCOMES = ("shown", "refused")
_HEADERS = {"Cache-Control": "no-store"}


class IdReveal:
    """The ids behind pseudonyms.

    Args:
        snapshot: takes a snapshot of the store; called once per answer, in a worker thread.
        identifiers: how ids are shown to everybody.
        users: who may have them shown.
        redacted: whether ids are redacted from everybody else; else there is nothing to show here.
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
        """Whether there is anybody who may have them shown."""
        return self._redacted and bool(self._users)

    def counts(self) -> dict[str, int]:
        """How often they were asked for, by outcome; nothing where ids are shown as they are anyway."""
        with self._lock:
            return {outcome: self._counts[outcome] for outcome in OUTCOMES} if self._redacted else {}

    async def _answer(self, request: Request) -> Response:
        if not self.offered:
            why = "nobody may see ids here: privacy.resolve_for" if self._redacted else "ids are shown as they are"
            return _json({"error": why}, 404)
        user = request.scope.get(USER)
        elsewhere = is_cross_site(request)
        allowed = user in self._users and not elsewhere
        with self._lock:
            self._counts["shown" if allowed else "refused"] += 1
        who = {"user": user, "address": request.client.host if request.client else None}
        if elsewhere:
            _LOG.warning("ids behind pseudonyms refused: a page of another site asked", **who)
            return _json({"error": "a page of another site asked for this"}, 403)
        if not allowed:
            _LOG.warning("ids behind pseudonyms refused", **who)
            return _json({"error": "you may not see ids; privacy.resolve_for says who may"}, 403)
        if request.method == "HEAD":
            return _json({}, 200)
        names = await run_in_threadpool(self._names)
        _LOG.warning("ids behind pseudonyms shown", **who, beams=len(names["beams"]))
        return _json(names, 200)

    def _names(self) -> dict[str, dict[str, str]]:
        snapshot = self._snapshot()
        keys: list[BeamKey] = [*(beam.key for beam in snapshot.beams), *(run.key for run in snapshot.ended)]
        shown = self._identifiers
        return {
            "cases": {shown.case(key.case_id): encodable(key.case_id) for key in keys},
            "beams": {shown.beam(key.beam_id): encodable(key.beam_id) for key in keys},
        }


def _json(content: dict[str, Any], status: int) -> Response:
    return Response(compact(content), status, _HEADERS, "application/json")
