"""A stream of any length: few windows held, few shapes compiled, the answers of each text alone."""

import itertools

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation import open_classifier as opening
from distill_jax.evaluation import stream as streaming
from distill_jax.evaluation.open_classifier import Stream, open_classifier, softmax
from distill_jax.evaluation.predict import logits_of, predict_logits
from distill_jax.evaluation.stream import Compiled, WindowPredictor, ahead, windows_of

TEXTS = ["the film is good", "bad", "", "the plot and the cast and the music", "very good", " "]


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(opening, "WINDOW", 4)


def test_answers_do_not_hang_on_the_windows(toy_teacher, small_windows):
    """Against each text alone, in batches as they were before there were windows."""
    opened = open_classifier(toy_teacher)
    texts = [*TEXTS * 3, "film"]
    alone = [opened.classify([text], batch_size=1)[0] for text in texts]
    for batch_size in (None, 3):
        answers = opened.classify(texts, batch_size=batch_size)
        assert [a and a.label for a in answers] == [a and a.label for a in alone]
        for one, other in zip(answers, alone, strict=True):
            if one is not None:
                np.testing.assert_allclose(
                    list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-6
                )


def test_a_few_windows_are_held_however_long_the_stream(toy_teacher, small_windows):
    taken = answered = most = finished = 0

    def endless():
        nonlocal taken
        for text in itertools.cycle(["good", "the film", "bad"]):
            taken += 1
            yield text

    def on_rows(rows):
        nonlocal finished
        finished += rows

    stream = Stream(open_classifier(toy_teacher), pairs=False, on_rows=on_rows)
    for items, answers in stream.answers(endless(), lambda text: [text]):
        assert len(items) == len(answers) == 4
        most = max(most, taken - answered)
        answered += len(items)
        if answered == 80:
            break
    assert most <= 4 * 4
    assert 80 <= finished <= 80 + 2 * 4


def test_a_text_that_fails_is_told_from_the_thread(toy_teacher, small_windows):
    stream = Stream(open_classifier(toy_teacher), pairs=False)
    texts = ["good"] * 9 + ["\ud800"]
    with pytest.raises(UserError, match="the tokeniser fails on the texts"):
        list(stream.answers(texts, lambda text: [text]))


def table_of(lengths):
    tokens_S = np.arange(sum(lengths), dtype=np.int32) % 20
    return TokenTable(
        ids=tuple(map(str, range(len(lengths)))),
        tokens_S=tokens_S,
        token_types_S=np.zeros(len(tokens_S), np.int8),
        offsets_N1=np.append(0, np.cumsum(lengths)).astype(np.int64),
        labels_N=np.full(len(lengths), -1, np.int32),
    )


def test_shapes_are_compiled_when_they_pay_and_serve_later_windows(teacher, monkeypatch):
    model, params = teacher
    apply, shapes = logits_of(model), []

    def counted(params, batch):
        shapes.append(batch.input_ids_BT.shape)
        return apply(params, batch)

    monkeypatch.setattr(streaming, "COMPILING", 400 * 12**2)  # 400 tokens
    predict = WindowPredictor(Compiled(counted, params, width=12), longest=16)
    few, many = table_of([3, 5, 9]), table_of([*[5] * 200, *[12] * 3])
    for table, known in ((few, (16,)), (many, (8, 16)), (few, (8, 16))):
        expected = predict_logits(
            logits_of(model), params, table, shape_lengths=(16,), batch_size=8
        )
        np.testing.assert_allclose(predict(table), expected, rtol=1e-5, atol=1e-6)
        assert predict.shape_lengths == known
    assert {length for _, length in shapes} == {8, 16}
    assert len(set(shapes)) == 2
    assert all(rows * length <= streaming.CPU_TOKENS for rows, length in shapes)
    monkeypatch.setattr(streaming, "COMPILING", 4000 * 12**2)
    for windows, known in ((1.0, (16,)), (10.0, (8, 16))):  # which share the price
        predict = WindowPredictor(Compiled(apply, params, width=12), longest=16, windows=windows)
        predict(many)
        assert predict.shape_lengths == known


def test_ahead_gives_the_items_and_their_error_in_their_places():
    def items():
        yield from range(5)
        raise UserError("here")

    got = []
    with pytest.raises(UserError, match="here"):
        for item in ahead(items()):
            got.append(item)
    assert got == list(range(5))
    assert list(ahead(iter(()))) == []
    assert list(windows_of(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_softmax_of_extremes():
    logits_NC = np.array([[1e4, -1e4], [0, 0], [-1e38, 1e38]], np.float32)
    np.testing.assert_array_equal(softmax(logits_NC), [[1, 0], [0.5, 0.5], [0, 1]])
