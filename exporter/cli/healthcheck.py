"""Health check of the container: asks the exporter on this machine (``python -m exporter.cli.healthcheck``).

It uses the standard library only, because it starts twice a minute beside a simulation. It has no password and no
certificate: a refused login or handshake also shows that the exporter answers.
"""

from __future__ import annotations

import http.client
import ssl
import sys

_ADDRESS = "127.0.0.1:10813"
_PATIENCE_SECONDS = 2.0
_WANTS_A_LOGIN = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS)


def trouble(address: str) -> str | None:
    """Return why the exporter at ``host:port`` does not work; ``None`` if it works."""
    try:
        return _answer(http.client.HTTPConnection(address, timeout=_PATIENCE_SECONDS))
    except (http.client.HTTPException, OSError):
        pass  # perhaps it speaks TLS: then it answers 400 to plain HTTP
    # The certificate is not checked: the answer is shown to nobody, and no secret is sent.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return _answer(http.client.HTTPSConnection(address, timeout=_PATIENCE_SECONDS, context=context))
    except http.client.RemoteDisconnected:
        return None  # the handshake succeeded; it asks for a client certificate
    except ssl.SSLError as error:
        return None if "CERTIFICATE_REQUIRED" in str(error.reason) else f"{address}: {error}"
    except (http.client.HTTPException, OSError) as error:
        return f"{address}: {error}"


def _answer(connection: http.client.HTTPConnection) -> str | None:
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        said = answer.read(4096).decode("utf-8", "replace").strip()
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.BAD_REQUEST:
        raise http.client.HTTPException(said)
    return None if answer.status == http.HTTPStatus.OK or answer.status in _WANTS_A_LOGIN else f"{answer.status} {said}"


if __name__ == "__main__":
    sys.exit(trouble(*sys.argv[1:2] or [_ADDRESS]))
