from distill_jax.data.load import load_dataset
from distill_jax.data.shopping_reviews_zh import read_reviews
from distill_jax.data.table import fold


def test_repetitions_blanks_and_contradictions_are_dropped(tmp_path):
    (tmp_path / "pos.txt").write_text("很好\n\n  很好\n不错 \n两可\n", encoding="utf-8")
    (tmp_path / "neg.txt").write_text("两可\n太差\n太差\n", encoding="utf-8")
    found = {(r.id, r.text, r.label) for r in read_reviews(tmp_path)}
    assert found == {
        ("positive_1", "很好", "positive"),
        ("positive_4", "不错", "positive"),
        ("negative_2", "太差", "negative"),
    }


def test_the_real_reviews(fetch_asset, shared_home):
    fetch_asset("shopping-reviews-zh")
    dataset = load_dataset("shopping_reviews_zh", home=shared_home)
    assert dataset.digest == "71f95532f2610031"
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    assert sizes == {"train": 13895, "validation": 1747, "test": 1719}
    texts = [{fold(text) for text in table.texts} for table in dataset.splits.values()]
    assert len(set.union(*texts)) == sum(sizes.values())
    for table in dataset.splits.values():
        for example, label in zip(table.ids, table.labels_N, strict=True):
            assert example.startswith(dataset.label_names[label])
