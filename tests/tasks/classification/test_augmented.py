"""Copies of texts from the command line to the cache of what the teacher says of them."""

import dataclasses
import io
import re
from functools import partial

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.data.augment.augmentation import is_copy, source_of
from distill_jax.data.augment.tokens import mask_of, whole_words
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import points
from distill_jax.models.huggingface import load_pretrained
from distill_jax.models.mlm_head import read_mlm_head
from distill_jax.tasks.classification.augment_tools import tools_of
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.splits import load_texts, prepare_texts
from distill_jax.tasks.classification.table import Classification
from distill_jax.teachers.manifest import read_manifest


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    task = Classification(sweep_of(args) if isinstance(args, CompareLosses) else args)
    _, rows = run_table(
        task, folder, Reporter(Console(file=out, width=300)), track="none", strategy=strategy
    )
    return [row for row in rows if row.row != "teacher"], out.getvalue(), task


def numbers(rows):
    return {
        (row.row, row.seed): {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
        for row in rows
    }


@pytest.fixture
def world(small_table):
    return partial(small_table, objectives=("kl",), epochs=1.0, steps=0, min_steps=0)


TEXT = "swap(0.3, copies=2) + delete(0.2)"


@pytest.mark.long
def test_the_teacher_speaks_of_every_copy_once(world, tmp_path, capsys):
    args = world(augment=TEXT)
    rows, said, task = run(args, tmp_path / "out")
    copies = int(re.search(r"data: (\d+) copies by swap\(0.3, copies=2\) \+ delete", said)[1])
    assert 80 < copies <= 120
    assert re.search(r"data: a teacher reads [\d,]+ tokens of copies, 1\.\d times those of", said)
    assert re.search(rf"asked about copies too: {60 + copies} texts in all, about \d+ s here", said)
    (cache,) = (tmp_path / "home/teacher_outputs").iterdir()
    assert read_manifest(cache).examples == 60 + copies

    run_of = task.run(task.entries[0])
    table = run_of.splits.everything
    assert (table.labels_N[[is_copy(each) for each in table.ids]] == -1).all()
    again, _, _ = run(dataclasses.replace(args, teacher_outputs="live"), tmp_path / "live")
    for place, found in numbers(again).items():
        assert found["test/nll"] == pytest.approx(numbers(rows)[place]["test/nll"], rel=1e-4)

    dispatch(["cache", "verify", str(cache), "--sample", "8"])
    assert "the teacher says the same" in capsys.readouterr().out

    together, _, _ = run(args, tmp_path / "together", "vmap")
    for place, found in numbers(together).items():
        assert found["test/nll"] == pytest.approx(numbers(rows)[place]["test/nll"], rel=2e-3)
    plain, said, _ = run(world(), tmp_path / "plain")
    assert numbers(plain) != numbers(rows) and "copies" not in said


def test_augmentations_of_one_table_do_not_hear_each_others_words(world, tmp_path):
    """Their copies have numbers in common, not ids: the widest data are not theirs."""
    sweep = sweep_of(world(seeds=(0,)))
    texts = ("swap(0.3)", "delete(0.3)", "swap(0.3, copies=2)")
    rows = points({text: {"objective": "kl", "data.augment": text} for text in texts})
    found = [
        numbers(run(dataclasses.replace(sweep, rows=chosen, baseline=None), tmp_path / name)[0])
        for name, chosen in (("all", rows), ("one", rows[1:2]))
    ]
    assert found[0][texts[1], 0] == found[1][texts[1], 0]


def test_copies_of_what_is_left_out_are_left_out(toy_teacher, toy_reviews):
    def splits(**changes):
        data = DataConfig(
            f"files:{toy_reviews}", label_fraction=0.5, max_length=16, augment=TEXT, **changes
        )
        loaded = load_pretrained(toy_teacher)
        tools = tools_of("toy", loaded)
        return prepare_texts(data, load_texts(data), loaded.tokenizer_file, tools)

    whole, labelled = splits(), splits(transfer="none")
    assert set(map(source_of, whole.everything.ids)) >= set(labelled.labelled.ids)
    assert set(map(source_of, labelled.everything.ids)) == set(labelled.labelled.ids)
    assert len(labelled.everything) > len(labelled.labelled) == 30
    (note,) = [each for each in labelled.notes if "joined" in each]
    assert note.startswith(f"{len(labelled.everything) - 30} copies")  # no others are made
    assert whole.labels_digest == labelled.labels_digest  # the teacher does not depend on it
    assert whole.digest != labelled.digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": "mask"}, "reads no text as its mask"),
        ({"augment": "mlm"}, "no head of a masked language model"),
        ({"augment": "ngarm"}, "unknown augmentation 'ngarm'.*'ngram'"),
        ({"augment": "synonyms(file='/no/such')"}, "cannot read the synonyms"),
        (
            {
                "augment": "swap",
                "data": "digits",
                "teacher": ("cnn-4-8",),
                "students": ("cnn-2-4",),
            },
            "is of texts, not of digits",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(world, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as told:
        run(world(**changes), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.parametrize("task", ["tags", "spans", "intent_slots", "relations"])
def test_tasks_whose_answers_are_of_words_have_no_copies(task):
    DataConfig("files:x", task=task)
    DataConfig("files:x", task="number", augment="swap")
    with pytest.raises(UserError, match=rf"not for task {task}: its answers are of words"):
        DataConfig("files:x", task=task, augment="swap")


@pytest.fixture(scope="module")
def speaker(tmp_path_factory, toy_teacher):
    """The toy teacher with a mask its tokeniser reads and the head of a masked language model,
    which always expects "music", then "cast"."""
    folder = tmp_path_factory.mktemp("mlm") / "model"
    folder.mkdir()
    for path in toy_teacher.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    width, vocabulary = 16, tokenizer.get_vocab()
    bias = np.zeros(len(vocabulary), np.float32)
    bias[vocabulary["music"]], bias[vocabulary["cast"]] = 100, 90
    head = {
        "cls.predictions.transform.dense.weight": np.eye(width, dtype=np.float32),
        "cls.predictions.transform.dense.bias": np.zeros(width, np.float32),
        "cls.predictions.transform.LayerNorm.weight": np.ones(width, np.float32),
        "cls.predictions.transform.LayerNorm.bias": np.zeros(width, np.float32),
        "cls.predictions.bias": bias,
    }
    own = load_file(folder / "model.safetensors")
    save_file({**own, **head}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_masks_and_expected_words_end_to_end(world, tmp_path, speaker, toy_reviews):
    assert mask_of(speaker / "tokenizer.json")[0] == "[MASK]"
    _, said, task = run(
        world(teacher=(str(speaker),), augment="mask(0.3) + mlm(0.1, k=2)", seeds=(0,)),
        tmp_path / "out",
    )
    assert "copies by mask(0.3) + mlm(0.1, k=2)" in said
    splits = task.run(task.entries[0]).splits
    vocabulary = whole_words(speaker / "tokenizer.json")
    table = splits.everything
    rows = [row for row, each in enumerate(table.ids) if is_copy(each)]
    row_of = {each: row for row, each in enumerate(table.ids)}
    added = []
    for row in rows:
        copy, own = (
            table.tokens_S[table.offsets_N1[n] : table.offsets_N1[n + 1]]
            for n in (row, row_of[source_of(table.ids[row])])
        )
        assert len(copy) == len(own)
        added += copy[copy != own].tolist()
    assert set(added) == {vocabulary["music"], vocabulary["cast"]}


def test_the_heads_logits_are_the_formulas(speaker):
    """Devlin et al. 2019: dense, activation, layer norm, the word embeddings, a bias."""
    head, loaded = read_mlm_head(speaker), load_pretrained(speaker)
    words_VD = np.asarray(loaded.params["embeddings"]["word"]["embedding"])
    hidden_ND = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    got = head.logits(hidden_ND, words_VD, activation="relu", epsilon=1e-12)
    middle = np.maximum(hidden_ND, 0)
    normal = (middle - middle.mean(-1, keepdims=True)) / middle.std(-1, keepdims=True)
    np.testing.assert_allclose(got, normal @ words_VD.T + head.bias_V, rtol=1e-4, atol=1e-4)


def test_neighbours_are_the_nearest_by_cosine(toy_teacher):
    loaded = load_pretrained(toy_teacher)
    near = tools_of("toy", loaded).near(("film", "plot", "unheard"), 3)
    vocabulary = whole_words(loaded.tokenizer_file)
    table_VD = np.asarray(loaded.params["embeddings"]["word"]["embedding"])
    unit = table_VD / np.linalg.norm(table_VD, axis=1, keepdims=True)
    like = {w: float(unit[vocabulary["film"]] @ unit[n]) for w, n in vocabulary.items()}
    del like["film"]
    assert near["film"] == tuple(sorted(like, key=lambda word: -like[word])[:3])
    assert set(near) == {"film", "plot"}


def test_a_part_of_a_head_is_an_error(tmp_path, speaker):
    folder = tmp_path / "part"
    folder.mkdir()
    for path in speaker.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["cls.predictions.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"part of .*cls\.predictions\.bias"):
        read_mlm_head(folder)
