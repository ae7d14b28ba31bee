"""Whether an answer may be compressed: ``Accept-Encoding``, as RFC 9110 (12.5.3) has it.

The client library's own reading of it hears ``gzip;q=0``, which is a no, as a yes.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_GZIP = ("gzip", "x-gzip")
_NEVER = re.compile(r"[ \t]*q=0(?:\.0{0,3})?[ \t]*", re.IGNORECASE)


def gzip_accepted(headers: Headers) -> bool:
    """Whether the client takes gzip: it says so, or ``*``, and not with a weight of 0.

    A weight that is none refuses nothing. What is said of gzip by name counts more than ``*``, and yes more than no.
    """
    by_name, by_star = list[bool](), list[bool]()
    for element in ",".join(headers.getlist("accept-encoding")).split(","):
        coding, *parameters = element.split(";")
        name = coding.strip(" \t").lower()
        if name in _GZIP or name == "*":
            accepted = not any(_NEVER.fullmatch(each) for each in parameters)
            (by_star if name == "*" else by_name).append(accepted)
    return any(by_name or by_star)
