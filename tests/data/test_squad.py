"""SQuAD's files, and their windows."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distill_jax.core.errors import UserError
from distill_jax.core.spans import ENDS, STARTS
from distill_jax.data.squad import load, load_unanswered
from distill_jax.data.windows import tokenise_questions

CONTEXT = "red cats sat on old mats"
WORDS = ("red", "cats", "sat", "on", "old", "mats", "who", "where", "what", "?", "dogs", "ran")


def question(number, text, answer=None, context=CONTEXT, **more):
    answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else None
    told = {"id": f"q{number}", "question": text, **more}
    return {**told, "answers": answers} if answers is not None else told


def article(*questions, context=CONTEXT):
    return {"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}


def written(folder, **files):
    for stem, articles in files.items():
        (folder / f"{stem}.json").write_text(json.dumps({"version": "2.0", "data": articles}))
    return folder


def some(count, first=0):
    return [
        article(
            question(first + n, "who sat ?", "cats", f"red cats sat on {n}"),
            context=f"red cats sat on {n}",
        )
        for n in range(count)
    ]


def test_splits_by_file(tmp_path):
    train = [
        article(
            question(0, "who sat ?", "red cats"),
            question(1, "who ran ?", is_impossible=True),
            question(2, "where ?"),
        )
    ]
    data = load(written(tmp_path, train=train, dev=some(2, 10), test=some(3, 20)))
    table = data.splits["train"]
    assert table.ids == ("q0", "q1", "q2")
    assert table.targets == ((("red cats", 0),), (), None)
    assert table.labels_N.tolist() == [0, 0, -1]
    assert {split: len(own) for split, own in data.splits.items()} == {
        "train": 3,
        "validation": 2,
        "test": 3,
    }


def test_one_file_is_split_by_paragraph(tmp_path):
    data = load(written(tmp_path, all=some(60)))
    contexts = {split: set(table.texts_b) for split, table in data.splits.items()}
    assert sum(map(len, contexts.values())) == 60
    assert not contexts["train"] & (contexts["validation"] | contexts["test"])
    assert any("split by a fixed hash of the paragraph: train" in note for note in data.notes)
    assert load(tmp_path).digest == data.digest


def test_questions_for_a_teacher_alone_need_no_answers_and_keep_none(tmp_path):
    folders = [tmp_path / name for name in ("train", "transfer", "all")]
    for folder in folders:
        folder.mkdir()
    written(folders[0], train=some(3), transfer=[article(question(8, "where ?"))], dev=some(2, 10))
    written(folders[1], transfer=[article(question(8, "where ?"))])
    written(folders[2], all=some(60))
    for folder, count in zip(folders, (4, 1, len(load(folders[2]).splits["train"])), strict=True):
        table, _ = load_unanswered(folder)
        assert len(table) == count and table.targets == (None,) * count
        assert table.labels_N.tolist() == [-1] * count
    with pytest.raises(UserError, match=r"no train file in .*, which holds transfer\.json"):
        load(folders[1])


def test_validation_leaves_train_by_paragraph(tmp_path):
    data = load(written(tmp_path, train=some(60), test=some(3, 100)))
    train, held = (set(data.splits[split].texts_b) for split in ("train", "validation"))
    assert len(train) + len(held) == 60 and held and not train & held


def test_rows_as_on_the_hub_are_read_too(tmp_path):
    row = {"id": "a", "question": "who ?", "context": CONTEXT}
    train = [
        {**row, "answers": {"text": ["cats"], "answer_start": [4]}},
        {**row, "id": "b", "answers": {"text": [], "answer_start": []}},
    ]
    for stem in ("train", "dev", "test"):
        lines = "".join(json.dumps({**each, "id": f"{stem}{each['id']}"}) + "\n" for each in train)
        (tmp_path / f"{stem}.jsonl").write_text(lines)
    assert load(tmp_path).splits["train"].targets == ((("cats", 4),), ())


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            {"answers": [{"text": "dogs", "answer_start": 0}]},
            "'dogs' is not at character 0.*'red '",
        ),
        ({"answers": []}, "no answers; a question that has none says 'is_impossible': true"),
        ({"answers": [{"text": "red"}]}, "expected an answer"),
        ({"answers": "red"}, "expected a list of objects as 'answers'"),
        ({"question": " "}, "expected text as 'question'"),
        ({"answers": [{"text": "red", "answer_start": -24}]}, "not at character -24"),
    ],
)
def test_faults_name_file_paragraph_and_question(tmp_path, broken, told):
    bad = {**question(1, "who ?", "cats"), **broken}
    folder = written(tmp_path, train=[article(question(0, "who ?", "cats"), bad)], test=some(3, 9))
    with pytest.raises(UserError, match=rf"train\.json, row 1, paragraph 1, question 2: .*{told}"):
        load(folder)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    vocabulary = {word: n for n, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


LONG = " ".join(["red", "cats", "sat", "on", "old", "mats"] * 10)


def test_long_contexts_are_seen_in_windows_that_overlap(tmp_path, tokenizer_file):
    at = LONG.index("mats", 150)
    own = question(0, "where ?", context=LONG)
    own["answers"] = [{"text": "old mats", "answer_start": at - 4}]
    train = [article(own, question(1, "who ran ?", context=LONG, is_impossible=True), context=LONG)]
    data = load(written(tmp_path, train=train, dev=some(2, 10), test=some(3, 20)))
    tokens = tokenise_questions(data, tokenizer_file, max_length=24)
    table = tokens.splits["train"]
    windows = [n for n, window in enumerate(table.aside) if window.question == "q0"]
    assert len(windows) > 2 and table.ids[:2] == ("q0", "q0#1")
    assert any("train: 2 questions are read in" in note for note in tokens.notes)
    seen, holding = set(), []
    for row in windows:
        span = slice(table.offsets_N1[row], table.offsets_N1[row + 1])
        marks, places = table.targets_S[span], table.aside[row].places_T2
        assert len(marks) <= 24 and marks[0] >= 0
        assert ((marks >= 0) == ((places[:, 0] >= 0) | (np.arange(len(marks)) == 0))).all()
        seen |= {tuple(each) for each in places.tolist() if each[0] >= 0}
        (start,), (end,) = (np.flatnonzero(np.maximum(marks, 0) & part) for part in (STARTS, ENDS))
        if start:
            holding.append(LONG[places[start, 0] : places[end, 1]])
        else:
            assert end == 0
    assert len(seen) == 60  # every word of the context
    assert holding and set(holding) == {"old mats"}
    last = table.targets_S[table.offsets_N1[-2]]
    assert last == STARTS | ENDS  # a question without an answer: at [CLS]


def test_windows_that_are_too_short_are_refused(tmp_path, tokenizer_file):
    data = load(written(tmp_path, all=some(60)))
    with pytest.raises(UserError, match="--max-length 24 at the least, not 16"):
        tokenise_questions(data, tokenizer_file, max_length=16)


def test_a_long_question_is_cut_and_counted(tmp_path, tokenizer_file):
    long = question(0, "who " * 30 + "?", "cats")
    data = load(written(tmp_path, train=[article(long)], dev=some(2, 10), test=some(3, 20)))
    tokens = tokenise_questions(data, tokenizer_file, max_length=24)
    assert "train: 1 questions are cut at 12 tokens" in tokens.notes


def test_xquad_is_read_whole(shared_data):
    data = load(shared_data("xquad"))
    assert sum(map(len, data.splits.values())) == 1190
    assert len({context for own in data.splits.values() for context in own.texts_b}) == 240
