"""Classes weigh as asked, in the hard term alone."""

import json

import pytest

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.cli.weights import class_weights, with_class_weights
from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import DataConfig


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Thirty rows of one class, ten of another."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"text number {n},{'rare' if n % 4 == 0 else 'usual'}" for n in range(40)]
    for split, shift in (("train", ""), ("validation", "v "), ("test", "t ")):
        lines = "\n".join(shift + row for row in rows)
        (folder / f"{split}.csv").write_text(f"sentence,label\n{lines}\n")
    return DataConfig(f"files:{folder}", label_fraction=1.0)


def test_balanced_classes_weigh_the_same_in_all(data):
    rare, usual = class_weights("balanced", data)
    assert 10 * rare == pytest.approx(20) and 30 * usual == pytest.approx(20, rel=1e-3)


def test_weights_from_a_file_stand_in_the_order_of_the_data(data, tmp_path):
    file = tmp_path / "weights.json"
    file.write_text(json.dumps({"usual": 1, "rare": 19}))
    assert class_weights(str(file), data) == (19.0, 1.0)
    file.write_text(file.read_text(), encoding="utf-8-sig")  # as Windows writes it
    assert class_weights(str(file), data) == (19.0, 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"usual": 1}', "'rare' needs a number"),
        ('{"usual": 1, "rare": -1}', "'rare' needs a number"),
        ('{"usual": 1, "rare": true}', "'rare' needs a number"),
        ('{"usual": 0, "rare": 0}', "all weights are 0"),
        ('{"usual": 1, "rar": 1}', "unknown class 'rar'.*Did you mean 'rare'"),
        ("[1, 2]", "expected"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (None, "'balanced' or a JSON file"),
    ],
)
def test_other_files_are_refused_in_one_line(data, tmp_path, content, words):
    file = tmp_path / "weights.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=words) as told:
        class_weights(str(file), data)
    assert "\n" not in str(told.value)


def test_the_hard_term_alone_is_weighed_and_rows_keep_their_names(data):
    assert with_class_weights("0.5*kl(T=2) + 0.5*ce", (1.0, 19.0)) == (
        "0.5*kl(T=2) + 0.5*ce(class_weights=[1, 19])"
    )
    assert with_class_weights("focal", (1.0, 19.0)) == "focal(class_weights=[1, 19])"
    said = "ce(class_weights=[2, 3])"
    assert with_class_weights(said, (1.0, 19.0)) == said
    sweep = sweep_of(
        CompareLosses(data=data.name, class_weights="balanced", objectives=("ce", "kl"))
    )
    assert {e.row: e.cell.objective for e in sweep.entries()} == {
        "ce": "ce(class_weights=[2, 0.6667])",
        "kl": "kl",
    }
    assert "weighs the classes: 2, 0.6667" in sweep.protocol[-1]
