"""Whose page a request is for, and by which name it came: what a browser may be made to do for somebody else.

A browser sends what a page of any site asks for, with the passwords and certificates that it has. It says which site
that is. And a name of somebody else's may lead to this server (DNS rebinding): to the browser both are then one site.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import Request

_OUR_SITE = ("same-origin", "none")
"""What ``Sec-Fetch-Site`` says of a page of ours, and of what the user has typed."""
_NEVER_REBOUND = ("localhost",)
"""Browsers ask nobody where that is."""


def is_cross_site(request: Request) -> bool:
    """Whether a browser sends this for a page that is not ours.

    Browsers say so themselves: newer ones in ``Sec-Fetch-Site`` (where they trust the connection), all in ``Origin``.
    What is no browser sends neither. An origin has a scheme, too. Where a proxy does TLS, ours is not the browser's;
    then ``Sec-Fetch-Site``, which knows schemes, must vouch for it.

    Args:
        request: it.
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
    """Whether a request came by one of the names of this server.

    Addresses and ``localhost`` are always known: nobody can make a name of his lead to them. What is no browser may
    send no name at all (HTTP/1.0).

    Args:
        headers: the request's.
        allowed: names in lower case, without ports; none: all.
    """
    said = headers.get("host")
    if not allowed or not said:
        return True
    name = _host_name(said)
    if name in allowed or name in _NEVER_REBOUND:
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """The name in ``Host``, without port, brackets and the dot of a complete name."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")
