"""An exporter process that asks for TLS, passwords or certificates, and how Prometheus is told to scrape it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import yaml

from tests.support.process import ExporterProcess

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
TLS = {"cert_file": "server.crt", "key_file": "server.key"}


def write_web_config(folder: Path, content: dict[str, Any], name: str = "web.yaml") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def write_config(folder: Path, address: str = "127.0.0.1:0", further: str = "") -> Path:
    path = folder / "exporter.yaml"
    path.write_text(
        f"progress_tracking: {{enabled: false}}\nweb: {{listen_address: '{address}'}}\n{further}", encoding="utf-8"
    )
    return path


@contextmanager
def exporter(
    folder: Path, web_config: dict[str, Any], name: str = "web.yaml", further: str = ""
) -> Iterator[ExporterProcess]:
    """It runs with this web configuration; ``further`` are lines of its own configuration."""
    web_file = write_web_config(folder, web_config, name)
    arguments = ("run", "--config.file", write_config(folder, further=further), "--web.config.file", web_file)
    with ExporterProcess(*arguments) as running:
        assert running.address
        yield running


def job(name: str, target: ExporterProcess, **how: Any) -> dict[str, Any]:
    return {"job_name": name, "scheme": "https", "static_configs": [{"targets": [target.address]}], **how}
