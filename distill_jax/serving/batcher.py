"""Items of many callers, answered in batches: asyncio only, nothing of HTTP or of models."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_NEWEST = 0.2
"""Weight of the newest batch in the rate that tells callers when to come again."""


class QueueFull(Exception):
    """More is waiting than there is room for.

    Attributes:
      seconds: after which there should be room.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full; try again in {seconds} s")
        self.seconds = seconds


class Stopped(Exception):
    """Nothing is taken any more."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    since: float
    answer: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Gathers items until a batch is full or its oldest has waited long enough.

    One batch is computed at a time, in a thread, while the next one gathers. Where a batch fails,
    its items are computed one by one: nobody's item spoils another's answer.

    Args:
      compute: the results of some items, in their order; called in one thread.
      most: items of a batch.
      wait: seconds that an item may wait for company.
      room: items that may wait.
      on_batch: called with the size of every batch before it is computed.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result]],
        *,
        most: int,
        wait: float,
        room: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._most, self._wait, self._room = compute, most, wait, room
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._seconds_per_item = 0.0

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._queue)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """The results of some items, in their order.

        Raises:
          QueueFull: where there is no room for all of them; none is taken then.
          Stopped: after ``close``.
          Exception: what computing one of them raised.
        """
        if self._closing:
            raise Stopped
        if len(self._queue) + len(items) > self._room:
            raise QueueFull(max(1, math.ceil(len(self._queue) * self._seconds_per_item)))
        loop = asyncio.get_running_loop()
        now = loop.time()
        answers: list[asyncio.Future[Result]] = [loop.create_future() for _ in items]
        self._queue.extend(map(_Waiting, items, [now] * len(items), answers))
        self._changed.set()
        try:
            return list(await asyncio.gather(*answers))
        finally:
            for answer in answers:  # what nobody waits for any more is not computed
                answer.cancel()

    async def run(self) -> None:
        """Compute batches until it is closed and the last item is answered."""
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while batch := await self._next_batch():
                self._on_batch(len(batch))
                loop = asyncio.get_running_loop()
                start = loop.time()
                await self._answer(batch, thread)
                rate = (loop.time() - start) / len(batch)
                old = self._seconds_per_item or rate
                self._seconds_per_item = old + _NEWEST * (rate - old)

    def close(self) -> None:
        """Take nothing more; ``run`` ends when what was taken is answered."""
        self._closing = True
        self._changed.set()

    async def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """The oldest items, as soon as they are due; none where it is closed."""
        batch: list[_Waiting[Item, Result]] = []
        while not batch:
            while not self._queue:
                if self._closing:
                    return []
                await self._change()
            due = self._queue[0].since + self._wait
            while len(self._queue) < self._most and not self._closing:
                left = due - asyncio.get_running_loop().time()
                if left <= 0 or not await self._change(left):
                    break
            while self._queue and len(batch) < self._most:
                waiting = self._queue.popleft()
                if not waiting.answer.done():
                    batch.append(waiting)
        return batch

    async def _change(self, seconds: float | None = None) -> bool:
        """Wait until something arrives or it is closed; False where the time is up before."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _answer(
        self, batch: list[_Waiting[Item, Result]], thread: ThreadPoolExecutor
    ) -> None:
        items = [waiting.item for waiting in batch]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(thread, self._compute, items)
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._answer([waiting], thread)
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(result)
