"""What students listen on: the rest, none, only; other data's texts; clients' parts."""

from types import SimpleNamespace

import pytest

from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.data.table import fold
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import load_texts, prepare_texts


@pytest.fixture
def splits(small_table, toy_teacher):
    checkpoint = load_checkpoint(str(toy_teacher), num_labels=2, fresh=False)

    def prepared(**changes):
        data = sweep_of(small_table(**changes)).base.setup.data
        return prepare_texts(data, load_texts(data), checkpoint.tokenizer_file)

    return prepared


def test_the_examples_without_labels_alone(splits):
    rest, only = splits(), splits(transfer="only")
    labelled = set(rest.labelled.ids)
    assert set(only.everything.ids) == set(rest.everything.ids) - labelled
    assert (only.everything.labels_N < 0).all() and set(only.labelled.ids) == labelled
    assert only.digest != rest.digest and only.labels_digest == rest.labels_digest
    with pytest.raises(UserError, match="the labels of all training examples are used"):
        splits(transfer="only", label_fraction=1.0)


def test_clients_share_the_labels_out_and_the_rest_is_everybodys(splits):
    whole = splits()
    parts = [splits(client=f"{number}/3") for number in (1, 2, 3)]
    owned = [set(part.labelled.ids) for part in parts]
    assert set.union(*owned) == set(whole.labelled.ids)
    assert sum(map(len, owned)) == len(whole.labelled)
    shared = set(whole.everything.ids) - set(whole.labelled.ids)
    for part, own in zip(parts, owned, strict=True):
        assert set(part.everything.ids) == shared | own
    assert len({part.labels_digest for part in (whole, *parts)}) == 4
    skewed = splits(client="1/3", client_alpha=0.5)
    assert set(skewed.labelled.ids) != owned[0]
    with pytest.raises(UserError, match="expected K/N, 2/3 say"):
        splits(client="4/3")


def test_more_texts_join(splits, toy_reviews, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("train", "dev", "test"):
        lines = "id,sentence,label\n" + "".join(
            f"{name}{n},another {'good' if n % 2 else 'bad'} thing {n},{'pn'[n % 2]}\n"
            for n in range(6)
        )
        (tmp_path / f"more/{name}.csv").write_text(lines)
    wider = splits(more_texts=(f"files:{tmp_path / 'more'}",))
    assert len(wider.everything) > len(splits().everything)
    added = [example for example in wider.everything.ids if "more#" in example]
    assert added and set(wider.labelled.ids) == set(splits().labelled.ids)
    seen = ClassifierRun.seen.func(SimpleNamespace(splits=wider))
    assert fold("another good thing 1") in seen["train"]
