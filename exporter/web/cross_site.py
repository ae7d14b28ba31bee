"""Detects requests that a browser sends for a page of another site (CSRF), or to a foreign name (DNS rebinding).

A browser sends what any page asks for, with the user's password and certificate, and says from which site the page is.
Where a name of another site resolves to this server, the browser takes both for one site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import Request

_OUR_SITE = ("same-origin", "none")
"""Values of ``Sec-Fetch-Site`` for a page of this server, and for a URL that the user has typed."""
_NEVER_REBOUND = ("localhost",)
"""Browsers resolve it themselves."""


def is_cross_site(request: Request) -> bool:
    """Whether a browser sends this request for a page of another site.

    Newer browsers say so in ``Sec-Fetch-Site`` (where they trust the connection), all in ``Origin``; other programs
    send neither. An origin has a scheme. Where a proxy ends TLS, this server's scheme differs from the browser's; then
    ``Sec-Fetch-Site``, which compares schemes, must say ``same-origin``.
    """
    ours = request.headers.get("host", "").casefold()
    sites = [site.casefold() for site in request.headers.getlist("sec-fetch-site")]
    if any(site not in _OUR_SITE for site in sites):
        return True
    for origin in request.headers.getlist("origin"):
        scheme, _, host = origin.partition("://")
        if not host or host.casefold() != ours:
            return True
        if scheme.casefold() != request.url.scheme and "same-origin" not in sites:
            return True
    return False


def is_known_host(headers: Headers, allowed: Collection[str]) -> bool:
    """Whether a request names this server in ``Host``.

    Addresses and ``localhost`` are always known, since DNS cannot make them lead elsewhere. Without ``Host`` (HTTP/1.0)
    the client is no browser.

    Args:
        headers: the request's.
        allowed: host names in lower case, without ports; empty: all.
    """
    host = headers.get("host")
    if not allowed or not host:
        return True
    name = _host_name(host)
    if name in allowed or name in _NEVER_REBOUND:
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """Return the name in ``Host`` in lower case, without port, brackets and final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")
