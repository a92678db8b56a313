"""The server's settings: defaults here, then a YAML file, then environment variables; an unknown key is an error.

``LHM_LIVE_VIDEO__FPS=60`` overrides ``video: {fps: ...}`` of the file. Only this module reads either; everything else
is handed plain values.
"""

import os
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from lhm_runtime.errors import InvalidInputError
from lhm_runtime.models import MODELS_VARIABLE
from lhm_runtime.motion.tracker import Mode
from streaming.config_fields import HostName, IceUrls, LocalPath, Origin
from streaming.config_file import describe_faults, read_settings_file
from streaming.encoder import CEILING_BPS, Codec, Preset
from streaming.lowlatency import Loopback
from streaming.relay.settings import Relays
from streaming.vmc_output import Faces

PREFIX: Final = "LHM_LIVE_"
_DELIMITER: Final = "__"

MAX_SIDE: Final = 2048
"""Longest side of a live picture, pixels."""


def _data_folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "lhm-live"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _even(side: int) -> int:
    if side % 2:
        raise ValueError(f"{side} is odd; video needs even sides")
    return side


Side = Annotated[int, Field(ge=64, le=MAX_SIDE), AfterValidator(_even)]
"""Width or height of a live picture, pixels."""


class Server(_Section):
    """Where the server listens, and how much it takes on."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; 0.0.0.0 lets the whole network in, with tokens: see Access."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0: any free one."""
    names: tuple[HostName, ...] = ()
    """What else the server is called in links, as avatars.example.org; pages that reach it by another name are refused
    (DNS rebinding). IP addresses, localhost, this machine's name and those in the certificate are known."""
    tls_cert: LocalPath | None = None
    """Certificate and its chain (.pem): the server then speaks https."""
    tls_key: LocalPath | None = None
    """The certificate's key (.pem), without a passphrase."""
    max_sessions: int = Field(default=8, ge=1)
    max_viewers: int = Field(default=64, ge=1)
    """Peer connections of all sessions together."""
    max_pose_viewers: int = Field(default=1000, ge=0)
    """Viewers of all sessions together that draw a shared avatar themselves."""
    linger_s: float = Field(default=120.0, gt=0)
    """A session that nobody is connected to ends after this long."""
    drain_s: float = Field(default=0.0, ge=0, le=86_400)
    """On SIGTERM so long sessions may go on until their viewers leave, while none begins."""
    max_photo_mb: int = Field(default=32, ge=1, le=512)
    origins: tuple[Origin, ...] = ()
    """Pages of other origins that may use the server, as https://example.org; its own always may."""


class Access(_Section):
    """Who may do what; docs/security.md."""

    required: Literal["auto", "always", "never"] = "auto"
    """Whether tokens are asked for; auto: as soon as the server listens on more than this machine."""
    secret: SecretStr | None = None
    """Signs the tokens, 32 characters or more; None: what ``lhm-live token`` keeps in a file."""
    secret_file: LocalPath | None = None
    """That file; None: access.key beside the avatars (storage.data)."""
    minutes: int = Field(default=720, ge=1, le=43_200)
    """Tokens and viewer links last this long."""
    open_to_everybody_on: str | None = None
    """With ``required: never`` the address of server.host again, if it is not this machine's alone: so that nobody lets
    the network in by mistake."""
    starts_per_minute: int = Field(default=20, ge=1)
    """Sessions that one address may start, where the network gets in; likewise the others."""
    uploads_per_minute: int = Field(default=10, ge=1)
    offers_per_minute: int = Field(default=60, ge=1)
    """Connections."""
    failures_per_minute: int = Field(default=20, ge=1)
    """Tokens that are none."""

    @model_validator(mode="after")
    def _has_one_secret(self) -> "Access":
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("secret and secret_file exclude each other")
        return self


class Video(_Section):
    """The picture, where a session does not ask for another."""

    width: Side = 720
    height: Side = 960
    fps: int = Field(default=30, ge=1, le=60)
    codecs: tuple[Codec, ...] = Field(default=("h264", "vp8"), min_length=1)
    """In order of preference; a viewer gets the first that it decodes."""
    max_bps: int = Field(default=CEILING_BPS, ge=1_000_000, le=50_000_000)
    """Most bits a second that one viewer is sent."""
    preset: Preset = "superfast"
    """x264's."""
    hardware: bool = True
    """Use the graphics card's encoder where it opens."""


class IceServer(_Section):
    """A STUN or TURN server."""

    urls: IceUrls
    username: str | None = None
    credential: SecretStr | None = None


class Turn(_Section):
    """A TURN server that gives access by the hour, as coturn does with ``use-auth-secret``."""

    urls: IceUrls
    secret: SecretStr
    """coturn's ``static-auth-secret``."""
    minutes: int = Field(default=60, ge=1, le=1440)
    """Credentials last this long; each connection gets fresh ones."""


class Rtc(_Section):
    """How peers find each other."""

    ice_servers: tuple[IceServer, ...] = ()
    """None are needed on one machine or network."""
    turn: Turn | None = None
    connect_timeout_s: float = Field(default=15.0, gt=0)
    loopback: Loopback = "alone"
    """When 127.0.0.1 is offered to peers: where there is no other address, or always, never, or only that."""


class Motion(_Section):
    """How what drives becomes poses."""

    tracker: Mode = "live"
    person_height_m: float | None = Field(default=None, gt=0.3, lt=3)
    """Of whoever drives; the avatar's where not given."""
    fov_y_deg: float | None = Field(default=None, gt=0, lt=170)
    """Vertical field of view of the camera; a common webcam's where not given."""
    silence_s: float = Field(default=0.6, gt=0)
    """After this long without a sample the avatar goes over to idle motion."""
    lock_feet: bool = False


Senders = tuple[IPvAnyNetwork, ...]
"""Addresses, or networks as 192.168.1.0/24."""

_THIS_MACHINE: Final[Senders] = (IPv4Network("127.0.0.0/8"),)


class Vmc(_Section):
    """VTuber software on the other side of UDP, which asks nobody for a password."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for senders on other machines."""
    port: int = Field(default=39539, ge=1, le=65535)
    senders: Senders = _THIS_MACHINE
    """Who is listened to."""
    send_host: str = "127.0.0.1"
    """Where sessions with ``vmc`` on send their poses."""
    send_port: int = Field(default=39540, ge=1, le=65535)
    faces: Faces = "arkit"
    """What is sent of faces: ARKit's 52 shapes, or VRM's own expressions."""


class FaceMocap(_Section):
    """A phone with iFacialMocap on the other side of UDP."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for phones, which are other machines."""
    port: int = Field(default=49983, ge=1, le=65535)
    senders: Senders = _THIS_MACHINE
    """Who is listened to."""
    phone: str | None = None
    """Address of a phone that waits to be asked; None: the app has our address."""


RigName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
"""A tenant or a rig, as part of a topic."""


class Mqtt(_Section):
    """The broker of motion capture rigs."""

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    tenant: RigName = "default"
    """Topics are lhm-live/{tenant}/{rig}/pose and .../meta."""
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: LocalPath | None = None
    """Who vouches for the broker; None: whom the system trusts."""
    cert_file: LocalPath | None = None
    """Our certificate, where the broker asks for one."""
    key_file: LocalPath | None = None
    jitter_ms: dict[RigName, Annotated[float, Field(ge=0, le=1000)]] = {}
    """Of rigs behind an uneven network: so long samples are held back to come evenly; others are shown at once."""


class MergedPart(_Section):
    """Who drives a part of the avatar."""

    source: Literal["vmc", "facemocap", "mqtt", "browser", "webcam", "replay"]
    rig: RigName | None = None
    replay: str | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "MergedPart":
        for source, name in (("mqtt", "rig"), ("replay", "replay")):
            if (self.source == source) != (getattr(self, name) is not None):
                raise ValueError(f"{name} goes with source {source}, and only with it")
        return self


class Merged(_Section):
    """The source ``merged``: each part by another; what nobody drives is at rest."""

    body: MergedPart | None = None
    head: MergedPart | None = None
    """Neck and head; None: whoever drives the body."""
    face: MergedPart | None = None
    hands: MergedPart | None = None
    """Fingers; None: whoever drives the body."""


class Storage(_Section):
    """Where things are kept."""

    data: LocalPath = Field(default_factory=_data_folder)
    """Avatars made of uploaded photos, and recordings."""
    replays: LocalPath | None = None
    """Folder of motions (.npz, .bvh, LHM folders) that pages may play."""
    keep_photos: bool = False
    """Whether uploaded photos stay beside their avatars; else they are deleted once the avatar is made."""
    recordings_mb: int = Field(default=2000, ge=1)
    """All recordings together; one that would take more ends."""
    recording_minutes: float = Field(default=60.0, gt=0)
    """A recording ends after this long."""


class Cluster(_Section):
    """Sessions on many machines (docs/cluster.md); used with ``lhm-live serve --cluster`` alone."""

    cpus: float = Field(default=1.0, gt=0)
    """Cores that Ray sets aside for a session."""
    memory_mb: int = Field(default=512, ge=0)
    """Likewise."""
    gpus: float = Field(default=0.0, ge=0)
    """Likewise; a part of one, as 0.25, is shared."""
    spares: int = Field(default=1, ge=0)
    """So many sessions more can begin at once on each node; others wait for a process to start."""
    storage: str | None = None
    """Where sessions and avatars are kept for all machines: anything that fsspec opens, as s3://bucket/prefix; None:
    storage.data, which is then a folder that all of them see."""
    silence_s: float = Field(default=2.0, ge=0.5)
    """A session whose process says nothing for so long begins again elsewhere."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    """A process that has not started by then is given up."""


class Log(_Section):
    """What is written to standard error."""

    style: Literal["auto", "pretty", "json"] = "auto"
    """auto: pretty on a terminal, JSON lines elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(BaseSettings):
    """All settings; make it with ``load_config``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=_DELIMITER,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    server: Server = Server()
    access: Access = Access()
    video: Video = Video()
    rtc: Rtc = Rtc()
    motion: Motion = Motion()
    vmc: Vmc = Vmc()
    facemocap: FaceMocap = FaceMocap()
    mqtt: Mqtt = Mqtt()
    merged: Merged = Merged()
    relay: Relays = {}
    storage: Storage = Field(default_factory=Storage)
    cluster: Cluster = Cluster()
    log: Log = Log()

    @model_validator(mode="after")
    def _has_a_port_for_each(self) -> "Config":
        if (self.vmc.host, self.vmc.port) == (self.facemocap.host, self.facemocap.port):
            raise ValueError(f"vmc.port and facemocap.port are both {self.vmc.port}; give each its own")
        if (self.vmc.send_host, self.vmc.send_port) == (self.vmc.host, self.vmc.port):
            raise ValueError(f"vmc.port and vmc.send_port are both {self.vmc.port}: it would hear itself")
        return self


def load_config(path: LocalPath | None = None, **sections: Any) -> Config:
    """The settings in force.

    Args:
        path: a YAML file; None for defaults and environment alone.
        sections: values that override both, as ``server={"port": 0}``.

    Raises:
        InvalidInputError: no such file, no YAML, an unknown key or environment variable, or a value out of range; the
            message names each.
    """
    _refuse_unknown_variables()
    if path is not None and not path.is_file():
        raise InvalidInputError(f"{path} is no file; the default settings are in configs/default.yaml")

    read = {} if path is None else read_settings_file(path)

    class FromFile(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Arguments (tests and the command line) over environment over file."""
            return (init_settings, env_settings, InitSettingsSource(settings_cls, read))

    try:
        return FromFile(**sections)
    except ValidationError as error:
        where = "the settings" if path is None else str(path)
        raise InvalidInputError(f"{where}: {describe_faults(error, Config, PREFIX, _DELIMITER)}") from error


def _refuse_unknown_variables() -> None:
    """pydantic-settings reads the variables it knows and is silent about the others."""
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name != MODELS_VARIABLE:
            section = name[len(PREFIX) :].lower().partition(_DELIMITER)[0]
            if section not in Config.model_fields:
                known = ", ".join(f"{PREFIX}{field.upper()}{_DELIMITER}..." for field in Config.model_fields)
                raise InvalidInputError(f"the environment variable {name} is no setting; known: {known}")
