"""Pushes dashboards to a Grafana over its HTTP API.

It uses ``GET /api/folders/{uid}``, ``POST /api/folders``, ``GET /api/dashboards/uid/{uid}`` and ``POST
/api/dashboards/db``, with the token of a service account that may edit dashboards (Grafana 9 or later).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import requests

from exporter.config.values import strip_login
from exporter.process.trusted_files import readable_by_others

_TIMEOUT_SECONDS = 10.0
_OWN_TO_GRAFANA = ("id", "version")
"""Keys that Grafana sets itself; they are ignored in comparisons."""

Json = dict[str, Any]
Change = Literal["created", "updated", "unchanged"]


class PushFailed(Exception):
    """A dashboard or folder could not be pushed. The message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result for one dashboard, or the expected result in a dry run."""

    title: str
    change: Change
    url: str


def read_dashboard(path: Path) -> Json:
    """Read a dashboard's JSON.

    Raises:
        PushFailed: the file cannot be read, or has no ``uid`` and ``title``.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PushFailed(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PushFailed(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) and data[key] for key in ("uid", "title")):
        raise PushFailed(f"{path}: not a dashboard: it needs a uid and a title")
    return data


def read_token(path: Path) -> str:
    """Read the token from a file.

    Raises:
        PushFailed: the file cannot be read, others can read it, or it holds no token.
    """
    try:
        if (exposed := readable_by_others(path, path.stat())) is not None:
            raise PushFailed(exposed)
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PushFailed(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PushFailed(f"{path}: not a text") from error
    if not token or not token.isascii() or len(token.split()) != 1:
        raise PushFailed(f"{path}: must hold one token and nothing else")
    return token


class Grafana:
    """Client of one Grafana.

    Args:
        url: its address, with the path that it is served under.
        token: token of a service account; ``None`` if none is needed.
        ca_file: certificates to trust instead of the system's.

    Raises:
        PushFailed: ``url`` is not an address.
    """

    def __init__(self, url: str, *, token: str | None = None, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = strip_login(url)
            raise PushFailed(f"{shown}: not an address of a Grafana; write http://HOST:3000 or https://HOST")
        if parts.username or parts.password:
            raise PushFailed("put no password into the address of Grafana; use --grafana.token-file")
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json"
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        if ca_file is not None:
            self._session.verify = str(ca_file)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def push(self, dashboards: Iterable[Mapping[str, Any]], *, folder: str | None, dry_run: bool) -> Iterator[Pushed]:
        """Push dashboards into a folder; unchanged ones are skipped.

        Args:
            dashboards: with ``uid`` and ``title``.
            folder: title of the folder, created if missing; ``None`` is Grafana's top folder.
            dry_run: change nothing.

        Yields:
            The result for each.

        Raises:
            PushFailed: at the first failure; earlier dashboards are pushed.
        """
        folder_uid = self._folder(folder, dry_run=dry_run) if folder is not None else ""
        for dashboard in dashboards:
            yield self._put(dashboard, folder_uid, dry_run=dry_run)

    def _put(self, dashboard: Mapping[str, Any], folder_uid: str, *, dry_run: bool) -> Pushed:
        title, uid = dashboard["title"], dashboard["uid"]
        what = f"dashboard {title!r}"
        there = self._ask("GET", f"/api/dashboards/uid/{quote(uid, safe='')}", what, missing_is_fine=True)
        change: Change = "created"
        url = f"{self.url}/d/{quote(uid, safe='')}"
        if there is not None:
            meta = there.get("meta") or {}
            same = _content(there.get("dashboard") or {}) == _content(dashboard)
            change = "unchanged" if same and (meta.get("folderUid") or "") == folder_uid else "updated"
            if change == "updated" and meta.get("provisioned"):
                raise PushFailed(
                    f"{what}: this Grafana loads it from a file (provisioning); change that file, or remove it there"
                )
        if change != "unchanged" and not dry_run:
            body = {
                "dashboard": {**dashboard, "id": None},
                "folderUid": folder_uid,
                "overwrite": True,
                "message": "mqi-exporter dashboards push",
            }
            self._ask("POST", "/api/dashboards/db", what, body)
        return Pushed(title, change, url)

    def _folder(self, title: str, *, dry_run: bool) -> str:
        """Return the uid of a folder; create the folder if it is missing."""
        uid = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title.lower())[:40]
        what = f"folder {title!r}"
        if self._ask("GET", f"/api/folders/{uid}", what, missing_is_fine=True) is None and not dry_run:
            self._ask("POST", "/api/folders", what, {"uid": uid, "title": title})
        return uid

    def _ask(
        self, method: str, path: str, what: str, body: Json | None = None, *, missing_is_fine: bool = False
    ) -> Json | None:
        try:
            answer = self._session.request(
                method, f"{self.url}{path}", json=body, timeout=_TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.exceptions.SSLError as error:
            why = _cause(error)
            raise PushFailed(
                f"{self.url}: its certificate is not trusted ({why}); name your authority's with --grafana.ca-file"
            ) from error
        except requests.exceptions.Timeout as error:
            raise PushFailed(f"{self.url}: no answer within {_TIMEOUT_SECONDS:g} s") from error
        except requests.exceptions.ProxyError as error:
            raise PushFailed(
                f"{self.url}: the proxy does not answer ({_cause(error)}); check HTTP_PROXY and HTTPS_PROXY, or name "
                "this host in NO_PROXY"
            ) from error
        except requests.exceptions.ConnectionError as error:
            raise PushFailed(
                f"{self.url}: nothing answers there ({_cause(error)}); check host and port, and whether Grafana runs"
            ) from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise PushFailed(f"{self.url}: cannot be reached: {_cause(error)}") from error
        if answer.status_code == 404 and missing_is_fine and _said(answer) is not None:
            return None
        if answer.status_code != 200:
            raise PushFailed(f"{what}: {_why(answer, self.url)}")
        data = _said(answer)
        if data is None:
            raise PushFailed(f"{self.url}: does not answer as a Grafana does; is the address right, its path included?")
        return data


def _cause(error: BaseException) -> str:
    """Return why a request failed, in the system's words, without the wrappers of libraries."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__


def _content(dashboard: Mapping[str, Any]) -> Json:
    return {key: value for key, value in dashboard.items() if key not in _OWN_TO_GRAFANA}


def _said(answer: requests.Response) -> Json | None:
    """Return the JSON object of an answer; ``None`` if it is something else."""
    try:
        data = answer.json()
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _why(answer: requests.Response, url: str) -> str:
    said = (_said(answer) or {}).get("message") or answer.reason
    match answer.status_code:
        case 401:
            return f"Grafana does not accept the token ({said}); give a service account's with --grafana.token-file"
        case 403:
            return f"the token may not do this ({said}); its service account needs the role Editor"
        case 404:
            return f"Grafana does not know this ({said}); is {url} its address, with the path it is served under?"
        case 412:
            return f"Grafana refuses to replace it ({said})"
        case code if 300 <= code < 400:
            return f"{url} points elsewhere ({answer.headers.get('Location', said)}); give that address"
        case code:
            return f"Grafana answers {code} ({said})"
