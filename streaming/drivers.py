"""Which inputs the settings describe: rigs and programs on the network, and who of them drives which part."""

from typing import Final, Literal, assert_never, get_args

from lhm_runtime.errors import InvalidInputError
from streaming.config import Config, Merged, MergedPart
from streaming.sources import Source
from streaming.sources.facemocap import FaceMocapSource
from streaming.sources.merged import Part
from streaming.sources.mqtt import Broker, MqttSource
from streaming.sources.vmc import VmcSource
from streaming.udp import UdpPorts

NetworkInput = Literal["vmc", "facemocap", "mqtt"]

_FALL_BACK: Final[dict[Part, Part]] = {"head": "body", "hands": "body"}


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
            broker = Broker(
                mqtt.host,
                mqtt.port,
                mqtt.username,
                None if mqtt.password is None else mqtt.password.get_secret_value(),
                mqtt.tls,
                mqtt.ca_file,
                mqtt.cert_file,
                mqtt.key_file,
            )
            return MqttSource(broker, mqtt.tenant, rig, mqtt.jitter_ms.get(rig, 0.0) / 1e3)
        case other:
            assert_never(other)


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
