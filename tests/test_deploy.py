"""deploy/: what stands there fits the program; nothing is built or started here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from streaming import metrics
from streaming.config import load_config

DEPLOY = Path(__file__).parents[1] / "deploy"
ROOT = DEPLOY.parent
FILLED = {
    "PUBLIC_NAME": "avatars.example.org",
    "SERVER_ADDRESS": "203.0.113.7",
    "TLS_FOLDER": "/etc/lhm-live/tls",
    "ACCESS_SECRET": "a" * 64,
    "TURN_SECRET": "b" * 64,
    "MQTT_PASSWORD": "c" * 32,
    "JANUS_SECRET": "d" * 64,
}


def services() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text()
    filled = re.sub(r"\$\{(\w+)[^}]*\}", lambda variable: FILLED[variable[1]], text)
    found = yaml.safe_load(filled)["services"]
    assert isinstance(found, dict)
    return found


def test_the_example_names_every_variable() -> None:
    named = re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(FILLED)
    assert set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text())) == set(FILLED)


def test_the_servers_variables_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in services()["server"]["environment"].items():
        monkeypatch.setenv(name, value)
    config = load_config(None, storage={"data": tmp_path})
    assert config.server.names == ("avatars.example.org",)
    assert config.access.secret is not None
    assert config.rtc.turn is not None
    assert config.rtc.turn.urls == ("turn:avatars.example.org:3478",)
    assert config.mqtt.password is not None
    assert config.relay["audience"].kind == "janus"
    assert config.server.drain_s < 60  # the time to stop


def test_every_service_is_built_from_a_file_here_and_may_do_little() -> None:
    for name, service in services().items():
        build = service["build"]
        file = (DEPLOY / build["context"] / build["dockerfile"]).read_text()
        if "target" in build:
            assert f" AS {build['target']}\n" in file
        copied = re.findall(r"^COPY (?!--from)(\S+) ", file, re.MULTILINE)
        assert all((DEPLOY / build["context"] / source).exists() for source in copied), name
        assert "image" not in service
        assert "no-new-privileges:true" in service["security_opt"]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    shown = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\b(?:lhm_live|process)_\w+", target["expr"])
    }
    ours = {family.name: family.type for family in REGISTRY.collect() if family.name.startswith("lhm_live_")}
    ours = {
        f"{name}{ {'counter': '_total', 'histogram': '_bucket'}.get(kind, '') }": kind for name, kind in ours.items()
    }
    assert metrics.SESSIONS  # they are in the registry because the module is imported
    assert shown - {"process_cpu_seconds_total", "process_resident_memory_bytes"} == set(ours)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_unit_starts_what_there_is() -> None:
    unit = (DEPLOY / "lhm-live.service").read_text()
    assert re.search(r"^ExecStart=\S+/lhm-live serve --config ", unit, re.MULTILINE)
    assert "TimeoutStopSec=60" in unit
