"""``distill-jax data``: a look at a data set, as an experiment would read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from distill_jax.cli.run import parse_flags


@dataclass(frozen=True)
class Data:
    """Show the splits, classes and first examples of a data set, after all checks."""

    name: Annotated[str, tyro.conf.Positional] = "review_snippets/movie"
    """As for --data: review_snippets/movie, shopping_reviews_zh, files:FOLDER, tfds:NAME."""
    text: str = "sentence"
    """Column of the text (files: and tfds: only)."""
    text_b: str | None = None
    """Column of the second text, for pairs."""
    label: str = "label"
    """Column of the label."""
    examples: int = 3
    """How many examples of each split to show."""


def main(arguments: Sequence[str]) -> None:
    """Load, check, print."""
    args = parse_flags(Data, arguments, "distill-jax data")

    from distill_jax.data.load import load_dataset
    from distill_jax.data.table import TextTable

    def show(row: int, table: TextTable) -> str:
        label = -1 if table.labels_N is None else int(table.labels_N[row])
        name = dataset.label_names[label] if label >= 0 else "(no label)"
        pair = f"  |  {table.texts_b[row]}" if table.texts_b else ""
        return f"    {table.ids[row]}  {name}: {table.texts[row]}{pair}"

    dataset = load_dataset(args.name, text=args.text, text_b=args.text_b, label=args.label)
    print(f"{dataset.name}: classes {', '.join(dataset.label_names)}; digest {dataset.digest}")
    for note in dataset.notes:
        print(f"note: {note}")
    for split, table in dataset.splits.items():
        counts = ["no labels"]
        if table.labels_N is not None:
            counts = [
                f"{int((table.labels_N == number).sum()):,} {name}"
                for number, name in enumerate(dataset.label_names)
            ]
        print(f"  {split}: {len(table):,} examples ({', '.join(counts)})")
        for row in range(min(args.examples, len(table))):
            print(show(row, table))
