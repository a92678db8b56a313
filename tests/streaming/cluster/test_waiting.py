import asyncio
import threading

import pytest

from streaming.cluster import waiting
from streaming.errors import RefusedError


def test_a_question_that_is_stuck_holds_one_thread_however_often_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "STUCK_S", 0.05)
    answered, asked = threading.Event(), []

    def ask(what: str) -> str:
        asked.append(what)
        assert answered.wait(20)
        if what == "broken":
            raise OSError(what)
        return what

    async def main() -> None:
        for _ in range(3):
            for what in ("a", "b", "broken"):
                with pytest.raises(RefusedError, match="does not answer") as refused:
                    await waiting.in_time(ask, what)
                assert (refused.value.status, refused.value.code) == (503, "no_storage")
                assert refused.value.retry_after_s
        assert sorted(asked) == ["a", "b", "broken"]
        answered.set()
        monkeypatch.setattr(waiting, "STUCK_S", 20.0)
        assert [await waiting.in_time(ask, what) for what in ("a", "b")] == ["a", "b"]
        with pytest.raises(RefusedError, match="broken"):
            await waiting.in_time(ask, "broken")
        assert await waiting.in_time(ask, "c") == "c"

    asyncio.run(main())
