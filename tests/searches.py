"""A search problem in small: colours and things, where the colour decides what is relevant."""

import jax
import numpy as np

from distill_jax.data.query_lists import ListTable, choose_candidates
from distill_jax.data.query_product import TRANSFER, Judgement, build_search_data
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.open_search import TokenLimits, save_search
from distill_jax.models.bert import BertConfig
from distill_jax.models.two_tower import TwoTowerConfig, init_two_tower

CLS, SEP, FIRST_WORD = 1, 2, 5
COLOURS, THINGS = 4, 6


def toy_search():
    """Query ``c t``: products of colour c are relevant, the thing t of that colour most."""
    judgements = []
    for number in range(COLOURS * THINGS):
        colour, thing = number % COLOURS, number // COLOURS
        split = ("train", "train", "train", "validation", "test", TRANSFER)[thing]
        for other in range(THINGS):
            gain = None if split == TRANSFER else 1.0 if other == thing else 0.5
            judgements.append(
                Judgement(
                    f"q{colour} q{thing}", f"{colour}-{other}", f"{colour} {other}", gain, split
                )
            )
    return build_search_data("toy", judgements)


def tokens_of(texts, *, query=False):
    """``[CLS] colour thing [SEP]``; queries and products have words of their own."""
    rows = []
    for text in texts:
        colour, thing = (int(word.removeprefix("q")) for word in text.split())
        shift = COLOURS + THINGS if query else 0
        rows.append([CLS, FIRST_WORD + shift + colour, FIRST_WORD + shift + COLOURS + thing, SEP])
    flat = np.array(rows, np.int32).reshape(-1)
    return TokenTable(
        ids=tuple(map(str, range(len(rows)))),
        tokens_S=flat,
        token_types_S=np.zeros(len(flat), np.int8),
        offsets_N1=np.arange(len(rows) + 1, dtype=np.int64) * 4,
        labels_N=np.full(len(rows), -1, np.int32),
    )


VOCABULARY = FIRST_WORD + 2 * (COLOURS + THINGS)


def toy_table(kind="towers", *, list_size=6, size=12, transfer=False, data=None):
    """The toy's lists; candidates beyond the judged ones go round the catalogue."""
    data = data or toy_search()

    def found(rows):
        return (np.asarray(rows)[:, None] + np.arange(len(data.items))[None, :]) % len(data.items)

    candidates = choose_candidates(data, found, size=size)
    scores = true_scores(data, candidates.items_QM) if transfer else None
    return ListTable(
        data,
        tokens_of(data.queries, query=True),
        tokens_of(data.items),
        candidates,
        list_size,
        kind,
        use_transfer=transfer,
        scores_QM=scores,
    )


def true_scores(data, items_QM):
    """What a perfect teacher says: 2 for the very thing, 1 for the colour, else 0."""
    scores_QM = np.full(items_QM.shape, -np.inf, np.float32)
    for query, items in enumerate(items_QM):
        for place, item in enumerate(items):
            if item >= 0:
                wanted, text = data.queries[query].replace("q", ""), data.items[item]
                scores_QM[query, place] = 2 * (wanted == text) + (wanted[0] == text[0])
    return scores_QM


def save_towers(folder, products, tokenizer_file, *, shared, limits=(6, 12)):
    """Towers that were never trained, as a finished run keeps them: ``folder/model``."""
    config = TwoTowerConfig(
        BertConfig(17, 8, 1, 2, 16, max_positions=max(*limits, 16), num_labels=6, pooling="mean"),
        shared=shared,
        similarity="cosine",
    )
    params = jax.device_get(init_two_tower(config, jax.random.key(0)))
    cut = TokenLimits(*limits)
    save_search(folder / "model", config, params, products, cut, tokenizer_file)
