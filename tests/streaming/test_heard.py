import asyncio
from contextlib import suppress

import pytest

from streaming import heard
from streaming.heard import Heard


def test_a_rate_is_told_when_it_becomes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heard, "_LOOK_S", 0.1)

    async def main() -> list[float]:
        meter = Heard()
        told: list[float] = []
        watching = asyncio.create_task(meter.watch(lambda: told.append(meter.rate_hz)))
        for samples in (5, 5, 5, 0, 0):
            for _ in range(samples):
                meter.count()
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.15)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        return told

    told = asyncio.run(main())
    assert told[0] > 0
    assert told[-1] == 0
    assert len([rate for rate in told if rate == 0]) == 1


def test_another_driver_begins_unheard() -> None:
    meter = Heard()
    meter.rate_hz = 60.0
    meter.count()
    meter.forget()
    assert meter.rate_hz == 0
