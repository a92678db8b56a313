"""Where programs on the network have to send to be heard, for a page that tells people so; and which rigs there are."""

from typing import get_args

from pydantic import BaseModel

from streaming.config import Config, FaceMocap, MergedPart, Vmc
from streaming.drivers import assign_parts, make_broker
from streaming.sources.merged import Part
from streaming.sources.mqtt import find_rigs


class Listening(BaseModel):
    """A UDP port that is listened to once a session wants it."""

    host: str
    port: int
    senders: list[str]
    """Who is listened to: addresses and networks."""


class Inputs(BaseModel):
    """The ways in."""

    vmc: Listening
    vmc_to: str
    """Where sessions with ``vmc`` on send, as host:port."""
    facemocap: Listening
    phone: str | None
    """The phone that is asked to send, if it is."""
    broker: str
    """Of the rigs, as host:port."""
    tenant: str
    merged: dict[Part, MergedPart]
    """Who drives which part with source ``merged``; empty: the settings say nothing."""


def describe_inputs(config: Config) -> Inputs:
    """What the settings say of them, without secrets."""
    table, phone = config.merged, config.facemocap
    merged = assign_parts(table) if any(getattr(table, part) for part in get_args(Part)) else {}
    return Inputs(
        vmc=_listening(config.vmc),
        vmc_to=f"{config.vmc.send_host}:{config.vmc.send_port}",
        facemocap=_listening(phone),
        phone=phone.phone,
        broker=f"{config.mqtt.host}:{config.mqtt.port}",
        tenant=config.mqtt.tenant,
        merged={part: driver for driver, parts in merged.items() for part in parts},
    )


async def list_rigs(config: Config) -> list[str]:
    """Rigs that have said what they are, by name; takes a third of a second.

    Raises:
        BackendError: the broker cannot be used.
    """
    return await find_rigs(make_broker(config), config.mqtt.tenant)


def _listening(settings: Vmc | FaceMocap) -> Listening:
    return Listening(host=settings.host, port=settings.port, senders=[str(network) for network in settings.senders])
