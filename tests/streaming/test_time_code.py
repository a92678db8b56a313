import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.errors import InvalidInputError
from streaming.time_code import (
    PERIOD_MS,
    TimeCode,
    draw_time_code,
    elapsed_ms,
    pack_time_code,
    read_time_code,
    unpack_time_code,
)

WHEN = 1_790_000_000_125.0


def picture(width: int, height: int) -> np.ndarray:
    """I420 noise: the worst neighbour a code can have."""
    return np.random.default_rng(5).integers(0, 256, (height * 3 // 2, width), np.uint8)


class TestBits:
    def test_as_the_web_client_reads_them(self) -> None:
        # the same numbers stand in clients/web/tests/probe.test.ts
        assert pack_time_code(WHEN, WHEN - 42) == 0xC5E857CB
        assert pack_time_code(WHEN, None) == 0x8FFFD7CB
        assert unpack_time_code(0xC5E857CB) == TimeCode(6091, 6049)

    @given(st.floats(0, 4e12), st.none() | st.floats(0, 4e12))
    def test_round_trip(self, drawn_ms: float, captured_ms: float | None) -> None:
        code = unpack_time_code(pack_time_code(drawn_ms, captured_ms))
        assert code is not None
        assert code.drawn_ms == int(drawn_ms % PERIOD_MS)
        assert code.captured_ms == (None if captured_ms is None else int(captured_ms % PERIOD_MS))

    def test_just_before_the_epoch(self) -> None:
        assert unpack_time_code(pack_time_code(-1e-17, -1e-17)) == TimeCode(0, 0)

    @given(st.integers(0, 27), st.floats(0, 4e12))
    def test_one_wrong_bit_is_noticed(self, bit: int, drawn_ms: float) -> None:
        assert unpack_time_code(pack_time_code(drawn_ms, drawn_ms) ^ 1 << bit) is None

    def test_neither_black_nor_white_is_a_code(self) -> None:
        assert unpack_time_code(0) is None
        assert unpack_time_code(2**32 - 1) is None

    @given(st.floats(0, 4e12), st.floats(-1000, 12_000))
    def test_elapsed(self, then_ms: float, age_ms: float) -> None:
        stamp = int(then_ms % PERIOD_MS)
        assert elapsed_ms(then_ms + age_ms, stamp) == pytest.approx(age_ms, abs=1.01)


class TestPicture:
    @pytest.mark.parametrize("codec", ["libx264", "libvpx"])
    def test_survives_the_codec(self, codec: str) -> None:
        frame = picture(256, 256)
        frame[20:] = 90  # as much noise as a corner can have beside it, and a flat rest
        draw_time_code(frame, pack_time_code(WHEN, WHEN - 42))
        out = io.BytesIO()
        with av.open(out, "w", format="matroska") as container:
            stream = container.add_stream(codec, 30)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 256, "yuv420p", 500_000
            for packet in [*stream.encode(av.VideoFrame.from_ndarray(frame, format="yuv420p")), *stream.encode(None)]:
                container.mux(packet)
        out.seek(0)
        with av.open(out) as container:
            decoded = next(container.decode(video=0)).to_ndarray(format="yuv420p")
        assert read_time_code(decoded[:256]) == TimeCode(6091, 6049)

    def test_changes_its_corner_only(self) -> None:
        frame = picture(160, 120)
        before = frame.copy()
        draw_time_code(frame, pack_time_code(WHEN, None))
        changed = np.argwhere(frame[:120] != before[:120])
        assert changed.max(0).tolist() <= [7, 127]
        chroma, chroma_before = (planes[120:].reshape(2, 60, 80) for planes in (frame, before))
        np.testing.assert_array_equal(chroma[:, :4, :64], 128)
        np.testing.assert_array_equal(chroma[:, 4:], chroma_before[:, 4:])
        np.testing.assert_array_equal(chroma[:, :, 64:], chroma_before[:, :, 64:])

    def test_nothing_to_read(self) -> None:
        assert read_time_code(picture(160, 120)[:120]) is None
        assert read_time_code(np.zeros((8, 64), np.uint8)) is None

    def test_too_small(self) -> None:
        with pytest.raises(InvalidInputError, match="needs 128x8 pixels, the picture has 96x96"):
            draw_time_code(picture(96, 96), 0)
