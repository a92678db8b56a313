"""What a session shows and who may change it: models shared by REST, websocket and data channel."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lhm_runtime.rasterizer import Framing
from streaming.config import RigName, Side
from streaming.relay.settings import RelayName
from streaming.sources import SourceName
from streaming.stage import DEFAULT_BACKGROUND, TRANSPARENT, background_rgb

Quality = Literal["auto", "low", "medium", "high"]
"""auto: as much as each viewer's path carries; the others are upper bounds."""

MAX_BPS: dict[Quality, int | None] = {"auto": None, "low": 400_000, "medium": 1_500_000, "high": None}
"""Bits a second at each quality; None: what the configuration allows."""

Background = Annotated[str, StringConstraints(pattern="^(transparent|[0-9a-fA-F]{6})$")]
"""Six hex digits, or ``transparent``: frames then come with their alpha stacked below."""


class Settings(BaseModel):
    """What can be changed while a session runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    framing: Framing = "full"
    background: Background = DEFAULT_BACKGROUND
    mirror: bool = False
    """Whether left and right are exchanged, as in a mirror."""
    yaw: float = Field(default=0.0, ge=-7, le=7, allow_inf_nan=False)
    """Where the camera stands, radians round the person; 0 sees the face."""
    pitch: float = Field(default=0.0, ge=-1.2, le=1.2, allow_inf_nan=False)
    """Radians; positive looks down."""
    quality: Quality = "auto"
    probe: bool = False
    """Whether frames carry the time code of time_code.py."""
    vmc: bool = False
    """Whether the driver's poses are sent on to VTuber software (vmc.send_host of the settings)."""
    audio: bool = False
    """Whether the driver's microphone is passed on to everybody who watches."""
    speed: float = Field(default=1.0, ge=0, le=8, allow_inf_nan=False)
    """Of a replay; 0 holds it."""
    loop: bool = True
    """Whether a replay begins again at its end."""

    @property
    def stacked(self) -> bool:
        """Whether viewers get alpha unless they ask otherwise."""
        return self.background == TRANSPARENT

    @property
    def rgb(self) -> tuple[float, float, float]:
        """The background's colour; for those who get no alpha where it is transparent, a light grey."""
        return background_rgb(self.background)


AvatarId = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class NewSession(Settings):
    """Body of ``POST /api/sessions``."""

    avatar: AvatarId
    source: SourceName = "idle"
    replay: str | None = None
    """Which of the replays; only with source ``replay``."""
    rig: RigName | None = None
    """Which rig of the settings' tenant; only with source ``mqtt``."""
    framing: Framing | None = None  # type: ignore[assignment]
    """None: as much as the avatar's photo showed, also after a change of avatar."""
    width: Side | None = None
    height: Side | None = None
    fps: int | None = Field(default=None, ge=1, le=60)
    share_avatar: bool = False
    """Whether viewers may have the avatar to draw it themselves; it is theirs then. Another avatar is not shared."""
    relay: RelayName | None = None
    """Which relay of the settings it goes to; None: none."""

    def first_settings(self, shown: Framing) -> Settings:
        """What is shown at first of an avatar whose sources showed so much."""
        asked = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings(**{**asked, "framing": self.framing or shown})


class SettingsChange(BaseModel):
    """A control message: only what is to change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    framing: Framing | None = None
    background: Background | None = None
    mirror: bool | None = None
    yaw: float | None = Field(default=None, ge=-7, le=7, allow_inf_nan=False)
    pitch: float | None = Field(default=None, ge=-1.2, le=1.2, allow_inf_nan=False)
    quality: Quality | None = None
    probe: bool | None = None
    vmc: bool | None = None
    audio: bool | None = None
    speed: float | None = Field(default=None, ge=0, le=8, allow_inf_nan=False)
    loop: bool | None = None
    seek_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Go on with the replay at so many seconds from its beginning."""
    calibrate: bool = False
    """Take the driver's face as it is, once it holds still for a second, for their neutral face."""

    def apply(self, settings: Settings) -> Settings:
        """``settings`` with the changes."""
        known = set(Settings.model_fields)
        return settings.model_copy(update=self.model_dump(exclude_none=True, include=known))


class SessionChange(SettingsChange):
    """Body of ``PATCH /api/sessions/{id}``: what is shown, who is shown and what moves them."""

    avatar: AvatarId | None = None
    source: SourceName | None = None
    replay: str | None = None
    rig: RigName | None = None
    share_avatar: bool | None = None
    """Whether viewers may have the avatar; needs the role ``admin``."""
    relay: RelayName | None = None
    """Another relay, or ``off``; needs the role ``admin``."""

    def recast(self, wish: NewSession) -> NewSession:
        """``wish`` with another avatar, source, replay or rig; what is left out stays."""
        named: SourceName | None = "replay" if self.replay is not None else "mqtt" if self.rig is not None else None
        source = self.source or named or wish.source
        replay = (self.replay or wish.replay) if source == "replay" else None
        rig = (self.rig or wish.rig) if source == "mqtt" else None
        avatar = self.avatar or wish.avatar
        share = wish.share_avatar if avatar == wish.avatar else bool(self.share_avatar)
        return wish.model_copy(
            update={"avatar": avatar, "source": source, "replay": replay, "rig": rig, "share_avatar": share}
        )


class SessionState(Settings):
    """What everybody in a session is told."""

    id: str
    avatar: str
    source: SourceName
    replay: str | None
    rig: str | None
    width: int
    height: int
    fps: float
    viewers: int
    replay_s: float | None
    """Length of the replay, seconds."""
    place_s: float | None
    """Where in it the avatar is."""
    heard_hz: float
    """Samples a second of whoever drives, of late."""
    recording: str | None
    """Id of what is being recorded on the server."""
    share_avatar: bool
    """Whether viewers may have the avatar."""
    relay: str | None
    """Which relay it goes to, whether or not that can be reached at the moment."""
