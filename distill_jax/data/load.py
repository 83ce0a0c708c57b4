"""``--data`` as text: which data set, from where."""

from pathlib import Path

from distill_jax.core.errors import unknown
from distill_jax.core.files import user_path
from distill_jax.data.labels import CLASSES, LabelColumn
from distill_jax.data.load_images import FORMS as IMAGE_FORMS
from distill_jax.data.table import TextDataset

BUILT_IN = (
    "review_snippets/movie",
    "review_snippets/product",
    "review_snippets/news",
    "review_snippets/tweet",
    "shopping_reviews_zh",
)
FORMS = (*BUILT_IN, "files:FOLDER", "tfds:NAME", *IMAGE_FORMS)


def load_dataset(
    spec: str,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    home: Path | None = None,
    labels: LabelColumn = CLASSES,
) -> TextDataset:
    """A data set by its name.

    Args:
      spec: one of ``BUILT_IN``; ``files:FOLDER`` for the user's own CSV, TSV or JSONL files;
        ``tfds:NAME`` for any TFDS name, ``tfds:glue/sst2`` say.
      text, text_b, label: columns of files and TFDS data; built-in data sets have their own.
      home: where assets and prepared data are kept, ``core.files.home()`` by default.
      labels: how they are read.

    Raises:
      UserError: if there is no such data set, or its content is not as expected.
    """
    # Imported when needed: TFDS takes a while, and many commands load one kind of data or none.
    kind, _, rest = spec.partition(":")
    if kind == "files" and rest:
        from distill_jax.data import files

        return files.load(user_path(rest), text=text, text_b=text_b, label=label, labels=labels)
    if kind == "tfds" and rest:
        from distill_jax.data import tfds_source

        return tfds_source.load(
            rest, text=text, text_b=text_b, label=label, home=home, labels=labels
        )
    if spec not in BUILT_IN:
        raise unknown("data set", spec, FORMS)
    if spec == "shopping_reviews_zh":
        from distill_jax.data import shopping_reviews_zh

        return labels.of_built_in(shopping_reviews_zh.load(home))
    from distill_jax.data import review_snippets

    return labels.of_built_in(review_snippets.load(spec.split("/")[1], home))
