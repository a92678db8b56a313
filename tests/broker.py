"""A real mosquitto on a free port of 127.0.0.1, and rigs that publish to it."""

import asyncio
import contextlib
import math
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiomqtt import Client, MqttError, Will

from lhm_runtime.motion.retargeting import BoneRotations
from streaming.protocol import BoneSample, encode_bones

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: apt-get install mosquitto")


class RunningBroker:
    """One mosquitto, which can be stopped and started again on its port."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.port = free_tcp_port()
        self._file = folder / f"mosquitto-{self.port}.conf"
        bind = f"listener {self.port} 127.0.0.1\nset_tcp_nodelay true\nlog_type error\n"
        self._file.write_text(bind + (settings or "allow_anonymous true\n"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", self._file], stderr=subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
                return
            assert self._process.poll() is None, f"mosquitto does not start: {self._file.read_text()}"
            time.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(5)
            self._process = None


@contextmanager
def run_broker(folder: Path, settings: str = "") -> Iterator[RunningBroker]:
    broker = RunningBroker(folder, settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def rig(port: int, name: str = "studio", meta: bytes = b'{"version": 1}', **login: Any) -> AsyncIterator[Client]:
    """A connected rig: it says what it is, and its will takes that back."""
    topic = f"lhm-live/default/{name}/meta"
    async with Client("127.0.0.1", port, will=Will(topic, b"", qos=1, retain=True), keepalive=5, **login) as client:
        await client.publish(topic, meta, qos=1, retain=True)
        yield client


def bones(sequence: int, turned: dict[str, tuple[float, float, float, float]] | None = None) -> bytes:
    """A sample of a rig that sends Unity's bones, quaternions xyzw, captured now."""
    turned = {"Hips": (0.0, 0.0, 0.0, 1.0), "LeftUpperArm": (0.0, 0.0, 0.0, 1.0), **(turned or {})}
    quat_wxyz = np.array([[w, x, y, z] for x, y, z, w in turned.values()], np.float32)
    rotations = BoneRotations(tuple(turned), quat_wxyz, time.time(), "unity", np.array([0, 0.95, 0], np.float32))
    return encode_bones(BoneSample(sequence, rotations))


async def publish(port: int, name: str, degrees: float, rate_hz: float = 60.0) -> None:
    """Hold the arms so many degrees below a T-pose, until cancelled; comes back when the broker does."""
    half = math.radians(degrees) / 2
    arms = {
        "LeftUpperArm": (0.0, 0.0, math.sin(half), math.cos(half)),
        "RightUpperArm": (0.0, 0.0, -math.sin(half), math.cos(half)),
    }
    sequence = 0
    myself = asyncio.current_task()
    assert myself is not None
    while not myself.cancelling():  # a client that cannot say goodbye raises MqttError in the place of the cancellation
        with contextlib.suppress(MqttError):
            async with rig(port, name, timeout=1.0) as client:  # aiomqtt waits for brokers that are gone
                while not myself.cancelling():  # Python 3.11 swallows one now and then (wait_for)
                    await client.publish(f"lhm-live/default/{name}/pose", bones(sequence, arms))
                    sequence += 1
                    await asyncio.sleep(1 / rate_hz)
        await asyncio.sleep(0.1)
