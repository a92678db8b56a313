import asyncio
import random
import shutil
import time
from contextlib import AsyncExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import RtpPacket
from av.subtitles.subtitle import SubtitleSet
from hypothesis import given
from hypothesis import strategies as st
from live import LiveServer, Visitor, live_server, luma, run, visit
from peers import no_tasks_left

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.audio import PLAYER_S, RATE_HZ, AudioHub, AudioPacket, AudioTrack, Microphone, count_samples
from streaming.bench.audio import compare
from streaming.bench.chromium import Page, open_page
from streaming.bench.clapper import PERIOD_S, clapping
from streaming.bench.probe_page import KEEP_CONNECTIONS
from streaming.packet_receiver import receive_packets

VOICE = b"\xfc\xff\xfe"  # 20 ms
TICKS = 960


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now(self) -> float:
        return self.s


def heard_by(hub: AudioHub) -> list[AudioPacket]:
    heard: list[AudioPacket] = []
    hub.tap(heard.append)
    return heard


@pytest.mark.parametrize(
    ("toc", "ms"),
    [(0x00, 10), (0x18, 60), (0x60, 10), (0x68, 20), (0x80, 2.5), (0xFC, 20), (0xF9, 40), (0xFA, 40), (0x1B, 0)],
)
def test_a_packet_says_how_long_it_lasts(toc: int, ms: float) -> None:
    assert count_samples(bytes((toc, 1 if toc & 3 < 3 else 0))) == ms * 48


def test_packets_of_any_bytes_are_measured_or_refused() -> None:
    assert count_samples(b"") == 0
    assert count_samples(b"\xff") == 0  # says that a count follows, and none does
    assert count_samples(b"\xff\x03") == 3 * 960
    assert count_samples(b"\xff\x3f") == 0  # 63 frames of 20 ms are more than 120 ms


@given(st.lists(st.tuples(st.binary(max_size=8), st.integers(0, 2**32 - 1), st.floats(0, 3)), max_size=60))
def test_whatever_comes_packets_go_on_in_order_and_no_faster_than_time(
    sent: list[tuple[bytes, int, float]],
) -> None:
    clock = Clock()
    hub = AudioHub(is_open=True, now=clock.now)
    heard, microphone = heard_by(hub), Microphone(hub)
    for payload, timestamp, wait_s in sent:
        clock.s += wait_s
        microphone.receive(payload, timestamp)
        if heard:
            assert heard[-1].began_s <= clock.s
    assert sum(packet.samples for packet in heard) <= (clock.s - 1000 + 0.5) * RATE_HZ + 1


def test_jitter_leaves_neither_clock_nor_order() -> None:
    clock, noise = Clock(), random.Random(1)
    hub = AudioHub(is_open=True, now=clock.now)
    heard, microphone = heard_by(hub), Microphone(hub)
    began, arrived = clock.s, clock.s
    for number in range(200):
        arrived = max(arrived, began + 0.02 * (number + 1) + noise.choice([0.0, 0.0, 0.01, 0.04]))
        clock.s = arrived
        microphone.receive(VOICE, (2**32 - 3000 + TICKS * number) % 2**32)  # wraps on its way
    assert len(heard) == 200
    assert {b.pts - a.pts for a, b in pairwise(heard)} == {TICKS}
    spoken = np.array([packet.began_s for packet in heard]) - began - 0.02 * np.arange(200)
    assert abs(spoken[20:]).max() < 0.002


def test_what_a_stall_kept_back_is_stale_but_a_longer_way_is_not() -> None:
    clock = Clock()
    hub = AudioHub(is_open=True, now=clock.now)
    heard, microphone = heard_by(hub), Microphone(hub)
    for number in range(50):
        clock.s += 0.02
        microphone.receive(VOICE, TICKS * number)
    clock.s += 0.8
    for number in range(50, 90):
        microphone.receive(VOICE, TICKS * number)  # all at once
    assert len(heard) < 50 + 25
    assert heard[-1].pts - heard[0].pts == 89 * TICKS
    before = len(heard)
    for number in range(90, 190):  # and from now on half a second late
        clock.s += 0.02 if number > 90 else 0.52
        microphone.receive(VOICE, TICKS * number)
    assert 40 <= len(heard) - before <= 60
    assert heard[-1].began_s == pytest.approx(clock.s - 0.02, abs=0.01)


def test_the_last_to_begin_is_heard_and_only_while_the_session_says_so() -> None:
    clock = Clock()
    hub = AudioHub(now=clock.now)
    heard, first, second = heard_by(hub), Microphone(hub), Microphone(hub)
    first.receive(VOICE, 0)
    assert not heard
    hub.is_open = True

    def speak(who: Microphone, at: int) -> int:
        before = len(heard)
        who.receive(VOICE, at)
        return len(heard) - before

    clock.s += 0.02
    assert speak(first, TICKS)
    assert speak(second, 0)
    clock.s += 0.02
    assert not speak(first, 2 * TICKS)
    assert not speak(second, 0)  # repeated
    second.close()
    clock.s += 0.02
    assert speak(first, 3 * TICKS)
    clock.s += 2.0
    assert speak(second, TICKS)
    clock.s += 2.0
    assert speak(first, 4 * TICKS)  # after a pause it begins anew


def test_a_flood_is_cut_to_what_can_be_heard() -> None:
    clock = Clock()
    hub = AudioHub(is_open=True, now=clock.now)
    heard, microphone = heard_by(hub), Microphone(hub)
    for number in range(2000):
        clock.s += 0.001
        microphone.receive(VOICE, TICKS * number)
    assert len(heard) <= (2.0 + 0.5) / 0.02 + 1


def test_a_listener_gets_packets_when_the_avatar_moves_and_changes_are_slow() -> None:
    async def main() -> None:
        hub = AudioHub(is_open=True)
        hub.note_delay(0.15, 0.02)
        track = hub.subscribe()
        track.player_s = 0.03
        left: list[float] = []

        async def listen() -> None:
            while True:
                packet = await track.recv()
                left.append(hub.now() - spoken[packet.pts or 0])

        listening = asyncio.create_task(listen())
        spoken: dict[int, float] = {}
        microphone = Microphone(hub)
        began = hub.now()
        for number in range(60):
            await asyncio.sleep(began + 0.02 * (number + 1) - hub.now())
            if number == 30:
                for _ in range(200):
                    hub.note_delay(0.25, 0.02)
            pts = round(began * RATE_HZ) + number * TICKS
            spoken[pts] = began + 0.02 * number
            hub.publish(AudioPacket(VOICE, pts, TICKS, spoken[pts]), microphone)
        await asyncio.sleep(0.2)
        track.stop()
        with pytest.raises(MediaStreamError):
            await listening
        with pytest.raises(MediaStreamError):
            await track.recv()
        assert not hub.listeners
        assert np.median(left[:30]) == pytest.approx(0.14, abs=0.02)
        assert 0.14 < np.median(left[50:]) < 0.165  # 0.4 ms a packet towards 0.24
        await no_tasks_left()

    asyncio.run(main())


def test_who_reads_nothing_is_not_waited_for() -> None:
    hub = AudioHub(is_open=True)

    async def main() -> None:
        track = AudioTrack(hub)
        hub.join(track)
        for number in range(5000):
            track.push(AudioPacket(VOICE, number * TICKS, TICKS, 0.0))
        assert ((await track.recv()).pts or 0) > 4000 * TICKS

    asyncio.run(main())


def test_packets_come_in_undecoded() -> None:
    """Fails where aiortc has moved what packet_receiver.py touches."""

    class Codec:
        clockRate = 48_000  # noqa: N815 - aiortc's
        name = "opus"

    class Other(Codec):
        name = "PCMU"

    class Transport:
        state = "new"

    async def main() -> None:
        hub = AudioHub(is_open=True)
        heard = heard_by(hub)
        receiver: Any = RTCRtpReceiver("audio", Transport())  # type: ignore[arg-type]
        receiver._RTCRtpReceiver__codecs.update({96: Codec, 0: Other})
        receive_packets(receiver, Microphone(hub))
        for number, payload_type in enumerate([96, 0, 77, 96]):
            packet = RtpPacket(payload_type=payload_type, sequence_number=number, timestamp=number * TICKS)
            packet.ssrc, packet.payload = 5, VOICE
            await receiver._handle_rtp_packet(packet, arrival_time_ms=0)
        assert [packet.payload for packet in heard] == [VOICE, VOICE]
        assert receiver._RTCRtpReceiver__decoder_queue.empty()
        assert receiver._RTCRtpReceiver__remote_streams[5].packets_received == 3
        assert [source.source for source in receiver.getSynchronizationSources()] == [5]

    asyncio.run(main())


def test_claps_are_compared() -> None:
    at = np.arange(0, 6000, 33.0)
    moved = np.where((at % 1200 > 50) & (at % 1200 < 150), 100.0, 1.0)  # over three pictures
    skews = compare(np.stack([at, moved], 1), np.array([1340.0, 2540.0, 5000.0]))
    assert np.allclose(skews, [1340 - 1300, 2540 - 2500, 5000 - 4900], atol=35)
    assert len(compare(np.stack([at, np.ones_like(at)], 1), np.array([1340.0]))) == 0  # heard, but nothing moved


def test_a_clap_is_heard_when_it_is_seen(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(live_server(tmp_path, avatar))
            session = await server.start_session(source="browser", audio=True, width=128, height=160, framing="half")
            live = server.services.sessions.get(session)
            await stack.enter_async_context(clapping(server.services, session))
            viewer = await watch_and_listen(server, session, stack)
            clicks = heard_clicks(viewer)
            for track in live.audio.listeners:
                track.player_s = 0.0  # this viewer holds nothing back
            frames = await seen_changes(viewer, 8.0)
            recording = await server.http.post(f"/api/sessions/{session}/recording")
            assert recording.status_code < 300
            await asyncio.sleep(3.2)
            film = (await server.http.delete(f"/api/sessions/{session}/recording")).json()
            assert 0.02 < live.audio.delay_s < 0.6
            settled = [click for click in clicks if click > frames[0, 0] + 2000]
            skews = compare(frames, np.array(settled))
            assert len(skews) >= 3
            assert abs(np.median(skews)) < 100, skews
            check_film(tmp_path, film["id"])
            (await server.http.patch(f"/api/sessions/{session}", json={"audio": False})).raise_for_status()
            await asyncio.sleep(0.3)
            count = len(clicks)
            await asyncio.sleep(1.5 * PERIOD_S)
            assert len(clicks) == count

    run(main())


async def watch_and_listen(server: LiveServer, session: str, stack: AsyncExitStack) -> Visitor:
    """A viewer whose browser offers sound after the picture."""
    visitor = await stack.enter_async_context(visit())
    visitor.connection.addTransceiver("video", direction="recvonly")
    visitor.connection.addTransceiver("audio", direction="recvonly")
    response = await server.http.post(
        f"/whep/{session}", content=await visitor.offer(), headers={"content-type": "application/sdp"}
    )
    assert response.status_code == 201
    streams = [line.split()[0] for line in response.text.splitlines() if line.startswith("a=msid:")]
    assert len(set(streams)) == 2, "browsers would hold back the pictures for the sound"
    await visitor.accept(response.text)
    return visitor


def heard_clicks(viewer: Visitor) -> list[float]:
    """Times in ms, as clicks arrive; decoded with nothing held back."""
    clicks: list[float] = []
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = RATE_HZ, "stereo", "s16"
    receiver = next(r for r in viewer.connection.getReceivers() if r.track.kind == "audio")

    class Ear:
        def receive(self, payload: bytes, timestamp: int) -> None:
            packet = av.Packet(payload)
            packet.pts, packet.time_base = timestamp, Fraction(1, RATE_HZ)
            for frame in decoder.decode(packet):
                samples = frame.to_ndarray().reshape(-1, 2)[:, 0].astype(float)
                loud = np.flatnonzero(abs(samples) > 5000)
                now_ms = 1e3 * time.monotonic()
                if len(loud) and (not clicks or now_ms - clicks[-1] > 300):
                    clicks.append(now_ms + 1e3 * loud[0] / RATE_HZ)

    receive_packets(receiver, Ear())  # type: ignore[arg-type]
    return clicks


async def seen_changes(viewer: Visitor, seconds: float) -> np.ndarray:
    """[n, 2] ms, and how much each picture differs from the one before, of ``seconds`` from the first one on."""
    video = next(track for track in viewer.tracks if track.kind == "video")
    changes, last = [], luma(await asyncio.wait_for(video.recv(), 15.0))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        picture = luma(await asyncio.wait_for(video.recv(), 10.0))
        changes.append((1e3 * time.monotonic(), float(abs(picture - last).mean())))
        last = picture
    return np.array(changes)


def check_film(folder: Path, recording: str) -> None:
    """Claps are in it, to be seen and heard at the same instants, and both tracks are as long."""
    (path,) = folder.rglob(f"{recording}.mp4")
    with av.open(path) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert float((video.duration or 0) * (video.time_base or 0)) == pytest.approx(
            float((sound.duration or 0) * (sound.time_base or 0)), abs=0.1
        )
        frames: list[tuple[float, float]] = []
        clicks: list[float] = []
        last: np.ndarray | None = None
        for frame in container.decode(video, sound):
            assert not isinstance(frame, SubtitleSet)
            at_ms = 1e3 * float(frame.pts or 0) * float(frame.time_base or 0)
            if isinstance(frame, av.VideoFrame):
                picture = luma(frame)
                if last is not None:
                    frames.append((at_ms, float(abs(picture - last).mean())))
                last = picture
            else:
                loud = np.flatnonzero(abs(frame.to_ndarray()[0]) > 0.15)
                if len(loud) and (not clicks or at_ms - clicks[-1] > 300):
                    clicks.append(at_ms + 1e3 * loud[0] / RATE_HZ)
    skews = compare(np.array(frames), np.array([click for click in clicks if 500 < click < frames[-1][0] - 500]))
    assert len(skews) >= 1
    assert abs(np.median(skews)) < 100, skews


def test_strange_offers_disturb_nobody(avatar: Avatar, tmp_path: Path) -> None:
    """Two microphones, one without Opus, and a viewer that sends sound."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(live_server(tmp_path, avatar))
            session = await server.start_session(source="webcam", audio=True)
            watching = await server.watch(session, stack)
            for kinds, path in ((["audio", "audio"], "whip"), (["audio"], "whip"), (["audio"], "whep")):
                visitor = await stack.enter_async_context(visit())
                for kind in kinds:
                    transceiver = visitor.connection.addTransceiver(kind, direction="sendonly")
                    if len(kinds) == 1:
                        known = RTCRtpSender.getCapabilities("audio").codecs
                        transceiver.setCodecPreferences([codec for codec in known if codec.name == "PCMU"])
                response = await server.http.post(
                    f"/{path}/{session}", content=await visitor.offer(), headers={"content-type": "application/sdp"}
                )
                assert response.status_code == 201, response.text
                await visitor.accept(response.text)
            await watching.see(3)

    run(main())


@pytest.mark.skipif(not (WEB / "view.html").is_file(), reason="the page is not built (make web)")
@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium here")
def test_the_page_speaks_and_listens(avatar: Avatar, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(live_server(tmp_path, avatar))
            page = await stack.enter_async_context(open_page(server.address, first=KEEP_CONNECTIONS))
            await page.wait_for("document.getElementById('stage')?.hasAttribute('data-live')", 30.0)
            session = (await page.evaluate("location.hash")).partition("=")[2]
            live = server.services.sessions.get(session)
            viewer = await watch_and_listen(server, session, stack)
            heard = heard_clicks(viewer)  # Chromium's microphone beeps once a second
            await asyncio.sleep(1.2)
            assert not live.settings.audio
            assert not heard
            await press(page, "a")
            await page.wait_for("!document.getElementById('on-air').hidden")
            assert "hears you" in await page.evaluate("document.getElementById('on-air').textContent")
            async with asyncio.timeout(10.0):
                while len(heard) < 2:
                    await asyncio.sleep(0.05)
            await press(page, "a")
            await page.wait_for("document.getElementById('on-air').hidden")
            assert not live.settings.audio

            await server.http.patch(f"/api/sessions/{session}", json={"audio": True, "source": "browser"})
            await stack.enter_async_context(clapping(server.services, session))
            await page.go(f"{server.address}/view/{session}")
            await page.wait_for("document.getElementById('sound')?.hidden === false", 20.0)
            await page.evaluate("document.getElementById('sound').click()")
            assert await page.evaluate("document.getElementById('sound').textContent") == "Sound off"
            await page.wait_for(ENERGY, 20.0)
            for _ in range(100):
                if any(track.player_s != PLAYER_S for track in live.audio.listeners):
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("the page does not say how long it holds sound")

    run(main())


ENERGY = """(async () => {
  const [connection] = window.benchConnections
  const entries = [...(await connection.getStats()).values()]
  return entries.some(({ kind, totalAudioEnergy }) => kind === 'audio' && totalAudioEnergy > 0)
})()"""


async def press(page: Page, key: str) -> None:
    await page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
    await page.call("Input.dispatchKeyEvent", type="keyUp", key=key)
