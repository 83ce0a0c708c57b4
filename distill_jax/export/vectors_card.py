"""README.md of exported vectors: how they are used with numpy, faiss and JAX alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_jax.core.errors import printable
from distill_jax.export.card import data_terms
from distill_jax.export.retrievers import Retriever

_IMPORTS = """import csv
from pathlib import Path

import faiss
import jax
import numpy as np
from jax import export
{tokenizers}
folder = Path("FOLDER")
with (folder / "items.csv").open(encoding="utf-8", newline="") as file:
    items = list(csv.DictReader(file))
index = faiss.read_index(str(folder / "items.faiss"))
"""
_TOKENS = """

def tokens(texts, longest):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(length=longest)
    encoded = tokenizer.encode_batch(texts)
    ids = np.array([each.ids for each in encoded], np.int32)
    return ids, np.array([each.attention_mask for each in encoded], np.int32)

"""
_HISTORY = """
query = jax.jit(export.deserialize(bytearray((folder / "query.stablehlo").read_bytes())).call)
table = jax.numpy.asarray(np.load(folder / "items.npy"))
row_of = {{item["id"]: int(item["row"]) for item in items}}
LENGTH = {longest}  # items of a history that the model looks at


def recommend(history, k=10{user_argument}):
    rows = [row_of[name] for name in history]  # ids, oldest first
    newest = rows[-LENGTH:]
    ids = np.zeros((1, LENGTH), np.int32)  # row + 1; 0 on the left where there is no item
    ids[0, LENGTH - len(newest) :] = np.add(newest, 1)
    vectors = np.asarray(query(table, ids{user_input}))
    scores, found = index.search(vectors, min(k{more_rows}, index.ntotal))
    best = [(row, score) for row, score in zip(found[0], scores[0]){not_rows}]
    return [(items[row]["id"], items[row]["title"], float(score)) for row, score in best[:k]]
"""
_KINDS = """
query = jax.jit(export.deserialize(bytearray((folder / "query.stablehlo").read_bytes())).call)
table = jax.numpy.asarray(np.load(folder / "items.npy"))
row_of = {{item["id"]: int(item["row"]) for item in items}}
LENGTH = {longest}  # items of a history that the model looks at
KINDS = {kinds}  # of feedback; the first is recommended


def recommend(history, k=10{user_argument}):
    events = [(row_of[name], KINDS.index(kind)) for kind, name in history]  # oldest first
{taken}    newest = events[-LENGTH:]
    ids, kinds = np.zeros((2, 1, LENGTH), np.int32)  # row + 1; 0 on the left where there is no item
    ids[0, LENGTH - len(newest) :] = [row + 1 for row, _ in newest]
    kinds[0, LENGTH - len(newest) :] = [kind for _, kind in newest]
    vectors = np.asarray(query(table, ids, kinds{user_input}))
    scores, found = index.search(vectors, min(k{more_taken}, index.ntotal))
    best = [(row, score) for row, score in zip(found[0], scores[0]){not_taken}]
    return [(items[row]["id"], items[row]["title"], float(score)) for row, score in best[:k]]
"""
_LEFT_OUT = {
    "more_rows": " + len(set(rows))",
    "not_rows": " if row not in rows",
    "taken": "    taken = {row for row, kind in events if kind == 0}\n",
    "more_taken": " + len(taken)",
    "not_taken": " if row not in taken",
}
"""Where what somebody took is not recommended again."""
_SEARCH = """
query = jax.jit(export.deserialize(bytearray((folder / "query.stablehlo").read_bytes())).call)


def search(text, k=10):
    vectors = np.asarray(query(*tokens([text], {longest})))
    scores, found = index.search(vectors, min(k, index.ntotal))
    best = zip(found[0], scores[0])
    return [(items[row]["id"], items[row]["title"], float(score)) for row, score in best]
"""
_NEW = """

item = jax.jit(export.deserialize(bytearray((folder / "item.stablehlo").read_bytes())).call)


def add(name, text):
    index.add(np.asarray(item(*tokens([text], {longest}))))
    items.append({{"row": len(items), "id": name, "title": text.partition(" | ")[0]}})
"""


def loader(retriever: Retriever) -> str:
    """Python that uses the folder without this package."""
    longest, reads = retriever.query.longest, retriever.query.inputs
    texts = retriever.tokenizer_file is not None
    code = _IMPORTS.format(tokenizers="from tokenizers import Tokenizer\n" if texts else "")
    code += _TOKENS if texts else ""
    if retriever.task == "search":
        code += _SEARCH.format(longest=longest)
    else:
        named = "users" in reads
        left_out = dict.fromkeys(_LEFT_OUT, "") if retriever.repeats else _LEFT_OUT
        code += (_KINDS if retriever.kinds else _HISTORY).format(
            longest=longest,
            kinds=list(retriever.kinds),
            user_argument=", user=-1" if named else "",
            user_input=", np.array([user], np.int32)" if named else "",
            **left_out,
        )
    if retriever.item is not None:
        code += _NEW.format(longest=retriever.item.longest)
    return code


def vectors_card(retriever: Retriever, birth: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """Markdown.

    Args:
      birth: what the model was made of, see ``source.birth_of``.
    """
    count, numbers = retriever.items_ID.shape
    texts = ", and `tokenizers`" if retriever.tokenizer_file else ""
    what = "history of items" if retriever.task == "recommendation" else "query as a text"
    users = (
        "\nUsers of the training have vectors of their own, by the rows of `users.csv`; -1 is for "
        "anybody else, whom the history describes.\n"
        if "users" in retriever.query.inputs
        else ""
    )
    below = " Put below the vectors of `items.npy` it may stand in histories, too."
    new = (
        "`item.stablehlo` makes the vector of a new item from its text; add it to the index, and "
        f"it can be found.{below if retriever.query.items else ''}\n"
        if retriever.item is not None
        else "Items that came after the training have no vector.\n"
    )
    again = (
        "What somebody took may be recommended again, as in the run's lists."
        if retriever.repeats
        else "What somebody has already is left out here; `index.search` itself knows nothing of "
        "it."
    )
    return f"""# A {retriever.task} model made with distill_jax, as vectors

{count:,} items, {numbers} numbers each. The score of an item for a {what} is the inner product of
`items.npy`'s row with what `query.stablehlo` makes of it (where the model has biases they are the
last number of the items' vectors). `items.faiss` is an exact index of the same vectors.
{users}
When it was written, {parity["askers"]} askers' scores of all items were within
{parity["worst_difference"]:.1e} of the model's, and so were the index's lists.
{_measured(birth)}
## Use

It needs `numpy`, `faiss-cpu`, `jax` and `flatbuffers`{texts}; each new shape is compiled:

```python
{loader(retriever)}```

{new}{again}
"""


def _measured(birth: Mapping[str, Any]) -> str:
    """What the ledger says of the run; nothing where there is no row of it."""
    if "run" not in birth:
        return ""
    shown = [
        f"| {name} | {value:.4g} |"
        for name, value in birth["scores"].items()
        if name.startswith("test/") and name.count("/") == 1
    ]
    table = "\n".join(["| | |", "|---|---|", *shown, f"| parameters | {birth['parameters']:,} |"])
    made = f"row {birth['row']!r}, seed {birth['seed']} of the experiment {birth['experiment']!r}"
    data = printable(str(birth["data"]))
    return f"""
## Numbers

{table}

## Made of

Run {birth["run"]}, {printable(made)}. Data: {data} ({data_terms(data)}).
"""
