"""Tables of a shop's data: windows, vectors of a file, large catalogues, strangers."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from recsys import small_split
from rich.console import Console
from small_tables import walks

from distill_jax.core.errors import UserError
from distill_jax.data.interactions import RankingSplit
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.recommend import evaluate
from distill_jax.export.vectors import export_vectors
from distill_jax.models.recommenders.closed_forms import CLOSED_FORMS
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import RecData, RecModel, RecTeacher
from distill_jax.tasks.recommendation.runs import closed_form_row
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.training.interrupt import Interrupted
from distill_jax.training.recommender import FitConfig

LENGTH, WIDTH = 3, 4
TRAINING = FitConfig(epochs=1, eval_every=1, batch_size=16, windows=True)
KL = "0.5*full_softmax + 0.5*kl(top=5)"


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=40, num_items=25)


def vectors_in(folder, split, seed=0):
    """A file of vectors of all items but the last, and of one that nobody knows."""
    items = [*split.data.item_names[:-1], "elsewhere"]
    vectors = np.random.default_rng(seed).normal(size=(len(items), WIDTH)) * [1, 9, 0.1, 0] + 3
    np.save(folder / f"v{seed}.npy", vectors)
    (folder / f"v{seed}.csv").write_text("item\n" + "\n".join(items) + "\n")
    return str(folder / f"v{seed}.npy")


def shop(file, names=("sasrec-1x4-id+vectors",)):
    """Students that read a file's vectors, as their teacher does, or not."""
    teacher = RecModel("sasrec-1x8-vectors", LENGTH)
    sweep = walks({"labels": {"objective": "full_softmax"}, "kl": {"objective": KL}})
    base = sweep.base.but(
        data=RecData("walks", item_vectors=file),
        teacher=RecTeacher(teacher, training=TRAINING, top=8),
        training=TRAINING,
    )
    groups = axis("model", {name: RecModel(name, LENGTH) for name in names})
    references = ("popularity", "ease")
    return dataclasses.replace(sweep, base=base, groups=groups, seeds=(0, 1), references=references)


def run(sweep, folder, split, strategy="sequential"):
    said = []
    reporter = Reporter(Console(quiet=True))
    object.__setattr__(reporter, "say", said.append)
    spec, rows = run_table(Recommendation(sweep, split), folder, reporter, strategy=strategy)
    return spec, rows, said


@pytest.fixture(scope="module")
def finished(tmp_path_factory, split):
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        small = dataclasses.replace(CLOSED_FORMS["ease"], most_items=24)
        patch.setitem(CLOSED_FORMS, "ease", small)
        return folder, *run(shop(vectors_in(folder, split)), folder, split, "vmap")


def test_what_stands_under_the_table(finished):
    """Objectives of rows, shares of the targets, what was left out; said before training, too."""
    _, spec, _, said = finished
    told = "\n".join(spec.protocol)
    assert "Objectives: labels = full_softmax" in told
    assert "; kl = 0.5*full_softmax + 0.5*kl(" in told
    for model in ("sasrec-1x8-vectors", "sasrec-1x4-id+vectors"):
        share = f"{model} learns from 100% of the training targets, in windows of 3"
        assert share in told and f"{share}." in said
    assert "ease needs items x items numbers and is not fitted to more than 24 items" in told
    assert "note: 1 of 25 items have no vector in v0.npy: the mean" in said
    assert "note: 1 of 25 vectors in v0.npy are of no item here" in said


def test_a_catalogue_too_large_for_a_reference_runs_through(finished):
    _, spec, rows, said = finished
    assert [place.row for place in spec.teachers] == ["teacher", "popularity", "item_knn"]
    assert {row.row for row in rows} == {"teacher", "popularity", "item_knn", "labels", "kl"}
    first = next(n for n, line in enumerate(said) if "teacher" in line and "NDCG" in line)
    assert any("stands in its place" in line for line in said[:first])


def test_a_run_of_vectors_is_asked_and_exported_as_it_was_measured(finished, split, tmp_path):
    folder, spec, rows, _ = finished
    place = next(p for p in spec.places if p.group.endswith("vectors") and p.row == "kl")
    (row,) = (row for row in rows if row.hash == place.hash)
    opened = open_recommender(folder / "runs" / place.hash)
    report = evaluate(opened.model.scorer, split, ks=(10,))
    assert report.metrics["ndcg@10"] == pytest.approx(row.metrics["test/ndcg@10"])
    with pytest.raises(UserError, match="a new item has none"):
        opened.recommend("item 3", new_items=("Dune | Sci-Fi",))
    export_vectors(folder / "runs" / place.hash, tmp_path / "vectors")
    assert not (tmp_path / "vectors" / "item.stablehlo").exists()


def test_the_vectors_own_what_reads_them(finished, split):
    """Other vectors, other runs: the file's name does not count, its content does."""
    folder, spec, _, _ = finished
    (folder / "copy").mkdir()
    hashes = {}
    for name, seed, where in (("same", 0, folder / "copy"), ("other", 1, folder)):
        sweep = shop(vectors_in(where, split, seed), ("sasrec-1x4", "sasrec-1x4-id+vectors"))
        task = Recommendation(sweep, split)
        entries = sweep.entries()
        task.prepare(silent(lambda line: None), entries)
        hashes[name] = [task.run(entry).hash for entry in entries if entry.row == "labels"]
    own = [place.hash for place in spec.places if place.row == "labels"]
    assert hashes["same"][2:] == own
    assert [one == other for one, other in zip(hashes["same"], hashes["other"], strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_model_of_vectors_without_a_file_is_refused(tmp_path, split):
    with pytest.raises(UserError, match="give a file"):
        run(shop(None), tmp_path, split)


def test_windows_train_on_what_lies_further_back(split, finished):
    """The newest window alone has fewer steps; both come out, and differ."""
    _, _, rows, _ = finished
    cell = shop(None).base
    newest = dataclasses.replace(TRAINING, windows=False)
    assert cell.but(data_digest="d").hash != cell.but(data_digest="d", training=newest).hash
    steps = {row.history[-1]["step"] for row in rows if row.row in ("labels", "kl")}
    counts = split.train_ends_U - split.data.offsets_U1[:-1] - 1
    windows = np.ceil(counts[counts > 0] / LENGTH).sum()
    assert steps == {int(np.ceil(windows / 16))} and windows > (counts > 0).sum()


def test_a_stop_is_heard_by_closed_forms(split, tmp_path, monkeypatch):
    def stop():
        raise Interrupted

    engine = SimpleNamespace(check_stop=stop)
    for name in ("ease", "item_knn"):
        with pytest.raises(Interrupted):
            closed_form_row(Catalogue(engine, split), "walks", name, None, None)


def test_the_table_measures_what_users_nobody_trained_on_are_shown(tmp_path):
    """A matrix factorisation has a vector of theirs that was never trained."""
    whole = small_split(num_users=30, num_items=25)
    ends_U = whole.train_ends_U.copy()
    strangers = whole.test.users_E[::3]
    ends_U[strangers] = whole.data.offsets_U1[strangers]
    split = RankingSplit(whole.data, ends_U, whole.validation, whole.test, whole.protocol)
    sweep = walks({"labels": {"objective": "full_softmax"}})
    base = sweep.base.but(teacher=None, training=dataclasses.replace(TRAINING, epochs=4))
    groups = axis("model", {"bpr_mf-4": RecModel("bpr_mf-4", 8)})
    spec, (row,), _ = run(dataclasses.replace(sweep, base=base, groups=groups), tmp_path, split)
    opened = open_recommender(tmp_path / "runs" / spec.places[0].hash)
    ranks = unpack_numbers(row.test_scores["rank"])
    names, histories = split.data.item_names, split.test.histories(split.data)
    targets = split.test.targets_E(split.data)
    for case in np.flatnonzero(np.isin(split.test.users_E, strangers)):
        history = [names[item] for item in histories.part(case, case + 1).items_S]
        shown = [each.item for each in opened.recommend(history, 25)]
        assert shown.index(targets[case]) + 1 == ranks[case]


def test_peers_that_read_texts_are_left_out_where_there_are_none(split):
    data = dataclasses.replace(split.data, item_texts=None)
    plain = dataclasses.replace(split, data=data)
    peers = tuple(RecModel(f"sasrec-1x8{ending}", 8) for ending in ("-text", "", "-both"))
    sweep = walks({"labels": {"objective": "full_softmax"}})
    task, said = Recommendation(sweep, plain, peers=peers), []
    task.prepare(silent(said.append), sweep.entries())
    assert [peer.name for peer in task.peers] == ["sasrec-1x8"]
    note = "sasrec-1x8-text, sasrec-1x8-both: no row, as the data has no texts of items"
    assert f"note: {note}" in said
    of_texts = sweep.base.but(teacher=RecTeacher(RecModel("sasrec-1x8-text", 8)))
    with pytest.raises(UserError, match="--teacher sasrec-2x64"):
        other = dataclasses.replace(sweep, base=of_texts)
        Recommendation(other, plain).prepare(silent(said.append), other.entries())


def silent(say):
    """What preparing asks of an engine."""
    return SimpleNamespace(
        reporter=SimpleNamespace(say=say),
        check_batch_size=lambda size: None,
        options=SimpleNamespace(remat=False),
    )
