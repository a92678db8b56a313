import pytest

from streaming.protocol import Allowance


@pytest.mark.parametrize(("rate_hz", "passed"), [(60, 600), (240, 2400), (1000, 2460)])
def test_ten_seconds_at_a_rate(rate_hz: int, passed: int) -> None:
    allowance = Allowance(240.0, burst=60)
    assert sum(allowance.take(100.0 + i / rate_hz) for i in range(10 * rate_hz)) == pytest.approx(passed, abs=2)


def test_a_burst_passes_and_is_paid_for() -> None:
    allowance = Allowance(10.0, burst=5)
    assert [allowance.take(0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not allowance.take(0.05)
    assert allowance.take(0.11)
    assert not allowance.take(0.12)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance(10.0, burst=1)
    assert allowance.take(10.0)
    assert not allowance.take(0.0)
    assert not allowance.take(0.05)
    assert allowance.take(0.15)
