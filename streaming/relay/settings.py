"""The relays that the settings name (``relay:``): servers that fan out to an audience; docs/relay.md."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from streaming.encoder import Codec

OFF: Final = "off"
"""In the place of a relay's name: none."""

RelayName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
"""What a relay is called in the settings."""


def _without_off(relays: dict[str, Any]) -> dict[str, Any]:
    if OFF in relays:
        raise ValueError("no relay can be called off: that is what a session says that wants none")
    return relays


class _Relay(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    codec: Codec = "h264"
    """What it is sent; nobody encodes again."""
    bps: int = Field(default=2_000_000, ge=100_000, le=50_000_000)
    """Bits a second for its audience, whose single reports do not count."""


class JanusRelay(_Relay):
    """A Janus server: streaming mountpoints, fed by RTP."""

    kind: Literal["janus"]
    url: str = Field(default="ws://127.0.0.1:8188", pattern="^wss?://")
    """Its websocket API; only this server needs to reach it."""
    secret: SecretStr | None = None
    """Janus' ``api_secret``."""
    admin_key: SecretStr | None = None
    """``admin_key`` of its streaming plugin."""
    media_host: str | None = None
    """Where RTP goes, unencrypted: a machine or network that is trusted; None: the host of ``url``."""
    max_viewers: int = Field(default=1000, ge=1)
    """Of one session, through this server."""


class WhipRelay(_Relay):
    """Any server that takes a stream by WHIP (RFC 9725)."""

    kind: Literal["whip"]
    url: str = Field(pattern="^https?://")
    """``{session}`` in it stands for the session's id."""
    token: SecretStr | None = None
    """A bearer token."""


Relay = JanusRelay | WhipRelay
Relays = Annotated[dict[RelayName, Annotated[Relay, Field(discriminator="kind")]], AfterValidator(_without_off)]
"""Relays by name."""
