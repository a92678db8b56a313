"""The fuzzer itself: its seeds are what it takes them for, and a few seconds of damage find nothing."""

from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def fuzzer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import fuzz_protocol  # noqa: PLC0415 - not a package

    return fuzz_protocol


def test_every_parser_has_a_seed_that_it_takes(fuzzer: ModuleType) -> None:
    taken = {fuzzer.PARSERS[seed[0]].__name__: seed[1:] for seed in fuzzer.seeds()}
    assert len(taken) == len(fuzzer.PARSERS)
    assert fuzzer.decode_packet(taken["try_osc"])
    assert fuzzer.read_face(taken["try_face"], 1.0).names
    assert fuzzer.read_meta(taken["try_meta"]).neutral is not None
    assert len(fuzzer.parse_take(taken["try_take"]).scenes) == 2


def test_damage_finds_nothing(fuzzer: ModuleType) -> None:
    assert fuzzer.fuzz_by_chance(4.0) > 50


def test_it_would_find_something(fuzzer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: bytes) -> None:
        raise IndexError

    monkeypatch.setattr(fuzzer, "try_take", fail)
    monkeypatch.setattr(fuzzer, "PARSERS", (*fuzzer.PARSERS[:-1], fail))
    take = fuzzer.seeds()[-1]
    monkeypatch.setattr(fuzzer, "seeds", lambda: [take])
    with pytest.raises(IndexError):
        fuzzer.fuzz_by_chance(60.0)
