"""MQTT against a real mosquitto: rigs, restarts, last wills, TLS."""

import asyncio
import ipaddress
import json
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiomqtt import Client, MqttError
from broker import MOSQUITTO, RunningBroker, bones, needs_mosquitto, publish, rig, run_broker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from live import live_server, run

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError
from lhm_runtime.motion.retargeting import BoneRotations
from streaming.sources import Sample
from streaming.sources.mqtt import Broker, MqttSource

pytestmark = [needs_mosquitto, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]

RIG = """
import sys, time
from paho.mqtt.client import CallbackAPIVersion, Client
from broker import bones
client = Client(CallbackAPIVersion.VERSION2)
client.will_set("lhm-live/default/studio/meta", b"", 1, True)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
client.publish("lhm-live/default/studio/meta", '{"version": 1, "skeleton": "unity", "rate_hz": 60}', 1, True)
while True:
    client.publish("lhm-live/default/studio/pose", bones(900))
    time.sleep(0.05)
"""
"""A rig of its own, to be killed; by paho alone."""
POSE = "lhm-live/default/{}/pose"


def listen(broker: RunningBroker, name: str = "studio", jitter_s: float = 0.0, **how: Any) -> MqttSource:
    return MqttSource(Broker("127.0.0.1", broker.port, **how), "default", name, jitter_s)


def start_rig(port: int) -> "subprocess.Popen[bytes]":
    paths = os.pathsep.join(str(path) for path in (Path(__file__).parents[1], Path(__file__).parents[2]))
    return subprocess.Popen([sys.executable, "-c", RIG, str(port)], env={**os.environ, "PYTHONPATH": paths})


async def until(condition: Any, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def collect(source: MqttSource, samples: list[tuple[float, Sample]]) -> None:
    async for sample in source:
        samples.append((time.monotonic(), sample))  # noqa: PERF401 - it is read until cancelled


def test_samples_arrive_binary_and_as_text(tmp_path: Path) -> None:
    text = json.dumps({"version": 1, "kind": "rotations"})

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with listen(broker) as source, rig(broker.port) as client:
                await client.publish(POSE.format("studio"), bones(1))
                sample = await asyncio.wait_for(anext(aiter(source)), 2.0)
                assert isinstance(sample.motion, BoneRotations)
                assert sample.motion.names == ("Hips", "LeftUpperArm")
                assert sample.captured_ms == pytest.approx(1e3 * time.time(), abs=2000)
                for rubbish in (b"", b"rubbish", text.encode()[:9], b"x" * 40_000):
                    await client.publish(POSE.format("studio"), rubbish)
                await client.publish(POSE.format("studio"), bones(0))  # overtaken
                await client.publish(POSE.format("studio"), bones(2))
                await asyncio.wait_for(anext(aiter(source)), 2.0)
                sender = source.sender
                assert (sender.last, sender.received, sender.used, sender.refused) == (2, 7, 2, 4)
                assert not source.lost

    run(main())


def test_ten_rigs_at_60_hz_lose_nothing(tmp_path: Path) -> None:
    names = [f"rig-{i}" for i in range(10)]
    seconds = 3

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with AsyncExitStack() as stack:
                sources = [await stack.enter_async_context(listen(broker, name)) for name in names]
                clients = [await stack.enter_async_context(rig(broker.port, name)) for name in names]
                start = time.monotonic()
                for sequence in range(60 * seconds):
                    for name, client in zip(names, clients, strict=True):
                        await client.publish(POSE.format(name), bones(sequence))
                    await asyncio.sleep(max(start + (sequence + 1) / 60 - time.monotonic(), 0))
                await until(lambda: all(source.sender.last == 60 * seconds - 1 for source in sources))
                assert [source.sender.used for source in sources] == [60 * seconds] * len(names)

    run(main())


def test_two_sources_share_a_rig_and_each_has_its_own(tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with (
                listen(broker) as one,
                listen(broker) as two,
                listen(broker, "other") as other,
                rig(broker.port) as client,
            ):
                await client.publish(POSE.format("studio"), bones(7))
                await until(lambda: one.sender.last == two.sender.last == 7)
                assert other.sender.received == 0

    run(main())


def test_the_last_will_says_that_the_rig_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker, start_rig(broker.port) as process:
            try:
                async with listen(broker) as source:
                    await until(lambda: source.sender.last == 900, 20.0)
                    assert (source.meta.skeleton, source.meta.rate_hz) == ("unity", 60.0)
                    process.kill()
                    await until(lambda: source.lost)
                    assert source.meta.skeleton is None
                    async with rig(broker.port) as client:  # which starts to count anew
                        await client.publish(POSE.format("studio"), bones(0))
                        await until(lambda: source.sender.last == 0 and not source.lost)
            finally:
                process.kill()

    run(main())


def test_who_comes_later_is_told_what_the_rig_is(tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with rig(broker.port, meta=b'{"version": 1, "skeleton": "vrm1"}') as client, listen(broker) as source:
                await until(lambda: source.meta.skeleton == "vrm1")
                for rubbish in (b"{", b'{"version": 2}'):
                    await client.publish("lhm-live/default/studio/meta", rubbish, qos=1, retain=True)
                await client.publish(POSE.format("studio"), bones(1))
                await until(lambda: source.sender.last == 1)
                assert source.meta.skeleton == "vrm1"

    run(main())


def test_a_neutral_pose_is_taken_off(tmp_path: Path) -> None:
    """A rig whose wearer's arms hang down when it says nothing."""
    turned = (0.0, 0.0, -(0.5**0.5), 0.5**0.5)
    neutral = {"LeftUpperArm": [0.5**0.5, 0.0, 0.0, -(0.5**0.5)]}
    meta = json.dumps({"version": 1, "skeleton": "unity", "neutral": neutral}).encode()

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with listen(broker) as source, rig(broker.port, meta=meta) as client:
                await until(lambda: source.meta.neutral is not None)
                await client.publish(POSE.format("studio"), bones(1, {"LeftUpperArm": turned}))
                sample = await asyncio.wait_for(anext(aiter(source)), 2.0)
                assert isinstance(sample.motion, BoneRotations)
                np.testing.assert_allclose(sample.motion.quat_wxyz, [[1, 0, 0, 0]] * 2, atol=1e-3)

    run(main())


def test_a_broker_that_restarts_is_found_again_within_two_seconds(tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with listen(broker) as source:
                sending = asyncio.create_task(publish(broker.port, "studio", 30))
                await until(lambda: source.sender.used > 20)
                for _ in range(2):
                    broker.stop()
                    await asyncio.sleep(0.8)
                    await asyncio.to_thread(broker.start)
                    back = time.monotonic()
                    used = source.sender.used
                    await until(lambda: source.sender.used > used + 5)  # noqa: B023
                    assert time.monotonic() - back < 2.0
                assert source.connections == 3
                sending.cancel()
                await asyncio.wait([sending])

    run(main())


def test_jitter_is_evened_out(tmp_path: Path) -> None:
    """Four samples at once every 80 ms come out every 20 ms."""

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            gaps = []
            for jitter_s in (0.0, 0.15):
                async with listen(broker, jitter_s=jitter_s) as source, rig(broker.port) as client:
                    samples: list[tuple[float, Sample]] = []
                    reading = asyncio.create_task(collect(source, samples))
                    start, pending = time.monotonic(), []
                    for sequence in range(100):
                        pending.append(bones(sequence))
                        if len(pending) == 4:
                            for message in pending:
                                await client.publish(POSE.format("studio"), message)
                            pending = []
                        await asyncio.sleep(max(start + sequence / 50 - time.monotonic(), 0))
                    await asyncio.sleep(0.4)
                    reading.cancel()
                    await asyncio.wait([reading])
                    gaps.append(np.diff([at for at, _ in samples]))
            uneven, even = gaps
            assert np.percentile(uneven, 90) > 0.06
            assert np.percentile(even, 90) < 0.035
            assert len(even) > 80

    run(main())


def test_a_goodbye_that_fails_ends_the_source_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = Client.__aexit__

    async def leave_badly(client: Client, *why: Any) -> None:
        await leave(client, *why)
        monkeypatch.undo()
        raise MqttError("the line is cut")

    async def main() -> None:
        monkeypatch.setattr(Client, "__aexit__", leave_badly)
        with run_broker(tmp_path) as broker:
            async with asyncio.timeout(5), listen(broker):
                pass

    run(main())


def test_a_broker_that_hangs_up_before_it_let_us_in_is_tried_again_at_once(tmp_path: Path) -> None:
    """As a starting one does, or what forwards its port."""
    hung_up = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        hung_up += 1
        writer.close()

    async def main() -> None:
        with run_broker(tmp_path) as broker:
            async with listen(broker) as source:
                broker.stop()
                async with await asyncio.start_server(hang_up, "127.0.0.1", broker.port):
                    await until(lambda: hung_up >= 3)
                    with pytest.raises(BackendError, match="cannot be used"):
                        async with asyncio.timeout(2.0), listen(broker):
                            pass
                await asyncio.to_thread(broker.start)
                await until(lambda: source.connections == 2)

    run(main())


def test_no_broker_is_said_at_once() -> None:
    async def main() -> None:
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:9 cannot be used.*mqtt in the settings"):
            async with MqttSource(Broker("127.0.0.1", 9), "default", "studio"):
                pass

    run(main())


def test_credentials(tmp_path: Path) -> None:
    assert MOSQUITTO is not None
    passwords = tmp_path / "passwords"
    subprocess.run(
        [Path(MOSQUITTO).parents[1] / "bin/mosquitto_passwd", "-b", "-c", passwords, "me", "secret"], check=True
    )
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)

    async def main() -> None:
        with run_broker(tmp_path, f"user root\npassword_file {passwords}\n") as broker:
            login = {"username": "me", "password": "secret"}
            async with listen(broker, **login) as source, rig(broker.port, **login) as client:
                await client.publish(POSE.format("studio"), bones(1))
                await until(lambda: source.sender.last == 1)
            for how in ({}, {**login, "password": "wrong"}):
                with pytest.raises(BackendError, match=r"[Nn]ot authori[sz]ed"):
                    async with listen(broker, **how):
                        pass

    run(main())


def test_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)

    async def main() -> None:
        settings = f"user root\nallow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n"
        with run_broker(tmp_path, settings) as broker:
            async with listen(broker, tls=True, ca_file=certificate) as source:
                assert source.connections == 1
            with pytest.raises(BackendError, match=r"certificate verify failed"):
                async with listen(broker, tls=True):
                    pass
            with pytest.raises(BackendError, match="cannot be used"):
                async with listen(broker):
                    pass
            with pytest.raises(BackendError, match="certificates for MQTT cannot be used"):
                async with listen(broker, tls=True, ca_file=tmp_path / "none.pem"):
                    pass

    run(main())


def test_a_rig_moves_the_picture_and_idle_motion_bridges_a_restart(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        with run_broker(tmp_path) as broker:
            settings = {"mqtt": {"port": broker.port}, "motion": {"silence_s": 0.3}}
            async with live_server(tmp_path, avatar, **settings) as server, AsyncExitStack() as stack:
                sessions = [await server.start_session(source="mqtt", rig="studio") for _ in range(2)]
                viewers = [await server.watch(session, stack) for session in sessions]
                sending = asyncio.create_task(publish(broker.port, "studio", 0))
                for viewer in viewers:
                    await viewer.see_until(lambda picture: spread(picture) > 0.75)
                broker.stop()
                await viewers[0].see_until(lambda picture: spread(picture) < 0.6)  # at ease, arms hanging
                await asyncio.to_thread(broker.start)
                await viewers[0].see_until(lambda picture: spread(picture) > 0.75)
                sending.cancel()
                await asyncio.wait([sending])
                state = (await server.http.get(f"/api/sessions/{sessions[0]}")).json()
                assert (state["source"], state["rig"]) == ("mqtt", "studio")
                refused = await server.http.post("/api/sessions", json={"avatar": "someone", "source": "mqtt"})
                assert refused.json()["error"]["code"] == "unknown_rig"
                refused = await server.http.patch(f"/api/sessions/{sessions[0]}", json={"rig": "no/such+rig"})
                assert refused.status_code == 422

    run(main())


def spread(picture: np.ndarray) -> float:
    """How far to the sides the person reaches, in halves of the width."""
    columns = (np.abs(picture - picture[2, 2]) > 30).any(axis=0).nonzero()[0]
    return float(np.abs(columns - picture.shape[1] / 2).max() / (picture.shape[1] / 2)) if columns.size else 0.0


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """One for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "broker.pem", folder / "broker.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
