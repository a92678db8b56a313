"""deploy/: what stands there fits the program, and the programs it is for; no image is built here."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiomqtt import Client, MqttError
from apart import ADDRESS, needs_own_network, run_apart
from broker import MOSQUITTO, free_tcp_port, needs_mosquitto
from certificates import write_certificate
from prometheus_client import REGISTRY
from turn_server import SECRET, TURNSERVER, needs_coturn
from typer.testing import CliRunner

from streaming import cli, metrics
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


def test_the_unit_starts_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unit = (DEPLOY / "lhm-live.service").read_text()
    assert re.search(r"^ExecStart=\S+/lhm-live serve --config ", unit, re.MULTILINE)
    assert "TimeoutStopSec=60" in unit
    for name, value in re.findall(r"(LHM_LIVE_\w+)=(\S+)", unit):
        monkeypatch.setenv(name, value.replace("%S", str(tmp_path)))
    assert load_config(None).server.drain_s < 60


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    here = shlex.quote(str(Path(sys.executable).with_name("python")))
    file = tmp_path / "lhm-live.service"
    file.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={here}", (DEPLOY / file.name).read_text(), flags=re.MULTILINE)
    )
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if file.name in line]
    assert (verified.returncode, complaints) == (0, [])


@pytest.mark.parametrize("secure", [False, True])
def test_the_image_is_healthy_while_the_server_answers(secure: bool, tmp_path: Path) -> None:
    check = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])\n", (DEPLOY / "Dockerfile").read_text(), re.DOTALL)
    assert check is not None
    python, *arguments = json.loads(check[1])
    assert python == "python"
    files = write_certificate(tmp_path) if secure else None
    environment = {**os.environ, **({"LHM_LIVE_SERVER__TLS_CERT": files["tls_cert"]} if files else {})}
    with answering(files) as port:
        arguments[1] = arguments[1].replace(":8080/", f":{port}/")
        told = [sys.executable, *arguments]
        assert subprocess.run(told, env=environment, check=False).returncode == 0
    assert subprocess.run(told, env=environment, stderr=subprocess.DEVNULL, check=False).returncode != 0


@contextmanager
def answering(files: dict[str, str] | None) -> Iterator[int]:
    """The port of a server that is well, by https where it has a certificate."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quietly."""

    with HTTPServer(("127.0.0.1", 0), Well) as server:
        if files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files["tls_cert"], files["tls_key"])
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_prometheus_asks_as_the_server_expects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (DEPLOY / "prometheus.yml").read_text()
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{load_config().server.port}"]}]
    assert job["scheme"] == "https"  # as compose.yaml has it
    command = re.search(r"lhm-live (token .*?) >", text)
    assert command is not None
    monkeypatch.setenv("LHM_LIVE_STORAGE__DATA", str(tmp_path))
    made = CliRunner().invoke(cli.app, shlex.split(command[1]))
    assert made.exit_code == 0, made.output
    assert re.fullmatch(r"\S+\n", made.stdout)  # the token, and nothing else


@needs_mosquitto
@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
def test_the_broker_knows_the_server_from_its_first_start(tmp_path: Path) -> None:
    target = (DEPLOY / "services.Dockerfile").read_text().partition(" AS broker\n")[2]
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", target, re.MULTILINE)
    assert entry is not None
    port = free_tcp_port()
    settings = (DEPLOY / "mosquitto.conf").read_text().replace("listener 1883", f"listener {port} 127.0.0.1")
    settings = f"{settings.replace('/data/', f'{tmp_path}/')}user root\n"  # tests of root: it stays who it is
    (tmp_path / "lhm-live.conf").write_text(settings)
    command = [part.replace("/data/", f"{tmp_path}/") for part in json.loads(entry[1])]
    command[-1] = command[-1].replace("/etc/mosquitto/", f"{tmp_path}/").replace("exec mosquitto", f"exec {MOSQUITTO}")

    async def main() -> None:
        with pytest.raises(MqttError):
            await knock("guessed")
        await knock(FILLED["MQTT_PASSWORD"])

    async def knock(password: str) -> None:
        async with Client("127.0.0.1", port, username="lhm-live", password=password, timeout=5):
            pass

    with started(command, port, {**os.environ, "MQTT_PASSWORD": FILLED["MQTT_PASSWORD"]}):
        asyncio.run(main())


@needs_coturn
@needs_own_network
@pytest.mark.skipif(shutil.which("turnutils_uclient") is None, reason="turnutils_uclient is not installed")
def test_the_turn_server_relays_to_the_server_and_not_to_its_neighbours(tmp_path: Path) -> None:
    given = services()["turn"]["command"]
    assert f"--static-auth-secret={FILLED['TURN_SECRET']}" in given
    port = free_tcp_port()
    own = [f"--static-auth-secret={SECRET}", f"--allowed-peer-ip={ADDRESS}", f"--listening-port={port}"]
    elsewhere = [f"--userdb={tmp_path / 'turndb'}", f"--pidfile={tmp_path / 'pid'}"]
    command = [str(TURNSERVER), "-c", str(DEPLOY / "turnserver.conf"), *own, *elsewhere]

    def relayed(peer: str, secret: str = SECRET) -> bool:
        asked = ["turnutils_uclient", "-u", "x", "-W", secret, "-e", peer, "-r", "3481", "-n", "1", "-m", "1"]
        told = subprocess.run(
            [*asked, "-p", str(port), ADDRESS], capture_output=True, text=True, timeout=20, check=False
        )
        return "tot_recv_bytes" in told.stdout

    async def main() -> None:
        with started(command, port), started(["turnutils_peer", "-L", ADDRESS, "-p", "3481"]):
            assert relayed(ADDRESS)
            assert not relayed("127.0.0.1")
            assert not relayed(ADDRESS, "guessed")

    run_apart(main())


@contextmanager
def started(command: list[str], port: int | None = None, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A program, once it listens."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment) as process:
        try:
            for _ in range(500):
                assert process.poll() is None, f"{command[0]} does not start"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port or 0), 0.2):
                    break
                if port is None:
                    break
                threading.Event().wait(0.02)
            else:
                raise AssertionError(f"{command[0]} does not listen")
            yield
        finally:
            process.terminate()
