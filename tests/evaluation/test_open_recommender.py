"""A finished recommender in use, in Python and on the command line."""

import dataclasses

import jax
import numpy as np
import pytest
from recsys import small_split

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.data.interactions import histories_of
from distill_jax.evaluation import open_recommender as module
from distill_jax.evaluation.item_catalogue import Catalogue, save_catalogue
from distill_jax.evaluation.open_recommender import keep_encoder, open_recommender
from distill_jax.evaluation.score_histories import scores_of
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.save import save_recommender
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts
from distill_jax.teachers.item_texts import TextSpace

DATA = small_split(num_items=12).data
TITLES = tuple(f"Film {n} (1990) | Drama" for n in range(12))
WIDTH = 5


def save(folder, source="id", max_length=6):
    items = ItemConfig(
        12, 8, source, text_width=WIDTH if source != "id" else 0, initializer_range=0.5
    )
    vectors = np.random.default_rng(0).normal(size=(12, WIDTH)).astype(np.float32)
    texts = ItemTexts(vectors_IE=vectors) if source != "id" else None
    recommender = Recommender(SasRecConfig(items, num_layers=1, max_length=max_length), texts)
    params = recommender.init(jax.random.key(1))
    save_recommender(folder / "model", recommender, params, DATA.item_names)
    save_catalogue(folder / "model", Catalogue(DATA.item_names, TITLES))
    return recommender, params


def test_the_best_items_that_are_not_in_the_history(tmp_path):
    recommender, params = save(tmp_path)
    found = open_recommender(tmp_path).recommend("item 3; Film 7", k=4)
    scores = scores_of(recommender, params, histories_of([[3, 7]], 12))[0]
    order = [i for i in np.argsort(-scores, kind="stable") if i not in (3, 7)][:4]
    assert [each.item for each in found] == order
    np.testing.assert_allclose([each.score for each in found], scores[order], rtol=1e-5)
    assert found[0].name == DATA.item_names[order[0]]
    assert found[0].title == f"Film {order[0]} (1990)"
    assert len(open_recommender(tmp_path / "model").recommend(["item 3"], k=99)) == 11


def test_mistakes_are_told(tmp_path):
    save(tmp_path)
    opened = open_recommender(tmp_path)
    with pytest.raises(UserError, match="Did you mean Film 7"):
        opened.recommend("Filn 7")
    with pytest.raises(UserError, match="history is empty"):  # the run does not say what is popular
        opened.recommend(" ; ")
    with pytest.raises(UserError, match="knows items by their numbers alone"):
        opened.recommend("item 3", new_items=("Dune | Sci-Fi",))
    with pytest.raises(UserError, match="no model at"):
        open_recommender(tmp_path / "nowhere")
    save_catalogue(tmp_path / "model", Catalogue(("other",)))
    with pytest.raises(UserError, match="catalogue is not the model's"):
        open_recommender(tmp_path)


def test_new_items_compete_by_their_texts(tmp_path, monkeypatch):
    """A new item whose text is that of a known one scores like it."""
    recommender, _ = save(tmp_path, "text")
    known = np.asarray(recommender.texts.vectors_IE)
    asked = []

    def encode(folder, texts):
        asked.append((folder, texts))
        return known[[4]]

    monkeypatch.setattr(module, "_encode", encode)
    opened = open_recommender(tmp_path)
    found = opened.recommend("item 3", k=12, new_items=("Film 4 again | Drama",))
    by_item = {each.item: each for each in found}
    assert len(found) == 12 and by_item[12].title == "Film 4 again"
    assert by_item[12].score == pytest.approx(by_item[4].score, rel=1e-5)
    assert asked == [(tmp_path / "model", ("Film 4 again | Drama",))]


def test_an_object_compiles_its_few_shapes_once(tmp_path, monkeypatch, compiled_seconds):
    save(tmp_path, "text", max_length=20)
    monkeypatch.setattr(
        module, "_encode", lambda _, texts: np.ones((len(texts), WIDTH), np.float32)
    )
    opened = open_recommender(tmp_path)
    opened.recommend(["item 3"])
    opened.recommend(["item 3"] * 17)
    opened.recommend(["item 3"], new_items=["a"])
    assert compiled_seconds
    compiled_seconds.clear()
    for length in (1, 2, 11, 16, 17, 20, 33):
        opened.recommend(["item 5", "item 4"] * length, k=length)
    for count in (2, 7, 8):
        found = opened.recommend(["item 3"], k=30, new_items=["b"] * count)
        assert len(found) == 11 + count
    assert compiled_seconds == []


def test_new_texts_are_put_into_the_space_of_the_catalogue(tmp_path, monkeypatch):
    space = TextSpace(np.float32([1, 2]), 0.5)
    keep_encoder(tmp_path, space, "minilm-l6")
    raw = np.float32([[2, 4], [1, 2]])
    monkeypatch.setattr("distill_jax.data.assets.fetch", lambda name: tmp_path)
    fake = dataclasses.make_dataclass("Fake", ["tokenizer_file", "config", "params"])
    monkeypatch.setattr(
        "distill_jax.models.huggingface.load_pretrained", lambda *a, **k: fake(None, None, None)
    )
    monkeypatch.setattr(module, "item_tokens", lambda texts, file: texts)
    monkeypatch.setattr("distill_jax.teachers.item_texts.encode", lambda c, p, table, **_: raw)
    np.testing.assert_allclose(module._encode(tmp_path, ("a", "b")), [[2, 4], [0, 0]])
    with pytest.raises(UserError, match="needs a text"):
        module._encode(tmp_path, ("a", " "))
    with pytest.raises(UserError, match="does not say how its texts were read"):
        module._encode(tmp_path / "x", ("a",))


def test_the_command(tmp_path, capsys):
    save(tmp_path)
    dispatch(["recommend", "--model", str(tmp_path), "--history", "item 3; Film 7", "-k", "3"])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "3"]
    found = open_recommender(tmp_path).recommend("item 3; Film 7", k=3)
    assert [line[1:3] for line in lines] == [[each.title, each.name] for each in found]
    with pytest.raises(UserError, match="at least 1"):
        dispatch(["recommend", "--model", str(tmp_path), "--history", "item 3", "-k", "0"])
