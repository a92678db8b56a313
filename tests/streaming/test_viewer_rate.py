import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.viewer_rate import HEADROOM, ViewerRate


def test_a_higher_estimate_raises_and_a_lower_one_lowers_at_once() -> None:
    rate = ViewerRate(800_000)
    rate.on_estimate(2_000_000, 800_000, 800_000, 0.0)
    assert rate.bps == pytest.approx(HEADROOM * 2_000_000)
    rate.on_estimate(900_000, 1_700_000, 1_700_000, 1.0)
    assert rate.bps == pytest.approx(HEADROOM * 900_000)


def test_a_low_estimate_of_an_easy_picture_is_no_congestion() -> None:
    rate = ViewerRate(800_000)
    for second in range(10):
        rate.on_estimate(370_000, 240_000, 800_000, float(second))
    assert rate.bps >= 800_000
    assert rate.bps <= 3 * 370_000


def test_the_same_estimate_is_congestion_where_it_is_all_that_was_sent() -> None:
    rate = ViewerRate(800_000)
    rate.on_estimate(370_000, 360_000, 800_000, 0.0)
    assert rate.bps == pytest.approx(HEADROOM * 370_000)


def test_after_congestion_an_easy_picture_creeps_back_up() -> None:
    rate = ViewerRate(250_000)
    for second in range(30):
        rate.on_estimate(150_000, 90_000, 300_000, float(second))
    assert rate.bps > 600_000


def test_one_low_report_does_not_hold_the_rate_down_for_good() -> None:
    rate = ViewerRate(1_000_000)
    rate.on_estimate(266_000, 260_000, 300_000, 0.0)
    assert rate.bps == pytest.approx(HEADROOM * 266_000)
    for second in range(1, 30):
        rate.on_estimate(266_000, 90_000, 300_000, float(second))
    assert rate.bps > 600_000


def test_heavy_loss_halves_and_light_loss_recovers() -> None:
    rate = ViewerRate(1_000_000)
    rate.on_loss(0.5)
    assert rate.bps == pytest.approx(750_000)
    rate.on_loss(0.05)
    assert rate.bps == pytest.approx(750_000)
    for _ in range(10):
        rate.on_loss(0.0)
    assert rate.bps == pytest.approx(1_000_000)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e9),
            st.floats(0, 1e8),
            st.floats(1e5, 6e6),
            st.floats(0, 1e4),
            st.floats(0, 1),
        ),
        max_size=30,
    )
)
def test_no_report_makes_the_rate_negative_or_endless(reports: list[tuple[float, float, float, float, float]]) -> None:
    rate = ViewerRate(800_000)
    for estimate, sent, target, now, loss in reports:
        rate.on_estimate(estimate, sent, target, now)
        rate.on_loss(loss)
        assert 0 <= rate.bps <= 1e9
