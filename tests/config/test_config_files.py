"""Example files for the programs beside the exporter: they parse, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def compose() -> Any:
    return read(CONFIG / "compose.yaml")


def test_the_files_that_containers_mount_are_there() -> None:
    mounts = [
        volume.split(":")[0]
        for service in compose()["services"].values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]
    assert len(mounts) > 5
    assert [mount for mount in mounts if not (CONFIG / mount).is_file()] == []


def test_containers_mount_nothing_that_they_may_write() -> None:
    for service in compose()["services"].values():
        assert all(volume.endswith(":ro") for volume in service.get("volumes", ()) if volume.startswith("."))


def test_ports_are_published_on_loopback_only_and_images_are_pinned() -> None:
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_what_compose_says_to_prometheus_and_grafana_is_what_the_examples_say_but_for_addresses() -> None:
    inline = {name: yaml.safe_load(each["content"]) for name, each in compose()["configs"].items()}
    prometheus = read(CONFIG / "prometheus.yml")
    assert inline["prometheus"]["rule_files"] == prometheus["rule_files"]
    names = [[job["job_name"] for job in each["scrape_configs"]] for each in (inline["prometheus"], prometheus)]
    assert names[0] == names[1]
    datasource = read(CONFIG / "grafana" / "datasources" / "prometheus.yaml")
    assert inline["datasource"]["datasources"][0].keys() == datasource["datasources"][0].keys()


def test_grafana_looks_where_compose_puts_the_dashboards() -> None:
    [provider] = read(CONFIG / "grafana" / "dashboards" / "mqi.yaml")["providers"]
    volumes = [volume.split(":") for volume in compose()["services"]["grafana"]["volumes"]]
    mounted = {Path(source).name: target for source, target, _ in volumes if source.endswith(".json")}
    assert set(mounted) == {path.name for path in (ROOT / "dashboards").glob("*.json")}
    assert all(Path(target).parent == Path(provider["options"]["path"]) for target in mounted.values())


@pytest.mark.parametrize("name", ["exporter", "dashboards", "alerts", "docs/runbooks"])
def test_the_image_is_built_from_all_that_the_package_needs(name: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"COPY {name} {name}\n" in dockerfile
    assert (ROOT / name).is_dir()


def test_the_unit_gives_its_user_what_sqlite_needs_and_takes_the_rest() -> None:
    lines = (CONFIG / "mqi-exporter.service").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert "#IPAddressDeny=any" in lines
    assert settings["User"] != "root"
    assert settings["ReadWritePaths"].count("/opt/mqi") == 1
    expected = {
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "LimitCORE": "0",
        "StateDirectoryMode": "0700",
        "UMask": "0007",
        "ProtectHome": "yes",
        "PrivateUsers": "yes",
    }
    assert {key: settings[key] for key in expected} == expected
