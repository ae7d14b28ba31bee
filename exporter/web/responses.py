"""Responses with an ETag, compressed where the client accepts that."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from exporter.web.content_negotiation import gzip_accepted

JSON_TYPE = "application/json"
HTML_TYPE = "text/html; charset=utf-8"
CACHE_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
_GZIP_LEVEL = 1


def compact_json(content: object) -> bytes:
    """Encode as JSON without spaces. All text must be encodable as UTF-8 (see ``RenderContext``)."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def cacheable_response(request: Request, body: bytes, media_type: str = JSON_TYPE) -> Response:
    """Make a response with a strong ETag of the body; 304 where the client has that body already."""
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    compress = gzip_accepted(request.headers)
    etag = f'"{tag}-gzip"' if compress else f'"{tag}"'
    headers = {**CACHE_HEADERS, "ETag": etag}
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if compress:
        body = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=media_type)


def _matches(conditions: Iterable[str], etag: str) -> bool:
    """Whether ``If-None-Match`` names this ETag; a proxy may have made it a weak one."""
    tags = {tag.strip().removeprefix("W/") for condition in conditions for tag in condition.split(",")}
    return etag in tags or "*" in tags
