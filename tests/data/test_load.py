import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("review_snippets/movies", r"Did you mean 'review_snippets/movie'\?"),
        ("review_snippets", "unknown data set 'review_snippets'"),
        ("shopping_review_zh", r"Did you mean 'shopping_reviews_zh'\?"),
        ("", "unknown data set ''"),
        ("files:", "unknown data set 'files:'"),
        ("tfds", "Allowed: .*files:FOLDER, .*tfds:NAME"),
    ],
)
def test_unknown_names(spec, match):
    with pytest.raises(UserError, match=match):
        load_dataset(spec)
