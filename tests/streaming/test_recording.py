import asyncio
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from peers import moving_picture, no_tasks_left, psnr

from lhm_runtime.errors import BackendError
from streaming.audio import RATE_HZ, AudioHub, AudioPacket, Microphone
from streaming.encoder import Codec, EncodedFrame, EncoderThread
from streaming.hub import PacketHub
from streaming.recording import PART, SUFFIXES, record


async def encoded(made: list[EncodedFrame], count: int) -> None:
    """Wait until so many pictures are: the next one would overtake one that waits."""
    async with asyncio.timeout(10.0):
        while len(made) < count:
            await asyncio.sleep(0.002)


async def record_some(path: Path, codec: Codec, count: int) -> None:
    hub = PacketHub(EncoderThread(128, 128, 30.0, codec=codec))
    running = asyncio.create_task(hub.run())
    recording = asyncio.create_task(record(hub, path))
    await asyncio.sleep(0.05)
    made: list[EncodedFrame] = []
    end = hub.tap(made.append)
    for index in range(count):
        hub.submit(moving_picture(index, 128, 128), 50_000 + index * 3000, stamp=0.0)
        await encoded(made, index + 1)
    end()
    for task in (recording, running):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not hub.wanted
    await no_tasks_left()


@pytest.mark.parametrize("codec", ["h264", "vp8"])
def test_a_recording_plays_and_shows_what_was_sent(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / f"me{SUFFIXES[codec]}"
    asyncio.run(record_some(path, codec, 20))
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 20
    assert frames[0].time == pytest.approx(0, abs=0.04)
    assert frames[-1].time == pytest.approx(19 / 30, abs=0.01)
    assert psnr(frames[-1], moving_picture(19, 128, 128)) > 30
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_recorded_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "me.mp4"
    path.write_bytes(b"older")
    asyncio.run(record_some(path, "h264", 0))
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        hub = PacketHub(EncoderThread(128, 128, 30.0))
        with pytest.raises(BackendError, match="cannot be written"):
            await asyncio.wait_for(record(hub, tmp_path / "absent" / "me.mp4"), 5)
        assert not hub.wanted
        with pytest.raises(BackendError, match="cannot hold h264"):
            await record(hub, tmp_path / "me.webm")

    asyncio.run(main())


def test_what_was_written_before_a_crash_plays(tmp_path: Path) -> None:
    """The hidden file as it is on the disk in the middle of a recording."""

    async def main() -> None:
        hub = PacketHub(EncoderThread(128, 128, 30.0))
        running = asyncio.create_task(hub.run())
        recording = asyncio.create_task(record(hub, tmp_path / "me.mp4"))
        await asyncio.sleep(0.05)
        for index in range(75):
            hub.submit(moving_picture(index, 128, 128), index * 3000, stamp=0.0)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        (part,) = tmp_path.glob(f".me.*{PART}.mp4")
        crashed = tmp_path / "crashed.mp4"
        crashed.write_bytes(part.read_bytes())
        for task in (recording, running):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        with av.open(crashed) as container:
            assert list(container.decode(video=0))[-1].time > 0.9
        with av.open(tmp_path / "me.mp4") as container:
            assert container.duration is not None  # an ordinary file, with its length, once it is complete

    asyncio.run(main())


def test_it_ends_when_there_is_no_room(tmp_path: Path) -> None:
    room = 20_000

    def take(size: int) -> bool:
        nonlocal room
        room -= size
        return room >= 0

    async def main() -> None:
        hub = PacketHub(EncoderThread(128, 128, 30.0))
        running = asyncio.create_task(hub.run())
        recording = asyncio.create_task(record(hub, tmp_path / "me.mp4", take))
        index = 0
        while not recording.done():
            hub.submit(moving_picture(index, 128, 128), index * 3000, stamp=0.0)
            index += 1
            await asyncio.sleep(0.01)
        recording.result()
        assert not hub.wanted
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert 0 < (tmp_path / "me.mp4").stat().st_size < 25_000
    with av.open(tmp_path / "me.mp4") as container:
        assert list(container.decode(video=0))


def speech(count: int, first: int) -> list[bytes]:
    """Opus packets of 20 ms: silence, and a loud tone from the ``first`` one on."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = RATE_HZ, "mono", "s16"  # type: ignore[assignment]
    packets = []
    for number in range(count + 2):
        wave = ((20_000 if number >= first else 0) * np.sin(np.arange(960) * 0.1)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 960 * number, Fraction(1, RATE_HZ)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets[:count]


@pytest.mark.parametrize("codec", ["h264", "vp8"])
@pytest.mark.parametrize("spoken", [(0.5, 1.1), None])
def test_sound_lies_where_the_pictures_are(codec: Codec, spoken: tuple[float, float] | None, tmp_path: Path) -> None:
    """A microphone that comes and goes; or never comes."""
    path, began_s = tmp_path / f"me{SUFFIXES[codec]}", 50.0

    async def main() -> None:
        hub, audio = PacketHub(EncoderThread(128, 128, 30.0, codec=codec)), AudioHub(is_open=True)
        audio.note_delay(0.1, 0.02)
        microphone, packets = Microphone(audio), speech(60, 25)
        running = asyncio.create_task(hub.run())
        recording = asyncio.create_task(record(hub, path, audio=audio))
        await asyncio.sleep(0.05)
        made: list[EncodedFrame] = []
        hub.tap(made.append)
        for index in range(60):
            hub.submit(moving_picture(index, 128, 128), int((began_s + index / 30) * 90_000), stamp=0.0)
            await encoded(made, index + 1)
            for number in range(round(5 * index / 3), round(5 * (index + 1) / 3)):
                at_s = number * 0.02
                if spoken is not None and spoken[0] <= at_s + 1e-6 < spoken[1]:
                    packet = AudioPacket(packets[number], number * 960, 960, began_s + at_s - audio.pose_s)
                    audio.publish(packet, microphone)
        await asyncio.sleep(0.1)
        for task in (recording, running):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await no_tasks_left()

    asyncio.run(main())
    with av.open(path) as container:
        ends = [float((frame.pts or 0) * (frame.time_base or 0)) for frame in container.decode(video=0)]
    with av.open(path) as container:
        heard = [(frame.time, abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0)]
    assert heard[-1][0] + 0.02 == pytest.approx(ends[-1] + 1 / 30, abs=0.05)
    loud = [at_s for at_s, peak in heard if peak > 0.1]
    if spoken is None:
        assert not loud
    else:
        assert loud[0] == pytest.approx(spoken[0], abs=0.03)
        assert loud[-1] == pytest.approx(spoken[1], abs=0.06)
