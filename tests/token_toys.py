"""Toy files of the tasks that ask about every token: tagged reviews, intents, questions."""

import json
import random

import pytest
from toys import WORDS

SIZES = {"train": 48, "dev": 20, "test": 24}
OPINIONS = {"good": "praise", "bad": "blame"}


def tagged(rng):
    """Words and tags: "good" and "bad" begin an entity, and "film" or "plot" behind goes on."""
    words = rng.choices(WORDS, k=rng.randrange(3, 9))
    words.insert(rng.randrange(len(words)), rng.choice(list(OPINIONS)))
    tags, inside = [], ""
    for word in words:
        goes_on = inside and word in ("film", "plot")
        begins = OPINIONS.get(word, "")
        tags.append(f"B-{begins}" if begins else f"I-{inside}" if goes_on else "O")
        inside = begins or (inside if goes_on else "")
    return words, tags


@pytest.fixture(scope="session")
def toy_tags(tmp_path_factory):
    """A folder of CoNLL columns."""
    folder, rng = tmp_path_factory.mktemp("toy_tags"), random.Random(0)
    for split, size in SIZES.items():
        sentences = (tagged(rng) for _ in range(size))
        lines = ("".join(f"{w}\t{t}\n" for w, t in zip(*own, strict=True)) for own in sentences)
        (folder / f"{split}.conll").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def toy_intents(tmp_path_factory):
    """A folder of JSONL: the intent is the first opinion."""
    folder, rng = tmp_path_factory.mktemp("toy_intents"), random.Random(1)
    for split, size in SIZES.items():
        rows = []
        for number in range(size):
            words, tags = tagged(rng)
            intent = next(OPINIONS[word] for word in words if word in OPINIONS)
            row = {"id": f"{split}{number}", "tokens": words, "tags": tags, "intent": intent}
            rows.append(json.dumps(row))
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


def questions(rng, split, size):
    """The answer is "good" or "bad" and the word behind it; some have none."""
    for number in range(size):
        words = rng.choices([word for word in WORDS if word not in OPINIONS], k=30)
        place, said = rng.randrange(29), rng.choice(list(OPINIONS))
        words[place] = said
        own = {"id": f"{split}{number}", "question": f"is the film {said}"}
        context = " ".join(words)
        if number % 4 == 3:
            other = next(word for word in OPINIONS if word != said)
            own |= {"question": f"is the film {other}", "is_impossible": True, "answers": []}
        else:
            text = " ".join(words[place : place + 2])
            own["answers"] = [{"text": text, "answer_start": context.index(text)}]
        yield {"context": context, "qas": [own]}


@pytest.fixture(scope="session")
def toy_questions(tmp_path_factory):
    """A folder of SQuAD 2.0's JSON."""
    folder, rng = tmp_path_factory.mktemp("toy_questions"), random.Random(2)
    for split, size in SIZES.items():
        paragraphs = list(questions(rng, split, size))
        told = {"version": "2.0", "data": [{"title": split, "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(told))
    return folder
