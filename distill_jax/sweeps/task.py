"""The examples of an experiment, tokenised, with the labels that it may use."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.files import home
from distill_jax.data.plan import choose_lengths
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.table import TextDataset
from distill_jax.data.tokenise import TokenTable, tokenise_dataset
from distill_jax.sweeps.cells import DataConfig


@dataclass(frozen=True, eq=False)
class Task:
    """What a table is trained and tested on.

    Attributes:
      labelled: the training examples whose labels are used.
      everything: all training examples; those without a usable label have label -1.
      validation, test: fully labelled.
      shape_lengths: lengths of training batches; at most a tenth of an epoch is padding, where
        so many shapes can do that.
      few_lengths: three to five, for work too short to be worth more compilations: evaluation,
        and fine-tuning on few labels. They depend on the data alone, and so does the teacher.
      digest: content of all of it, the choice of labels included.
    """

    config: DataConfig
    label_names: tuple[str, ...]
    labelled: TokenTable
    everything: TokenTable
    validation: TokenTable
    test: TokenTable
    shape_lengths: tuple[int, ...]
    few_lengths: tuple[int, ...]
    digest: str
    tokens_digest: str

    def training_table(self, *, with_teacher: bool) -> TokenTable:
        """All sentences where a teacher speaks of them, else those with labels."""
        return self.everything if with_teacher else self.labelled


FEW_SHAPES = 3
EVALUATION_BATCH = 64


def prepare_task(
    config: DataConfig,
    dataset: TextDataset,
    tokenizer_file: Path,
    *,
    batch_size: int,
    max_shapes: int,
) -> Task:
    """Tokenise a data set and choose the labels to use. What was prepared before is reused."""
    tokens = tokenise_dataset(
        dataset, tokenizer_file, max_length=config.max_length, cache=home() / "tokens"
    )
    train = tokens.splits["train"]
    rows = labelled_rows(train, config.label_fraction)
    longest = max(int(table.lengths_N.max()) for table in tokens.splits.values())
    lengths_N = np.append(train.lengths_N, longest)
    fine = choose_lengths(lengths_N, batch_size=EVALUATION_BATCH)
    return Task(
        config=config,
        label_names=tokens.label_names,
        labelled=train.take(rows),
        everything=train.without_labels(np.setdiff1d(np.arange(len(train)), rows)),
        validation=tokens.splits["validation"],
        test=tokens.splits["test"],
        shape_lengths=choose_lengths(lengths_N, batch_size=batch_size, max_shapes=max_shapes),
        few_lengths=fine[:: -max(1, len(fine) // FEW_SHAPES)][::-1],
        digest=digest({"tokens": tokens.digest, "label_fraction": config.label_fraction}),
        tokens_digest=tokens.digest,
    )
