"""The teacher is asked about the examples that steps read, whichever table they stand in."""

from types import SimpleNamespace

import numpy as np

from distill_jax.tasks.classification.asked import rows_asked


def splits_of(ids):
    return SimpleNamespace(
        everything=type("Table", (), {"ids": ids, "__len__": lambda s: len(ids)})()
    )


def pupil(ids, batches, steps, *, placebo=False, needs_teacher=True):
    feed = SimpleNamespace(
        steps_per_epoch=10,
        planned=lambda epoch: [SimpleNamespace(rows=np.asarray(rows)) for rows in batches],
    )
    work = SimpleNamespace(
        objective=SimpleNamespace(needs_teacher=needs_teacher),
        steps=steps,
        feed=lambda teacher: feed,
    )
    setup = SimpleNamespace(placebo=placebo)
    return SimpleNamespace(splits=splits_of(ids), works=[work], cell=SimpleNamespace(setup=setup))


def test_rows_of_all_pupils_are_asked_about_by_their_ids():
    wide = tuple(f"e{n}" for n in range(20))
    narrow = tuple(f"e{n}" for n in (7, 3, 19, 11))
    wider = splits_of(wide)
    own = pupil(wide, [[5, 1], [2], [9]], 2)
    other = pupil(narrow, [[2, 0], [1]], 1)
    deaf = pupil(wide, [[14]], 1, needs_teacher=False)
    assert rows_asked([own, other, deaf], wider).tolist() == [1, 2, 5, 7, 19]
    assert rows_asked([pupil(narrow, [], 10)], wider).tolist() == [3, 7, 11, 19]
    assert rows_asked([pupil(narrow, [[0]], 1, placebo=True)], wider).tolist() == [3, 7, 11, 19]
    assert rows_asked([pupil(wide, [], 10)], wider) is None
    assert rows_asked([deaf], wider).tolist() == []
