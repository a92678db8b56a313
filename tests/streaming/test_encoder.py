import asyncio
import threading

import av
import numpy as np
import pytest
from peers import moving_picture, no_tasks_left, psnr

from lhm_runtime.errors import BackendError, InvalidInputError
from streaming.encoder import CEILING_BPS, START_BPS, Codec, EncodedFrame, EncoderThread, PictureEncoder

FPS = 30.0
TICKS = 3000
CODECS: tuple[Codec, ...] = ("h264", "vp8")


def frame_of(i420: np.ndarray, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
    frame.pts = index * TICKS
    return frame


def bits_per_second(packets: list[av.Packet]) -> float:
    return sum(packet.size for packet in packets) * 8 * FPS / len(packets)


@pytest.mark.parametrize("codec", CODECS)
def test_every_picture_becomes_one_packet_that_decodes_to_it(codec: Codec) -> None:
    encoder = PictureEncoder(256, 192, FPS, codec=codec)
    decoder = av.CodecContext.create(codec, "r")
    for index in range(12):
        picture = moving_picture(index, 256, 192)
        packet = encoder.encode(frame_of(picture, index))
        assert packet.pts == index * TICKS
        assert packet.is_keyframe == (index == 0)
        (decoded,) = decoder.decode(av.Packet(bytes(packet)))
        assert psnr(decoded, picture) > 32


def test_a_keyframe_carries_its_parameter_sets() -> None:
    packet = PictureEncoder(64, 64, FPS).encode(frame_of(moving_picture(0, 64, 64), 0))
    kinds = {unit[0] & 0x1F for unit in bytes(packet).split(b"\0\0\1")[1:]}
    assert {5, 7, 8} <= kinds  # picture, sequence and picture parameters


@pytest.mark.parametrize("codec", CODECS)
def test_keyframes_come_only_when_asked_for(codec: Codec) -> None:
    encoder = PictureEncoder(128, 128, FPS, codec=codec)
    keyframes = [
        index
        for index in range(320)
        if encoder.encode(frame_of(moving_picture(index, 128, 128), index), keyframe=index in {100, 207}).is_keyframe
    ]
    assert keyframes == [0, 100, 207]


@pytest.mark.parametrize(("codec", "noise"), [("h264", 24), ("h264", 80), ("vp8", 12)])
def test_keyframes_are_bounded_however_hard_the_picture(codec: Codec, noise: int) -> None:
    encoder = PictureEncoder(512, 512, FPS, codec=codec)
    sizes = [
        encoder.encode(frame_of(moving_picture(i, 512, 512, noise=noise), i), keyframe=i in {0, 40}).size
        for i in range(41)
    ]
    quarter_second_bytes = START_BPS // 4 // 8
    assert sizes[0] <= quarter_second_bytes
    assert sizes[40] <= quarter_second_bytes


def test_h264_bitrate_changes_live_without_a_keyframe() -> None:
    encoder = PictureEncoder(256, 256, FPS)
    packets: dict[int, list[av.Packet]] = {}
    index = 0
    for bps in (800_000, 2_000_000, 300_000, 1_200_000):
        encoder.set_bitrate(bps)
        packets[bps] = []
        for _ in range(60):
            packets[bps].append(encoder.encode(frame_of(moving_picture(index, noise=20), index)))
            index += 1
    for bps, sent in packets.items():
        assert bits_per_second(sent[20:]) == pytest.approx(bps, rel=0.3)
    assert sum(packet.is_keyframe for sent in packets.values() for packet in sent) == 1


def test_h264_bitrate_never_leaves_its_bounds() -> None:
    encoder = PictureEncoder(128, 128, FPS, ceiling_bps=1_000_000)
    encoder.set_bitrate(50_000_000)
    packets = [encoder.encode(frame_of(moving_picture(i, 128, 128, noise=60), i)) for i in range(60)]
    assert bits_per_second(packets[20:]) < 1_300_000


def test_vp8_bitrate_changes_at_the_price_of_one_keyframe_and_not_often() -> None:
    encoder = PictureEncoder(256, 256, FPS, codec="vp8", bitrate_bps=1_000_000)
    keyframes, packets = [], []
    for index in range(240):
        # a viewer whose estimate trembles, then falls for good
        encoder.set_bitrate(1_000_000 + 100_000 * (-1) ** index if index < 120 else 300_000)
        packets.append(encoder.encode(frame_of(moving_picture(index, noise=20), index)))
        if packets[-1].is_keyframe:
            keyframes.append(index)
    assert keyframes == [0, 120]
    assert bits_per_second(packets[180:]) < 450_000


def test_nvenc_is_used_exactly_where_it_opens() -> None:
    probe = av.CodecContext.create("h264_nvenc", "w")
    probe.width, probe.height, probe.pix_fmt, probe.framerate = 256, 256, "yuv420p", 30
    try:
        probe.open()
    except av.FFmpegError:
        expected = "libx264"
    else:
        expected = "h264_nvenc"
    assert PictureEncoder(256, 256, FPS).name == expected
    assert PictureEncoder(256, 256, FPS, hardware=False).name == "libx264"


def test_an_encoder_that_fails_midway_is_followed_by_the_next() -> None:
    encoder = PictureEncoder(128, 128, FPS, hardware=False)
    encoder._names = ["libx264", "libopenh264", "libx264"]  # whatever fails first, one that opens comes after it
    for index in range(3):
        encoder.encode(frame_of(moving_picture(index, 128, 128), index))
    encoder._context.encode(None)  # an encoder that was ended takes no picture: what a lost card looks like
    packet = encoder.encode(frame_of(moving_picture(3, 128, 128), 3))
    assert packet.is_keyframe
    encoder._names = [encoder.name]
    encoder._context.encode(None)
    with pytest.raises(BackendError, match="failed while encoding"):
        encoder.encode(frame_of(moving_picture(4, 128, 128), 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((255, 256, FPS), "255x256"), ((8, 256, FPS), "8x256"), ((64, 64, 0.0), "fps is 0"), ((64, 64, 999.0), "fps")],
)
def test_impossible_encoders_say_why(arguments: tuple[int, int, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        PictureEncoder(*arguments)


def test_a_bitrate_above_the_ceiling_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="bitrate is 7000000"):
        PictureEncoder(64, 64, FPS, bitrate_bps=CEILING_BPS + 1_000_000)


async def encode_some(encoder: EncoderThread, pictures: list[np.ndarray], gap_s: float = 0.03) -> list[EncodedFrame]:
    frames: list[EncodedFrame] = []
    running = asyncio.create_task(encoder.run(frames.append))
    for index, picture in enumerate(pictures):
        encoder.submit(picture, index * TICKS, stamp=float(index))
        await asyncio.sleep(gap_s)
    async with asyncio.timeout(5):
        while not frames or frames[-1].stamp != len(pictures) - 1:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await no_tasks_left()
    return frames


def encoder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("encode-")]


def test_thread_encodes_what_is_submitted_and_goes_when_cancelled() -> None:
    frames = asyncio.run(encode_some(EncoderThread(128, 128, FPS), [moving_picture(i, 128, 128) for i in range(5)]))
    assert frames[0].keyframe
    assert [frame.stamp for frame in frames] == sorted(frame.stamp for frame in frames)
    assert frames[-1].packet.pts == 4 * TICKS
    assert all(frame.encode_ms > 0 for frame in frames)
    assert encoder_threads() == []


def test_of_waiting_pictures_only_the_newest_is_encoded() -> None:
    encoder = EncoderThread(128, 128, FPS)
    for index in range(6):
        encoder.submit(moving_picture(index, 128, 128), index * TICKS, stamp=float(index))

    async def main() -> list[EncodedFrame]:
        frames: list[EncodedFrame] = []
        running = asyncio.create_task(encoder.run(frames.append))
        async with asyncio.timeout(5):
            while not frames:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return frames

    assert [frame.stamp for frame in asyncio.run(main())] == [5.0]
    assert encoder.replaced == 5


def test_the_submitted_array_may_be_drawn_into_at_once() -> None:
    encoder, picture = EncoderThread(128, 128, FPS), moving_picture(0, 128, 128)
    kept = picture.copy()
    encoder.submit(picture, 0, stamp=0.0)
    picture[:] = 0
    frames: list[EncodedFrame] = []

    async def main() -> None:
        running = asyncio.create_task(encoder.run(frames.append))
        async with asyncio.timeout(5):
            while not frames:
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    (decoded,) = av.CodecContext.create("h264", "r").decode(av.Packet(bytes(frames[0].packet)))
    assert psnr(decoded, kept) > 32


def test_a_clock_that_jumps_back_loses_pictures_and_nothing_else() -> None:
    encoder = EncoderThread(128, 128, FPS)
    encoder.submit(moving_picture(0, 128, 128), 9000, stamp=0.0)
    encoder.submit(moving_picture(1, 128, 128), 9000, stamp=1.0)
    encoder.submit(moving_picture(2, 128, 128), 3, stamp=2.0)
    assert encoder.stale == 2
    encoder.submit(moving_picture(3, 128, 128), 12000, stamp=3.0)
    assert encoder.stale == 2


def test_pictures_of_another_size_are_scaled() -> None:
    frames = asyncio.run(encode_some(EncoderThread(128, 64, FPS), [moving_picture(0, 256, 128)]))
    (decoded,) = av.CodecContext.create("h264", "r").decode(av.Packet(bytes(frames[0].packet)))
    assert (decoded.width, decoded.height) == (128, 64)
    assert frames[0].packet.pts == 0


def test_keyframe_requests_from_many_make_one_keyframe() -> None:
    encoder = EncoderThread(128, 128, FPS)

    async def main() -> list[EncodedFrame]:
        frames: list[EncodedFrame] = []
        running = asyncio.create_task(encoder.run(frames.append))
        for index in range(10):
            if index == 4:
                for _ in range(20):
                    encoder.request_keyframe()
            encoder.submit(moving_picture(index, 128, 128), index * TICKS, stamp=float(index))
            async with asyncio.timeout(5):
                while not frames or frames[-1].stamp != index:
                    await asyncio.sleep(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return frames

    assert [frame.stamp for frame in asyncio.run(main()) if frame.keyframe] == [0.0, 4.0]


@pytest.mark.parametrize(
    "picture", [np.zeros((90, 60), np.float32), np.zeros((91, 60), np.uint8), np.zeros((63, 42, 3), np.uint8)]
)
def test_what_is_no_i420_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="expected I420"):
        EncoderThread(64, 64, FPS).submit(picture, 0, stamp=0.0)


def test_a_failing_encoder_ends_run_with_its_reason() -> None:
    async def main() -> None:
        encoder = EncoderThread(63, 64, FPS)
        encoder.submit(moving_picture(0, 64, 64), 0, stamp=0.0)
        with pytest.raises(InvalidInputError, match="63x64"):
            await asyncio.wait_for(encoder.run(lambda _: None), 5)

    asyncio.run(main())
    assert encoder_threads() == []
