"""Pages of one Chromium that watch sessions, and what their viewers saw: for benchmarks and tests.

Each picture's display is noted as the browser says it (requestVideoFrameCallback), by the machine's clock. Twenty times
a second the video element is drawn into a canvas: where it has nothing to show that stays empty.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from lhm_runtime.errors import BackendError
from streaming.bench.chromium import Page, open_page

_WATCH: Final = """
window.seen = { pictures: [], looks: [] }
addEventListener('DOMContentLoaded', () => {
  const video = document.querySelector('video')
  if (!video) return
  const note = () => {
    seen.pictures.push(Date.now() / 1e3)
    video.requestVideoFrameCallback(note)
  }
  video.requestVideoFrameCallback(note)
  const canvas = document.createElement('canvas')
  canvas.width = canvas.height = 8
  const pen = canvas.getContext('2d', { willReadFrequently: true })
  setInterval(() => {
    pen.clearRect(0, 0, 8, 8)
    pen.drawImage(video, 0, 0, 8, 8)
    const black = pen.getImageData(0, 0, 8, 8).data.every((value, i) => i % 4 === 3 || value < 24)
    seen.looks.push([Date.now() / 1e3, black])
  }, 50)
})
"""
"""Black is also nothing; a session's background is to be brighter."""


@dataclass(frozen=True, slots=True)
class Break:
    """The longest time without a new picture, by time.time()."""

    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it was."""
        return self.end_s - self.begin_s


class ViewerPage:
    """One page that watches."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def watch(self, url: str, limit_s: float = 30.0) -> None:
        """Go to ``url``, and wait for a picture."""
        await self.page.go(url)
        await self.page.wait_for("window.seen?.pictures.length > 5", limit_s)

    async def wait_for_picture(self, since_s: float, limit_s: float) -> None:
        """Wait until a picture was displayed after ``since_s``; raises BackendError where that takes too long."""
        await self.page.wait_for(f"window.seen?.pictures.at(-1) > {since_s}", limit_s)

    async def longest_break(self, since_s: float) -> Break:
        """From the last picture before ``since_s`` on."""
        times: list[float] = await self.page.evaluate("seen.pictures")
        before = [at for at in times if at <= since_s]
        return find_longest_break([*before[-1:], *(at for at in times if at > since_s)])

    async def longest_black_s(self, since_s: float) -> float:
        """How long the picture was black, or there was none."""
        looks: list[tuple[float, bool]] = await self.page.evaluate("seen.looks")
        return measure_black([(at, black) for at, black in looks if at >= since_s])


def find_longest_break(times: list[float]) -> Break:
    """Between two pictures.

    Raises:
        BackendError: there are not two.
    """
    if len(times) < 2:
        raise BackendError(f"{len(times)} pictures were seen: no break can be measured")
    return max((Break(*pair) for pair in pairwise(times)), key=lambda found: found.length_s)


def measure_black(looks: list[tuple[float, bool]]) -> float:
    """The longest time from a black look to the next one that is not, or to the last."""
    longest, began = 0.0, None
    for at, black in looks:
        if began is not None:
            longest = max(longest, at - began)
        began = (at if began is None else began) if black else None
    return longest


@asynccontextmanager
async def open_viewers(count: int) -> AsyncIterator[list[ViewerPage]]:
    """So many empty pages, each in a window of its own, of which none sleeps; raises BackendError."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_page("about:blank", first=_WATCH))
        pages = [first]
        for _ in range(count - 1):
            page = await stack.enter_async_context(first.open_window())
            await page.prepare(_WATCH)
            pages.append(page)
        yield [ViewerPage(page) for page in pages]


async def wait_for_all(viewers: list[ViewerPage], limit_s: float) -> None:
    """Wait until each has a picture that is newer than this call; raises BackendError."""
    now = time.time()
    await asyncio.gather(*(viewer.wait_for_picture(now, limit_s) for viewer in viewers))
