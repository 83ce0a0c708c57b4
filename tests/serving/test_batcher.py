"""Batches of several callers: who waits, how long, and who gets what."""

import asyncio
import threading

import pytest

from distill_jax.serving.batcher import Batcher, QueueFull, Stopped


def run(conversation, compute, *, most=4, wait=0.02, room=16):
    """``await conversation(batcher)`` while it runs, and the batches that it computed."""
    batches = []

    def kept(items):
        batches.append(list(items))
        return compute(items)

    async def both():
        batcher = Batcher(kept, most=most, wait=wait, room=room)
        runner = asyncio.create_task(batcher.run())
        try:
            return await conversation(batcher)
        finally:
            batcher.close()
            await asyncio.wait_for(runner, 10)

    return asyncio.run(both()), batches


def doubled(items):
    return [2 * item for item in items]


def test_callers_share_batches_and_get_their_own():
    async def callers(batcher):
        return await asyncio.gather(*(batcher.submit([n, 10 + n]) for n in range(3)))

    answers, batches = run(callers, doubled)
    assert answers == [[2 * n, 20 + 2 * n] for n in range(3)]
    assert batches == [[0, 10, 1, 11], [2, 12]]


def test_a_full_batch_does_not_wait_and_one_alone_waits_no_longer_than_it_must():
    async def timed(batcher):
        loop = asyncio.get_running_loop()
        start = loop.time()
        await batcher.submit(list(range(4)))
        full = loop.time() - start
        await batcher.submit([1])
        return full, loop.time() - start - full

    (full, alone), _ = run(timed, doubled, wait=0.5)
    assert full < 0.4 <= 0.49 < alone < 5


def test_the_queue_is_bounded_and_takes_all_of_a_request_or_none():
    started, release = threading.Event(), threading.Event()

    def slow(items):
        started.set()
        release.wait(10)
        return items

    async def crowd(batcher):
        first = asyncio.create_task(batcher.submit([0]))
        await asyncio.to_thread(started.wait, 10)
        waiting = asyncio.create_task(batcher.submit([1, 2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            await batcher.submit([4, 5])
        assert full.value.seconds >= 1 and len(batcher) == 3
        last = asyncio.create_task(batcher.submit([6]))
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(first, waiting, last)

    answers, batches = run(crowd, slow, most=1, wait=0.0, room=4)
    assert answers == [[0], [1, 2, 3], [6]]
    assert batches == [[0], [1], [2], [3], [6]]


def test_what_fails_in_one_item_fails_for_its_caller_alone():
    def picky(items):
        if 13 in items:
            raise ValueError("thirteen")
        return doubled(items)

    async def callers(batcher):
        requests = (batcher.submit(items) for items in ([1, 2], [13], [3]))
        return await asyncio.gather(*requests, return_exceptions=True)

    (first, unlucky, third), batches = run(callers, picky)
    assert (first, third) == ([2, 4], [6]) and isinstance(unlucky, ValueError)
    assert batches == [[1, 2, 13, 3], [1], [2], [13], [3]]


def test_what_nobody_waits_for_any_more_is_not_computed():
    async def left(batcher):
        gone = asyncio.create_task(batcher.submit([1, 2]))
        await asyncio.sleep(0)
        gone.cancel()
        return await batcher.submit([3])

    answer, batches = run(left, doubled)
    assert answer == [6] and batches == [[3]]


def test_closing_answers_what_was_taken_and_takes_no_more():
    async def closing(batcher):
        taken = asyncio.create_task(batcher.submit(list(range(6))))
        await asyncio.sleep(0)
        batcher.close()
        with pytest.raises(Stopped):
            await batcher.submit([7])
        return await taken

    answer, batches = run(closing, doubled, wait=60)
    assert answer == doubled(range(6)) and batches == [[0, 1, 2, 3], [4, 5]]


def test_nothing_asked_is_nothing_computed():
    answer, batches = run(lambda batcher: batcher.submit([]), doubled)
    assert answer == [] and batches == []
