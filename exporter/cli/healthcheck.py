"""The command ``healthcheck``: asks the exporter on this machine whether it works. Containers call it twice a minute.

It imports little, because it starts beside a simulation. It has no password and no certificate: a refused login or
handshake also shows that the exporter answers.
"""

from __future__ import annotations

import http.client
import ssl

import click

from exporter.cli.errors import fail
from exporter.cli.flags import examples

_ADDRESS = "127.0.0.1:10813"
_PATIENCE_SECONDS = 2.0
_WANTS_A_LOGIN = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS)


@click.command(epilog=examples("mqi-exporter healthcheck", "mqi-exporter healthcheck gpu1:10813"))
@click.argument("address", default=_ADDRESS, metavar="[HOST:PORT]")
def healthcheck(address: str) -> None:
    """Ask a running exporter whether it works.

    Exit status 1 if it does not, or does not answer. HOST:PORT is 127.0.0.1:10813 if not given. No password is needed.
    """
    problem = trouble(address)
    if problem is not None:
        fail(problem)
    click.echo(f"{address}: works")


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
