"""Who can drive a session: its page, its camera, recordings, rigs and programs on the network, and several at once."""

import asyncio
from typing import Final, Literal, assert_never, get_args

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import InvalidInputError
from streaming.config import Config, Merged, MergedPart
from streaming.follower import Follower
from streaming.settings import NewSession, Settings
from streaming.sources import Source
from streaming.sources.facemocap import FaceMocapSource
from streaming.sources.idle import IdleMotion
from streaming.sources.merged import Driver, MergedSource, Part
from streaming.sources.messages import MessageSource
from streaming.sources.mqtt import Broker, MqttSource
from streaming.sources.replay import ReplaySource, open_replay
from streaming.sources.vmc import VmcSource
from streaming.sources.webcam import WebcamSource
from streaming.udp import UdpPorts

NetworkInput = Literal["vmc", "facemocap", "mqtt"]

_FALL_BACK: Final[dict[Part, Part]] = {"head": "body", "hands": "body"}


class Drivers:
    """Everything that can drive one session, opened on demand."""

    def __init__(self, config: Config, ports: UdpPorts) -> None:
        """``ports`` are shared by sessions that listen to the same."""
        self.messages = MessageSource()
        """Where the samples of a data channel or websocket go."""
        self.webcam = WebcamSource(config.motion.tracker)
        """Where the driver's video track goes."""
        self._config, self._ports = config, ports

    def stays(self, source: Source | None) -> bool:
        """Whether ``source`` lasts as long as the session, so that who drives by it need not begin again."""
        return source in (self.messages, self.webcam)

    def takes_video(self, wish: NewSession) -> bool:
        """Whether a camera's video is of use."""
        merged = (choice.source for choice in assign_parts(self._config.merged)) if wish.source == "merged" else ()
        return wish.source == "webcam" or "webcam" in merged

    async def source(self, wish: NewSession, avatar: Avatar, fps: float, settings: Settings) -> Source | None:
        """Who drives ``avatar`` as ``wish`` says, not yet open; None: nobody.

        Raises:
            LhmLiveError: the motion cannot be read, or the settings say too little.
        """
        match wish.source:
            case "browser" | "socket":
                return self.messages
            case "webcam":
                return self.webcam
            case "replay":
                name, folder = wish.replay or "", self._config.storage.replays
                motion = await asyncio.to_thread(open_replay, name, folder, avatar.expression_names)
                return ReplaySource(motion, fps, speed=settings.speed, loop=settings.loop)
            case "vmc" | "facemocap" | "mqtt":
                return make_network_source(wish.source, wish.rig, self._config, self._ports)
            case "merged":
                return await self._merge(wish, avatar, fps, settings)
            case "idle":
                return None
            case other:
                assert_never(other)

    async def _merge(self, wish: NewSession, avatar: Avatar, fps: float, settings: Settings) -> MergedSource:
        drivers = {}
        for choice, parts in assign_parts(self._config.merged).items():
            source = await self.source(wish.model_copy(update=choice.model_dump()), avatar, fps, settings)
            if source is not None:
                name = " ".join([choice.source, choice.rig or choice.replay or ""])
                follower = Follower(avatar, self._config.motion)
                drivers[name] = Driver(parts, source, follower.follow, follower.calibrate)
        return MergedSource(drivers, IdleMotion(avatar.expression_names).pose, self._config.motion.silence_s)


def make_network_source(kind: NetworkInput, rig: str | None, config: Config, ports: UdpPorts) -> Source:
    """An input as the settings describe it, not yet open.

    Raises:
        InvalidInputError: MQTT without a rig.
    """
    match kind:
        case "vmc":
            return VmcSource(ports, config.vmc.host, config.vmc.port, config.vmc.senders)
        case "facemocap":
            phone = config.facemocap
            return FaceMocapSource(ports, phone.host, phone.port, phone.senders, phone.phone)
        case "mqtt":
            if rig is None:
                raise InvalidInputError("the source mqtt needs a rig: {source: mqtt, rig: ...}")
            mqtt = config.mqtt
            return MqttSource(make_broker(config), mqtt.tenant, rig, mqtt.jitter_ms.get(rig, 0.0) / 1e3)
        case other:
            assert_never(other)


def make_broker(config: Config) -> Broker:
    """The broker of the rigs."""
    mqtt = config.mqtt
    return Broker(
        mqtt.host,
        mqtt.port,
        mqtt.username,
        None if mqtt.password is None else mqtt.password.get_secret_value(),
        mqtt.tls,
        mqtt.ca_file,
        mqtt.cert_file,
        mqtt.key_file,
    )


def assign_parts(table: Merged) -> dict[MergedPart, tuple[Part, ...]]:
    """The parts of each driver of the source ``merged``.

    Raises:
        InvalidInputError: nobody drives anything.
    """
    drivers: dict[MergedPart, tuple[Part, ...]] = {}
    for part in get_args(Part):
        driver = getattr(table, part) or (getattr(table, _FALL_BACK[part]) if part in _FALL_BACK else None)
        if driver is not None:
            drivers[driver] = (*drivers.get(driver, ()), part)
    if not drivers:
        raise InvalidInputError("the source merged has nobody to merge: say who drives what in merged in the settings")
    return drivers
