"""A world in small: a BERT checkpoint, a tokeniser and reviews, made in a second.

Reviews with "good" in them are positive. The checkpoint is random, so a teacher fine-tuned from
it learns little; what is tested is the way, not the scores.
"""

import csv
import random
from pathlib import Path

import jax
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.huggingface import save_pretrained

WORDS = ("the", "film", "is", "was", "good", "bad", "plot", "cast", "very", "not", "and", "music")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_teacher(folder: Path) -> Path:
    """A folder as the hub would give it: config, safetensors, tokenizer.json."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = BertConfig(len(vocabulary), 16, 2, 2, 32, max_positions=32, num_labels=2)
    params = init_bert(config, jax.random.key(0))
    save_pretrained(folder / "model", config, params, folder / "tokenizer.json", ("a", "b"))
    return folder / "model"


def make_reviews(folder: Path, sizes: dict[str, int]) -> Path:
    """``train.csv``, ``dev.csv`` and ``test.csv`` with columns id, sentence, label."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for split, size in sizes.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "sentence", "label"])
            for number in range(size):
                words = rng.choices(
                    [w for w in WORDS if w not in ("good", "bad")], k=number % 6 + 2
                )
                verdict = rng.choice(["good", "bad"])
                words.insert(rng.randrange(len(words)), verdict)
                words.append(str(number))
                label = "pos" if verdict == "good" else "neg"
                writer.writerow([f"{split}-{number}", " ".join(words), label])
    return folder


@pytest.fixture(scope="session")
def toy_teacher(tmp_path_factory):
    """A checkpoint folder."""
    return make_teacher(tmp_path_factory.mktemp("toy") / "teacher")


@pytest.fixture(scope="session")
def toy_reviews(tmp_path_factory):
    """A folder for ``files:``."""
    sizes = {"train": 60, "dev": 24, "test": 30}
    return make_reviews(tmp_path_factory.mktemp("toy") / "reviews", sizes)
