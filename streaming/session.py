"""READ THIS FIRST. One driven avatar, as one TaskGroup.

    source -> solve -> smooth -> Latest[pose] -> render thread -> encoder threads -> hubs -> viewers
      `---------- _drive ----------'   `----- _animate -----'      `------- one Ladder a format -------'

Newest wins at every arrow: nothing queues, what is late is replaced. The event loop only hands references on; solving
has a thread, drawing has one, each encoder has one. While nobody watches and nothing is recorded nothing is drawn.
Avatar and source may change meanwhile: a Cast is made ready beside the one on stage, which leaves only then.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from aiortc.mediastreams import MediaStreamTrack
from structlog.stdlib import get_logger

from lhm_runtime.avatar import Avatar
from lhm_runtime.errors import BackendError, LhmLiveError
from lhm_runtime.motion.takes import SUFFIX as TAKE_SUFFIX
from lhm_runtime.types import SmplxPose
from streaming.audio import AudioHub
from streaming.config import Config
from streaming.drivers import Drivers
from streaming.encoder import Codec
from streaming.follower import Follower
from streaming.heard import Heard
from streaming.hub import PacketTrack
from streaming.ladder import Ladder, tiers_up_to
from streaming.latest import Latest
from streaming.pose_feed import PoseFeed
from streaming.recording import SUFFIXES, Room, record
from streaming.renderer import BLEND_S, Moment, Performer, RenderThread, Submit
from streaming.settings import MAX_BPS, NewSession, SessionState, SettingsChange
from streaming.sources import Source
from streaming.sources.idle import ease
from streaming.sources.merged import MergedSource
from streaming.sources.messages import MessageSource, Sender
from streaming.sources.replay import ReplaySource
from streaming.take import take_beside
from streaming.udp import UdpPorts
from streaming.vmc_output import VmcOutput

TimedPose = tuple[SmplxPose, float | None, float]
"""A pose and when its driver was seen: captured_ms and seen_at of Sample."""

_EARLY = 0.25
"""Share of a frame by which a pose may come early and still be drawn at once: drivers are not metronomes."""
_AUDIENCE_S = 0.2

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """Who is shown, and who moves them."""

    performer: Performer
    follower: Follower
    source: Source | None
    """Open; None: idle motion only."""
    leaving: AsyncExitStack
    """Closes the source."""
    poses: Latest[TimedPose] = field(default_factory=Latest)


class Session:
    """One avatar, who drives it and who watches; ``run`` it in a task."""

    def __init__(
        self, session_id: str, avatar: Avatar, wish: NewSession, config: Config, ports: UdpPorts | None = None
    ) -> None:
        """Prepare to show ``avatar`` as ``wish`` says; ``ports`` are shared by sessions that listen to the same."""
        self.id, self.wish = session_id, wish
        self.size = (wish.width or config.video.width, wish.height or config.video.height)
        self.fps = wish.fps or config.video.fps
        self.settings = wish.first_settings(avatar.metadata.shown)
        self.recording: str | None = None
        """Id of what is being recorded, for ``state``."""
        self.recasting = asyncio.Lock()
        """Held while avatar or source change."""
        self.on_state: Callable[[], None] = lambda: None
        """Called when ``state`` has changed."""
        self.sender: Sender | None = None
        """Who sends them over a websocket, if anybody does: the last to come."""
        self.ended = asyncio.Event()
        self.audio = AudioHub(is_open=self.settings.audio)
        """Where the driver's microphone goes."""
        self._drivers = Drivers(config, UdpPorts() if ports is None else ports)
        self.avatar, self._config = avatar, config
        self._cast: Cast | None = None
        self._heard = Heard()
        self._acting: list[asyncio.Task[None]] = []
        self._renderer = RenderThread(self.size)
        self.poses = PoseFeed(self._renderer, self._welcome)
        """Those who draw the avatar themselves."""
        self._ladders: dict[tuple[Codec, bool], Ladder] = {}
        self._tracks: dict[PacketTrack, tuple[Codec, bool | None]] = {}
        self._audience = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def state(self) -> SessionState:
        """What everybody in the session is told."""
        return SessionState(
            **self.settings.model_dump(),
            id=self.id,
            avatar=self.wish.avatar,
            source=self.wish.source,
            replay=self.wish.replay,
            rig=self.wish.rig,
            width=self.size[0],
            height=self.size[1],
            fps=self._renderer.fps,
            viewers=self.viewers,
            replay_s=None if self._replay is None else self._replay.length_s,
            place_s=None if self._replay is None else self._replay.place_s,
            heard_hz=self._heard.rate_hz,
            recording=self.recording,
            share_avatar=self.wish.share_avatar,
            relay=self.wish.relay,
        )

    @property
    def messages(self) -> MessageSource:
        """Where the samples of a data channel or websocket go."""
        return self._drivers.messages

    @property
    def takes_video(self) -> bool:
        """Whether it is driven by a camera's video."""
        return self._drivers.takes_video(self.wish)

    @property
    def viewers(self) -> int:
        """How many are sent pictures, or poses to draw them from."""
        return sum(ladder.viewers for ladder in self._ladders.values()) + len(self.poses.viewers)

    @property
    def _replay(self) -> ReplaySource | None:
        source = None if self._cast is None else self._cast.source
        return source if isinstance(source, ReplaySource) else None

    @property
    def drawing(self) -> bool:
        """Whether anybody watches or records."""
        return any(ladder.wanted.is_set() for ladder in self._ladders.values())

    async def run(self) -> None:
        """Drive, draw, encode and hand out until cancelled.

        Raises:
            ExceptionGroup: what failed; the session is then over.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._renderer.run(), name=f"{self.id} draw")
                tasks.create_task(self._begin(), name=f"{self.id} begin")
                tasks.create_task(self._heard.watch(self.on_state), name=f"{self.id} listen")
        finally:
            self._tasks = None
            self.ended.set()
            if self._cast is not None:
                await self._cast.leaving.aclose()

    async def recast(self, wish: NewSession, avatar: Avatar | None = None) -> None:
        """Show ``avatar`` (None: the same as now), driven as ``wish`` says; viewers stay and see one become the other.

        For one caller at a time: hold ``recasting``.

        Raises:
            LhmLiveError: it cannot be; everything is as it was.
        """
        cast = await self._prepare(wish, avatar or self.avatar)
        before = self._cast
        if self._tasks is None:
            await cast.leaving.aclose()
            raise LhmLiveError(f"session {self.id} has ended")
        self.wish = wish.model_copy(update={"framing": self.wish.framing})  # it may have been chosen meanwhile
        if avatar is not None:
            self.avatar = avatar
            self.share_avatar(wish.share_avatar)
            if self.wish.framing is None:
                self.settings = self.settings.model_copy(update={"framing": avatar.metadata.shown})
        self._enter(cast)
        self.on_state()
        if before is not None and before.source is not cast.source:
            await before.leaving.aclose()

    def subscribe(self, codec: Codec, *, stacked: bool | None = None) -> PacketTrack:
        """A track for one viewer; ``stacked`` None: as the background asks, now and whenever it changes."""
        track = self._ladder(codec, self.settings.stacked if stacked is None else stacked).subscribe()
        self._tracks[track] = (codec, stacked)
        track.add_listener("ended", lambda: self._tracks.pop(track, None))
        return track

    def change(self, change: SettingsChange) -> None:
        """Show it differently from the next picture on."""
        if change.calibrate and self._cast is not None:
            self._cast.follower.calibrate()
            if isinstance(self._cast.source, MergedSource):
                self._cast.source.calibrate()
        if change.framing is not None:
            self.wish = self.wish.model_copy(update={"framing": change.framing})
        if change.seek_s is not None and self._replay is not None:
            self._replay.seek(change.seek_s)
            self.on_state()
        settings = change.apply(self.settings)
        if settings == self.settings:
            return
        self.settings = settings
        self.audio.is_open = settings.audio
        if self._replay is not None:
            self._replay.play(speed=settings.speed, loop=settings.loop)
        for track, (codec, stacked) in list(self._tracks.items()):
            ladder = self._ladder(codec, settings.stacked if stacked is None else stacked)
            if track.hub not in ladder.hubs:
                track.move_to(ladder.best)
        for ladder in self._ladders.values():
            self._limit(ladder)
        self.on_state()

    async def feed(self, track: MediaStreamTrack) -> None:
        """Let a driver's video drive; returns when it ends. Where another source does, it is read in vain."""
        await self._drivers.webcam.feed(track)

    def share_avatar(self, allowed: bool) -> None:
        """Whether viewers may have the avatar, to draw it themselves; who has it by then keeps it."""
        self.wish = self.wish.model_copy(update={"share_avatar": allowed})
        if not allowed:
            self.poses.dismiss()
        self.on_state()

    def admit(self, sender: Sender) -> None:
        """Let ``sender``'s samples drive, in the place of whoever came over a websocket before."""
        if self.sender is not None:
            self.sender.replaced.set()
        self.sender = sender

    def dismiss(self, sender: Sender) -> None:
        """``sender`` has gone."""
        if self.sender is sender:
            self.sender = None

    async def record(self, path: Path, codec: Codec = "h264", room: Room | None = None) -> None:
        """Write what viewers see to ``path``, and its poses beside it, until cancelled or there is no room.

        See recording.record and take.take_beside.
        """
        hub = self._ladder(codec, stacked=False).best
        async with take_beside(path.with_suffix(TAKE_SUFFIX), hub, self._renderer, self.fps, room):
            await record(hub, path.with_suffix(SUFFIXES[codec]), room, self.audio)

    def _welcome(self) -> None:
        self._audience.set()
        self.on_state()

    async def _begin(self) -> None:
        async with self.recasting:
            self._enter(await self._prepare(self.wish, self.avatar))

    async def _prepare(self, wish: NewSession, avatar: Avatar) -> Cast:
        """Everything that can fail or takes time, while the present cast plays on."""
        present = self._cast
        if present is not None and present.performer.avatar is avatar:
            performer = present.performer
        else:
            performer = await asyncio.to_thread(Performer, avatar, wish.avatar)
        follower = Follower(avatar, self._config.motion, present.follower.neutral if present else None)
        if present is not None and self._drivers.stays(present.source) and wish.source == self.wish.source:
            return Cast(performer, follower, present.source, present.leaving)
        source = await self._drivers.source(wish, avatar, self.fps, self.settings)
        leaving = AsyncExitStack()
        if source is not None:
            await leaving.enter_async_context(source)
        return Cast(performer, follower, source, leaving)

    def _enter(self, cast: Cast) -> None:
        if self._tasks is None:
            raise LhmLiveError(f"session {self.id} does not run")
        for task in self._acting:
            task.cancel()
        self._cast = cast
        self._heard.forget()
        self.audio.forget_delay()
        self._acting = [self._tasks.create_task(self._animate(cast), name=f"{self.id} animate")]
        if cast.source is not None:
            self._acting.append(self._tasks.create_task(self._drive(cast, cast.source), name=f"{self.id} drive"))

    async def _drive(self, cast: Cast, source: Source) -> None:
        """source -> solve -> smooth -> the newest pose."""
        loop = asyncio.get_running_loop()
        avatar, vmc = cast.performer.avatar, self._config.vmc
        with (
            VmcOutput(vmc.send_host, vmc.send_port, avatar.rest_joints, avatar.expression_names, vmc.faces) as output,
            ThreadPoolExecutor(1, f"{self.id}-solve") as solving,
        ):
            async for sample in source:
                self._heard.count()
                seen_at = loop.time() if sample.seen_at is None else sample.seen_at
                pose = await loop.run_in_executor(solving, cast.follower.follow, sample)
                if pose is None:
                    continue
                cast.poses.put((pose, sample.captured_ms, seen_at))
                if self.settings.vmc:
                    try:
                        await loop.run_in_executor(solving, output.send, pose)
                    except BackendError as error:
                        _log.warning("no VMC output", session=self.id, reason=str(error))
                        self.change(SettingsChange(vmc=False))

    async def _animate(self, cast: Cast) -> None:
        """Ask for a picture whenever there is a new pose, and at a steady rate while idle motion is in it."""
        loop = asyncio.get_running_loop()
        interval_s, silence_s = 1 / self.fps, self._config.motion.silence_s
        newest: TimedPose | None = None
        began = last = loop.time()
        heard_at, share = -silence_s, 0.0
        while True:
            if not (self.drawing or self.poses.viewers):
                self._audience.clear()
                await self._audience.wait()
            if share >= 1:
                fresh = await cast.poses.get_until(heard_at + silence_s)
                await asyncio.sleep(last + (1 - _EARLY) * interval_s - loop.time())
                fresh = cast.poses.take() or fresh
            else:
                await asyncio.sleep(max(last + interval_s - loop.time(), 0))
                fresh = cast.poses.take()
            now = loop.time()
            if fresh is not None:
                newest, heard_at = fresh, now
                making_s = max((ladder.best.making_s for ladder in self._ladders.values()), default=0.0)
                self.audio.note_delay(now - fresh[2], making_s)
            step = min(now - last, 3 * interval_s) / BLEND_S
            share = min(share + step, 1.0) if now - heard_at < silence_s else max(share - step, 0.0)
            last = max(last + interval_s, now - interval_s) if share < 1 else now
            driven, captured_ms, _ = newest if newest is not None and share > 0 else (None, None, None)
            takers = tuple(
                (stacked, _submitter(ladder))
                for (_, stacked), ladder in self._ladders.items()
                if ladder.wanted.is_set()
            )
            moment = Moment(cast.performer, now, began, driven, ease(share), captured_ms, self.settings, takers)
            self._renderer.submit(moment)

    def _ladder(self, codec: Codec, stacked: bool) -> Ladder:
        """The encoders of one format, running."""
        ladder = self._ladders.get((codec, stacked))
        if ladder is None:
            if self._tasks is None:
                raise LhmLiveError(f"session {self.id} does not run")
            video = self._config.video
            width, height = self.size[0], self.size[1] * (2 if stacked else 1)
            ladder = Ladder(
                width,
                height,
                self.fps,
                codec=codec,
                tiers=tiers_up_to(video.max_bps),
                preset=video.preset,
                hardware=video.hardware,
                session=self.id,
            )
            self._limit(ladder)
            self._ladders[codec, stacked] = ladder
            self._tasks.create_task(ladder.run(), name=f"{self.id} encode {codec}{' stacked' if stacked else ''}")
            self._tasks.create_task(self._watch(ladder), name=f"{self.id} watch audience")
        return ladder

    def _limit(self, ladder: Ladder) -> None:
        limit = MAX_BPS[self.settings.quality]
        hub = ladder.best
        hub.max_bps = self._config.video.max_bps if limit is None else max(limit, hub.min_bps)
        hub.adapt()

    async def _watch(self, ladder: Ladder) -> None:
        """Wake the animation when somebody comes, and tell everybody how many they are."""
        viewers = -1
        while True:
            await ladder.wanted.wait()
            while ladder.wanted.is_set():
                self._audience.set()
                if self.viewers != viewers:
                    viewers = self.viewers
                    self.on_state()
                await asyncio.sleep(_AUDIENCE_S)


def _submitter(ladder: Ladder) -> Submit:
    return lambda i420, pts, stamp: ladder.submit(i420, pts, stamp=stamp)
