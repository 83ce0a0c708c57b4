"""Whatever is sent to a server, it answers or says what is wrong; it never fails."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import ask, small_export

from distill_jax.serving.app import create_app

FIELDS = st.sampled_from(["text", "texts", "text_b", "texts_b", "raw", "other"])
WORDS = st.text(max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | WORDS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "pairs"])
def answer(request, toy_teacher):
    def go(body):
        export = small_export(toy_teacher / "tokenizer.json", pairs=request.param)
        return ask(create_app(export), body)

    return go


@given(body=st.binary(max_size=200))
def test_bytes(answer, body):
    assert answer(body).status_code in (200, 422)


@given(body=st.dictionaries(FIELDS, VALUES, max_size=4) | VALUES)
def test_json(answer, body):
    response = answer(json.dumps(body))
    assert response.status_code in (200, 422)
    assert response.json().keys() in ({"detail"}, {"answers", "temperature", "model"})


@given(texts=st.lists(WORDS, max_size=6))
def test_any_text_is_answered(answer, texts):
    pairs = answer(json.dumps({"texts": texts, "texts_b": texts[::-1]}, ensure_ascii=False))
    single = answer(json.dumps({"texts": texts}))
    assert {single.status_code, pairs.status_code} == {200, 422}
    (said,) = (each.json() for each in (single, pairs) if each.status_code == 200)
    assert len(said["answers"]) == len(texts)
    for text, other, told in zip(texts, texts[::-1], said["answers"], strict=True):
        blank = not text.strip() and (single.status_code == 200 or not other.strip())
        assert (told is None) == blank
        assert blank or sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-4)
