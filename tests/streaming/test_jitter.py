import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.jitter import MOST_HELD, JitterBuffer


def play(buffer: JitterBuffer[int], arrivals: list[tuple[float, float]]) -> list[tuple[float, int]]:
    """(time, item) of everything given out, looking whenever something is due."""
    out: list[tuple[float, int]] = []
    for item, (captured_s, arrived_s) in enumerate(arrivals):
        while (due_s := buffer.next_s()) is not None and due_s <= arrived_s:
            taken = buffer.take(due_s)
            assert taken is not None
            out.append((due_s, taken))
        buffer.put(item, captured_s, arrived_s)
    while (due_s := buffer.next_s()) is not None:
        taken = buffer.take(due_s)
        assert taken is not None
        out.append((due_s, taken))
    return out


@given(st.lists(st.floats(0, 0.09), min_size=2, max_size=50), st.floats(-1e6, 1e6))
def test_delays_within_the_buffer_disappear(delays: list[float], clock_s: float) -> None:
    captured = [i / 50 for i in range(len(delays) + 1)]
    arrived = np.maximum.accumulate([at + delay for at, delay in zip(captured, [0.0, *delays], strict=True)]).tolist()
    out = play(JitterBuffer(0.1), [(at + clock_s, there) for at, there in zip(captured, arrived, strict=True)])
    assert [item for _, item in out] == [*range(len(captured))]
    np.testing.assert_allclose([at for at, _ in out], np.array(captured) + 0.1, atol=1e-6)


def test_what_is_later_than_the_buffer_comes_at_once() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(0.1)
    buffer.put(0, 0.0, 0.0)
    buffer.put(1, 0.02, 0.5)
    assert buffer.take(0.5) == 1
    assert buffer.next_s() is None


def test_what_was_overtaken_is_left_out() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(0.1)
    for captured_s in (0.0, 0.04, 0.02, 0.04):
        buffer.put(round(100 * captured_s), captured_s, captured_s)
    assert [item for _, item in play(buffer, [])] == [0, 4]


def test_a_sender_that_starts_again_is_believed() -> None:
    buffer: JitterBuffer[str] = JitterBuffer(0.1)
    buffer.put("old", 5000.0, 10.0)
    buffer.put("new", 3.0, 10.02)
    assert buffer.take(10.11) is None
    assert buffer.take(10.12) == "new"


def test_clocks_may_drift() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(0.1)
    for i in range(3000):  # their clock loses 1 ms a second
        buffer.put(i, i / 50, i / 50 * 1.001)
    due_s = buffer.next_s()
    assert due_s is not None
    assert buffer.take(60 * 1.001 + 0.1) == 2999


def test_it_does_not_grow() -> None:
    buffer: JitterBuffer[int] = JitterBuffer(1.0)
    for i in range(10_000):
        buffer.put(i, i * 1e-4, 0.0)
    assert len(play(buffer, [])) <= MOST_HELD
