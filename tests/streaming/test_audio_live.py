import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCRtpSender
from av.subtitles.subtitle import SubtitleSet
from live import LiveServer, Visitor, live_server, luma, run, visit

from lhm_runtime.avatar import Avatar
from streaming.app import WEB
from streaming.audio import MOST_DELAY_S, PLAYER_S, RATE_HZ
from streaming.bench.audio import compare
from streaming.bench.chromium import Page, open_page
from streaming.bench.clapper import PERIOD_S, clapping
from streaming.bench.probe_page import KEEP_CONNECTIONS
from streaming.packet_receiver import receive_packets


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
            assert 0.02 < live.audio.delay_s <= MOST_DELAY_S
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
