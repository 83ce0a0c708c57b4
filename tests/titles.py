"""Product titles of ten classes of one shop, made of words.

All classes share brands, kinds, colours and purposes, and a fourth of the titles names a second
product as well ("cable for charger"): which of the two is sold is said by their order alone, of
which a bag of words knows nothing.
"""

import csv
import dataclasses
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from toys import SPECIAL

from distill_jax.models.bert import BertConfig
from distill_jax.models.huggingface import load_pretrained, save_pretrained

NOUNS = {
    "cable": ("cable", "cord", "wire", "lead", "extension lead", "patch cord"),
    "camera": ("camera", "webcam", "camcorder", "dashcam", "action cam", "baby monitor"),
    "case": ("case", "cover", "sleeve", "bumper", "pouch", "flip wallet"),
    "charger": ("charger", "power adapter", "charging station", "power supply", "plug", "dock"),
    "headphones": ("headphones", "earbuds", "headset", "earphones", "in ears", "earpiece"),
    "keyboard": ("keyboard", "keypad", "typing pad", "numpad", "keys", "mechanical board"),
    "mount": ("mount", "holder", "stand", "tripod", "cradle", "bracket"),
    "mouse": ("mouse", "trackball", "touchpad", "pointer", "trackpad", "presenter"),
    "screen": ("screen", "monitor", "display", "television", "projector", "touch panel"),
    "speaker": ("speaker", "soundbar", "subwoofer", "loudspeaker", "boombox", "party box"),
}
"""Class -> its nouns, the frequent ones first."""
BRANDS = ("Nordhem", "Alvera", "Kestrel", "Brightline", "Tomaro", "Pinewood", "Velar", "Oakridge")
COLOURS = ("black", "white", "red", "blue", "green", "grey", "pink", "silver")
KINDS = (
    "premium", "classic", "compact", "slim", "foldable", "heavy duty", "portable", "waterproof",
    "wireless", "professional", "lightweight", "large", "mini", "universal", "magnetic", "smart",
)  # fmt: skip
PURPOSES = (
    "for phone", "for tablet", "for laptop", "for car", "for home", "for travel", "for gaming",
    "pack of 2", "pack of 5", "new model", "usb c", "with remote", "fast", "long life",
)  # fmt: skip
BESIDE = ("for {}", "fits {}", "also for {}", "replaces {}", "goes with {}")


def title(rng: random.Random, label: str) -> str:
    """A title of a class; a noun's frequency falls with its rank."""

    def noun(of: str) -> str:
        return rng.choices(NOUNS[of], [1 / rank for rank in range(1, len(NOUNS[of]) + 1)])[0]

    parts = [rng.choice(BRANDS), rng.choice(KINDS), noun(label)]
    if rng.random() < 0.25:
        parts.append(rng.choice(BESIDE).format(noun(rng.choice([n for n in NOUNS if n != label]))))
    if rng.random() < 0.7:
        parts.append(rng.choice(PURPOSES))
    if rng.random() < 0.5:
        parts.append(rng.choice(COLOURS))
    return " ".join(parts)


def make_titles(folder: Path, sizes: dict[str, int]) -> Path:
    """``train.csv``, ``dev.csv`` and ``test.csv`` with columns sentence and label; no title twice.

    Args:
      sizes: split -> examples, the classes in turn.
    """
    folder.mkdir(parents=True)
    rng = random.Random(0)
    seen: set[str] = set()
    for split, size in sizes.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            for number in range(size):
                label = list(NOUNS)[number % len(NOUNS)]
                while (text := title(rng, label)) in seen:
                    pass
                seen.add(text)
                writer.writerow([text, label])
    return folder


def make_small_teacher(minilm: Path, titles: Path, folder: Path) -> Path:
    """The first layer of MiniLM, a quarter of its feed-forward units, the pieces titles have.

    Args:
      minilm: folder of the packaged checkpoint.

    Returns:
      A folder to start from.
    """
    old = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    texts = [line for file in sorted(titles.glob("*.csv")) for line in file.open(encoding="utf-8")]
    used = {piece for text in texts for piece in old.encode(text).tokens}
    pieces = [*SPECIAL, *sorted(used - set(SPECIAL))]
    ids = [old.token_to_id(piece) for piece in pieces]
    new = Tokenizer(models.WordPiece({p: n for n, p in enumerate(pieces)}, unk_token="[UNK]"))
    new.normalizer = normalizers.BertNormalizer(lowercase=True)
    new.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    new.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder.mkdir(parents=True)
    new.save(str(folder / "tokenizer.json"))

    loaded = load_pretrained(minilm, pooling="mean", num_labels=len(NOUNS), fresh_classifier=True)
    assert isinstance(loaded.config, BertConfig)
    units = loaded.config.intermediate_size // 4
    config = dataclasses.replace(
        loaded.config, num_layers=1, vocab_size=len(pieces), intermediate_size=units
    )
    params = {part: loaded.params[part] for part in ("classifier", "embeddings", "layer_1")}
    up, down = params["layer_1"]["intermediate"], params["layer_1"]["output"]
    fewer = {
        "intermediate": {"kernel": up["kernel"][:, :units], "bias": up["bias"][:units]},
        "output": {**down, "kernel": down["kernel"][:units]},
    }
    params["layer_1"] = {**params["layer_1"], **fewer}
    words = {"embedding": loaded.params["embeddings"]["word"]["embedding"][np.array(ids)]}
    params["embeddings"] = {**params["embeddings"], "word": words}
    save_pretrained(folder / "model", config, params, folder / "tokenizer.json")
    return folder / "model"
