"""Real Prometheus and Alertmanager on loopback, with a site's own files."""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from tests.support.process import PATIENCE_SECONDS, wait_for
from tests.support.sshd import free_port


def _program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise AssertionError(f"{names[0]} is not installed: run make tools")


class Server(ABC):
    """A server with a log of its own, that is ready when the ``with`` block begins and ended after it."""

    name: str

    def __init__(self, folder: Path, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Its command line."""

    @property
    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def __enter__(self) -> Server:
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(self._ready, f"{self.name} ready", 3 * PATIENCE_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} has ended:\n{self.log}"
        try:
            return httpx.get(f"http://{self.address}/-/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Prometheus(Server):
    """Prometheus with the configuration in ``folder/prometheus.yml``."""

    name = "prometheus"

    def command(self) -> list[str]:
        return [
            _program("prometheus"),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.address}",
            # It would wait a minute before it tells Alertmanager again of what has not changed.
            "--rules.alert.resend-delay=2s",
        ]

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """What an instant query returns: labels and value of each series."""
        parameters = {"query": expression} | ({} if at is None else {"time": str(at)})
        result = self._data("query", parameters)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def query_range(self, expression: str, seconds: float, step: float) -> list[dict[str, Any]]:
        """The series that a range query returns."""
        now = time.time()
        parameters = {"query": expression, "start": str(now - seconds), "end": str(now), "step": str(step)}
        result: list[dict[str, Any]] = self._data("query_range", parameters)["result"]
        return result

    def alerts(self, state: str = "firing") -> set[tuple[str, str, str]]:
        """Name, beam and source of the alerts in a state; ``""`` where there is none."""
        return {
            (its["alertname"], its.get("beam_id", ""), its.get("source", ""))
            for its in (each["labels"] for each in self._data("alerts", {})["alerts"] if each["state"] == state)
        }

    def rule_groups(self) -> list[dict[str, Any]]:
        """The groups of rules and how their last evaluation went."""
        found: list[dict[str, Any]] = self._data("rules", {})["groups"]
        return found

    def label_values(self, label: str, match: str) -> list[str]:
        """The values of a label of the series that match."""
        answer = httpx.get(
            f"http://{self.address}/api/v1/label/{label}/values", params={"match[]": match}, timeout=PATIENCE_SECONDS
        )
        values: list[str] = answer.raise_for_status().json()["data"]
        return values

    def _data(self, what: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        answer = (
            httpx.post(f"http://{self.address}/api/v1/{what}", data=dict(parameters), timeout=PATIENCE_SECONDS)
            if parameters
            else httpx.get(f"http://{self.address}/api/v1/{what}", timeout=PATIENCE_SECONDS)
        )
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        data: dict[str, Any] = answer.json()["data"]
        return data


class Alertmanager(Server):
    """Alertmanager with the configuration in ``folder/alertmanager.yml``."""

    name = "alertmanager"

    def command(self) -> list[str]:
        return [
            _program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'alertmanager-data'}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        ]


def edit_yaml(source: Path, target: Path, edit: Callable[[Any], None]) -> None:
    """A YAML file with some of its values changed."""
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    edit(data)
    target.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
