"""Recommenders and towers as vectors: every family answers as its model, or is refused."""

import csv
import dataclasses
import re
import shutil
import sys

import faiss
import jax
import numpy as np
import pytest
from alone import alone
from recsys import save_model, small_split
from safetensors.numpy import load_file, save_file
from searches import save_towers

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation import open_recommender as opening
from distill_jax.evaluation.item_catalogue import Catalogue, save_catalogue
from distill_jax.evaluation.open_recommender import keep_encoder, open_recommender
from distill_jax.evaluation.open_search import open_search
from distill_jax.export import vectors
from distill_jax.export.manifest import check_files, digests_of, read_manifest, write_manifest
from distill_jax.export.retrievers import is_retriever, open_retriever
from distill_jax.export.vectors import export_vectors
from distill_jax.export.vectors_card import loader, vectors_card
from distill_jax.models.family import registered
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.recommenders.closed_forms import CLOSED_FORMS, save_closed_form
from distill_jax.models.recommenders.sequence import Recommenders
from distill_jax.teachers.item_texts import TextSpace, encode, item_tokens

SPLIT = small_split()
DATA = SPLIT.data
NAMES = [f"{each.name}-{'1x' * each.layered}8" for each in registered(Recommenders)]
WORDS = ("the film", "good plot", "bad cast and music", "very good film", "not the plot")


@pytest.fixture(scope="module")
def towers(toy_teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    products = Catalogue(tuple(f"p{n}" for n in range(len(WORDS))), WORDS)
    save_towers(folder, products, toy_teacher / "tokenizer.json", shared=False)
    return folder


@pytest.fixture
def reader(toy_teacher, monkeypatch):
    """A small encoder in the place of the one that reads items' texts."""
    pretrained = load_pretrained(toy_teacher, pooling="mean", num_labels=2, fresh_classifier=True)
    width = pretrained.config.hidden_size
    space = TextSpace(np.linspace(-1, 1, width, dtype=np.float32), 0.7)
    monkeypatch.setattr("distill_jax.data.assets.fetch", lambda name: toy_teacher)
    opening.text_encoder.cache_clear()
    table = item_tokens(DATA.item_texts, pretrained.tokenizer_file)
    yield space, space.of(encode(pretrained.config, pretrained.params, table))
    opening.text_encoder.cache_clear()


def loader_of(folder):
    """The code in an export's README, for that folder."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert code.count('Path("FOLDER")') == 1
    return code.replace('Path("FOLDER")', f"Path({str(folder)!r})")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_answers_from_its_files(name, tmp_path):
    save_model(tmp_path, name, split=SPLIT)
    folder = tmp_path / "vectors"
    manifest = export_vectors(tmp_path, folder)
    check_files(folder, manifest)
    assert read_manifest(folder) == manifest and manifest.task == "recommendation"
    assert manifest.parity["worst_difference"] < 1e-5
    items_ID = np.load(folder / "items.npy")
    assert items_ID.shape == (17, manifest.retrieval["numbers"])
    index = faiss.read_index(str(folder / "items.faiss"))
    query = jax.export.deserialize(bytearray((folder / "query.stablehlo").read_bytes()))
    opened = open_recommender(tmp_path)
    inputs = manifest.retrieval["programs"]["query"]["inputs"]
    nobody = [np.array([-1], np.int32)] * ("users" in inputs)
    for history in ([3], [3, 7, 3, 9]):
        vectors_1D = query.call(items_ID, np.add([history], 1).astype(np.int32), *nobody)
        scores, found = index.search(np.asarray(vectors_1D), 17)
        expected = opened.recommend([DATA.item_names[item] for item in history], 17, with_seen=True)
        assert found[0].tolist() == [each.item for each in expected]
        np.testing.assert_allclose(scores[0], [each.score for each in expected], rtol=1e-4)
    # An item that came later stands below the others: this one is like item 9.
    more_ID = np.concatenate([items_ID, items_ID[[9]]])
    later_1D = query.call(more_ID, np.array([[4, 8, 4, 18]], np.int32), *nobody)
    np.testing.assert_allclose(later_1D, vectors_1D, rtol=1e-6)
    with (folder / "items.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["row", "id", "title"] and rows[4] == ["3", "item 3", "the film 3"]


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_a_closed_form_is_refused_with_a_way_out(kind, tmp_path):
    model = CLOSED_FORMS[kind].fit(SPLIT)
    save_closed_form(tmp_path / "model", kind, model, DATA.item_names)
    save_catalogue(tmp_path / "model", Catalogue(DATA.item_names, DATA.item_texts))
    with pytest.raises(UserError, match=f"{kind} gives items no vectors.*recommend --model RUN"):
        export_vectors(tmp_path, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()
    dispatch(["recommend", "--model", str(tmp_path), "--history", "item 3"])  # which is there


def test_biases_are_a_number_of_the_vectors(tmp_path):
    _, params = save_model(tmp_path, "bpr_mf-8", split=SPLIT)
    items_ID = open_retriever(tmp_path).items_ID
    np.testing.assert_allclose(items_ID[:, -1], params["item_bias"])
    assert items_ID.shape == (17, 9)


def test_the_loader_of_a_recommender_needs_nothing_of_ours(tmp_path):
    save_model(tmp_path, "bert4rec-1x8", split=SPLIT, max_length=4)
    folder = tmp_path / "vectors"
    export_vectors(tmp_path, folder)
    history = ["item 3", "item 7", "item 1", "item 2", "item 9"]  # longer than it looks at
    code = f"import json\nprint(json.dumps(recommend({history!r}, 5)))"
    found = alone(loader_of(folder) + code)
    expected = open_recommender(tmp_path).recommend(history, 5)
    assert [row[:2] for row in found] == [[each.name, each.title] for each in expected]
    np.testing.assert_allclose(
        [row[2] for row in found], [each.score for each in expected], rtol=1e-4
    )


def test_a_user_with_a_vector(tmp_path):
    save_model(tmp_path, "bpr_mf-8", split=SPLIT)
    folder = tmp_path / "vectors"
    export_vectors(tmp_path, folder)
    with (folder / "users.csv").open(newline="") as file:
        users = {row["user"]: int(row["row"]) for row in csv.DictReader(file)}
    number = users["user 5"]
    code = f"import json\nprint(json.dumps(recommend(['item 3'], 3, user={number})))"
    found = alone(loader_of(folder) + code)
    items_ID = np.load(folder / "items.npy")
    _, params = open_recommender(tmp_path).model.network()
    own = np.append(params["user_embedding"][number], 1)
    order = [item for item in np.argsort(-(items_ID @ own)).tolist() if item != 3][:3]
    assert [row[0] for row in found] == [DATA.item_names[item] for item in order]
    # Where users take items again, the loader shows what they took, as the run does.
    again = dataclasses.replace(open_retriever(tmp_path), repeats=True)
    assert "may be recommended again" in vectors_card(
        again, {}, {"askers": 1, "worst_difference": 0.0}
    )
    ours = {}
    exec(loader(again).replace('Path("FOLDER")', f"Path({str(folder)!r})"), ours)
    every = [row[0] for row in ours["recommend"](["item 3"], 17, user=number)]
    assert sorted(every) == sorted(DATA.item_names)


def test_vectors_of_new_items_are_compared(towers, tmp_path, monkeypatch):
    honest = vectors.open_retriever

    def other(run):
        found = honest(run)
        return dataclasses.replace(found, item_expected_ND=found.item_expected_ND * 1.01)

    monkeypatch.setattr(vectors, "open_retriever", other)
    with pytest.raises(UserError, match="makes other vectors of items"):
        export_vectors(towers, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()


def test_new_items_by_text(tmp_path, reader, toy_teacher):
    """The program makes of a text the vector that ``recommend`` makes of it."""
    space, vectors_IE = reader
    save_model(tmp_path, "sasrec-1x8-both", split=SPLIT, text_vectors=vectors_IE)
    keep_encoder(tmp_path / "model", space, "toy")
    folder = tmp_path / "vectors"
    manifest = export_vectors(tmp_path, folder)
    assert set(manifest.retrieval["programs"]) == {"query", "item"}
    new = "a very good film | good"
    opened = open_recommender(tmp_path)
    expected = opened.recommend(["item 3"], 18, new_items=[new])
    assert 17 in [each.item for each in expected]
    code = f"import json\nadd('new', {new!r})\nprint(json.dumps(recommend(['item 3'], 18)))"
    found = alone(loader_of(folder) + code)
    names = [each.name if each.item < 17 else "new" for each in expected]
    assert [row[0] for row in found] == names
    np.testing.assert_allclose(
        [row[2] for row in found], [each.score for each in expected], rtol=1e-4, atol=1e-6
    )


def test_the_loader_of_towers(towers, tmp_path):
    folder = tmp_path / "vectors"
    manifest = export_vectors(towers, folder)
    assert manifest.task == "search" and manifest.retrieval["items"] == len(WORDS)
    code = (
        "import json\nfirst = search('good film', 3)\nadd('new', 'good film | x')\n"
        "print(json.dumps([first, search('good film', 6)]))"
    )
    first, then = alone(loader_of(folder) + code)
    opened = open_search(towers)
    (expected,) = opened.search(["good film"], 3)
    assert [row[0] for row in first] == [each.name for each in expected]
    np.testing.assert_allclose([row[2] for row in first], [e.score for e in expected], rtol=1e-4)
    texts = (*WORDS, "good film | x")
    more = Catalogue((*opened.products.names, "new"), texts)
    (expected,) = dataclasses.replace(opened, products=more).search(["good film"], 6)
    assert [row[0] for row in then] == [each.name for each in expected]


def test_what_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    save_model(tmp_path, "sasrec-1x8", split=SPLIT)
    honest = vectors.open_retriever

    def other(run):
        found = honest(run)
        changed = found.items_ID.copy()
        changed[5, 0] += 1e-2
        return dataclasses.replace(found, items_ID=changed)

    monkeypatch.setattr(vectors, "open_retriever", other)
    with pytest.raises(UserError, match="answers otherwise than the model"):
        export_vectors(tmp_path, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists() and len(list(tmp_path.iterdir())) == 1


def test_an_export_is_verified(tmp_path, capsys):
    save_model(tmp_path / "run", "bpr_mf-8", split=SPLIT)
    folder = tmp_path / "run" / "export" / "vectors"
    export_vectors(tmp_path / "run", folder)
    dispatch(["verify", str(folder)])
    told = capsys.readouterr().out
    assert "golden lists: 64 askers" in told and "the source, " in told
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    dispatch(["verify", str(elsewhere)])
    assert "the source, " not in capsys.readouterr().out
    save_model(tmp_path / "other", "sasrec-1x8", split=SPLIT)
    with pytest.raises(UserError, match="its model is another"):
        dispatch(["verify", str(elsewhere), "--run", str(tmp_path / "other")])
    # A folder whose digests were forged with it still has to answer as it did.
    items_ID = np.load(elsewhere / "items.npy")
    items_ID[:, 0] += np.float32(0.5)
    np.save(elsewhere / "items.npy", items_ID)
    with pytest.raises(UserError, match=r"items.npy has changed since it was exported"):
        dispatch(["verify", str(elsewhere)])
    manifest = read_manifest(elsewhere)
    write_manifest(elsewhere, dataclasses.replace(manifest, files=digests_of(elsewhere)))
    with pytest.raises(UserError, match=r"items.faiss is not the index of items.npy"):
        dispatch(["verify", str(elsewhere)])
    shutil.copyfile(folder / "items.npy", elsewhere / "items.npy")
    golden = load_file(elsewhere / "golden.safetensors")
    for name, change, told in (
        ("scores", lambda x: x + np.float32(1), "parity is broken"),
        ("items", lambda x: x + 99, "is damaged"),
        ("input_0", lambda x: x.T.copy(), "is damaged"),
    ):
        save_file({**golden, name: change(golden[name])}, elsewhere / "golden.safetensors")
        write_manifest(elsewhere, dataclasses.replace(manifest, files=digests_of(elsewhere)))
        with pytest.raises(UserError, match=told):
            dispatch(["verify", str(elsewhere)])


def test_mistakes_are_told(tmp_path, monkeypatch):
    save_model(tmp_path, "sasrec-1x8", split=SPLIT)
    with pytest.raises(UserError, match="is not empty"):
        export_vectors(tmp_path, tmp_path / "model")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"distill_jax\[index\]"):
        export_vectors(tmp_path, tmp_path / "vectors")
    assert is_retriever(tmp_path) and not is_retriever(tmp_path / "elsewhere")


def test_the_command(tmp_path, towers, toy_teacher, capsys):
    save_model(tmp_path, "sasrec-1x8", split=SPLIT)
    dispatch(["export", str(tmp_path)])
    told = capsys.readouterr().out
    assert read_manifest(tmp_path / "export" / "vectors").task == "recommendation"
    assert f"vectors: {tmp_path}/export/vectors  (17 items of 8 numbers; scores within" in told
    dispatch(["export", str(towers), "--format", "vectors", "--output", str(tmp_path / "t")])
    assert read_manifest(tmp_path / "t").task == "search"
    with pytest.raises(UserError, match="recommenders and towers are exported as vectors, not"):
        dispatch(["export", str(tmp_path), "--format", "onnx"])
    with pytest.raises(UserError, match="vectors is for recommenders and towers"):
        dispatch(["export", str(toy_teacher), "--format", "vectors"])
