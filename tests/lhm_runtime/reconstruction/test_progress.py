"""One share of the whole, whatever the parts."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhm_runtime.reconstruction.progress import split


def test_parts_are_shares_of_the_whole() -> None:
    told: list[tuple[str, float]] = []
    first, second = split(lambda stage, done: told.append((stage, done)), [1.0, 3.0])
    first("a", 0.0)
    first("a", 0.5)
    second("b", 0.0)
    second("b", 1.0)
    assert told == [("a", 0.0), ("a", 0.125), ("b", 0.25), ("b", 1.0)]


def test_parts_have_parts() -> None:
    told: list[float] = []
    _, outer = split(lambda _, done: told.append(done), [1.0, 1.0])
    _, inner = split(outer, [1.0, 1.0])
    inner("deep", 0.5)
    assert told == [0.875]


@given(
    st.lists(st.floats(0.0, 9.0), min_size=1, max_size=6).filter(lambda seconds: sum(seconds) > 0.1),
    st.lists(st.floats(-1.0, 2.0), min_size=2, max_size=4).map(sorted),
)
def test_it_never_falls_and_stays_within_bounds(seconds: list[float], done: list[float]) -> None:
    told: list[float] = []
    for part in split(lambda _, share: told.append(share), seconds):
        for share in done:
            part("", share)
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(told))
    assert min(told) >= 0
    assert max(told) <= 1 + 1e-12


def test_nobody_need_listen() -> None:
    (part,) = split(None, [2.0])
    part("", 0.5)


def test_the_last_part_ends_at_one() -> None:
    told: list[float] = []
    for part in split(lambda _, share: told.append(share), [0.1, 0.2, 0.7]):
        part("", 1.0)
    assert told[-1] == pytest.approx(1.0)
