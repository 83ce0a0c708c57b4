"""A useless teacher, or one whose classes are mixed up, does not pass in silence."""

import io
import re
import shlex
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console
from trained import knowing_head, saved

from distill_jax.cli.compare import parse_arguments, sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.supplies import Supplies
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.classification.teacher_check import Said, better_order
from distill_jax.teachers.manifest import read_manifest
from distill_jax.training.interrupt import StopRequest

LINE = r"teacher: right in ([\d.]+)% .* of 60 labelled training rows, ([\d.]+)% .* of 24 of valid"


@pytest.fixture(scope="module")
def head(toy_teacher, toy_reviews):
    return knowing_head(toy_teacher, toy_reviews)


@pytest.fixture
def sweep(toy_reviews, tmp_path, monkeypatch):
    """(teacher's folder, flags) -> sweep, options."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    usual = f"""--data files:{toy_reviews} --students 1x8x2 --objectives kl --seeds 0 --steps 2
        --evaluations 1 --batch-size 16 --max-shapes 1 --max-length 16 --track none""".split()

    def declare(teacher, *flags):
        given = flags if "--fine-tune" in flags else ("--no-fine-tune", *flags)
        args = parse_arguments([*usual, "--teacher", teacher, *given], "test")
        return sweep_of(args), args.options

    return declare


@pytest.fixture
def raised(sweep, tmp_path):
    """(teacher's folder, flags) -> what was said, the teacher's row; no student is trained."""

    def raise_teacher(teacher, *flags, folder="raised"):
        declared, options = sweep(teacher, *flags)
        out = io.StringIO()
        reporter = Reporter(Console(file=out, width=200))
        ledger = Ledger(tmp_path / folder / "ledger.jsonl")
        (tmp_path / folder).mkdir(exist_ok=True)
        with StopRequest(reporter.say) as stop:
            runs = tmp_path / folder / "runs"
            mesh = make_mesh(jax.devices()[:1])
            supplies = Supplies(Engine(runs, reporter, stop, "none", options, mesh=mesh), "test")
            supplies.raise_teacher(declared.entries()[0].cell, ledger)
        return out.getvalue(), ledger.rows()[-1]

    return raise_teacher


def hint_in(said):
    """The flag that a warning names, as a shell would pass it on."""
    return shlex.split(re.search(r"(--label-map '.*')", said)[1])


def test_a_good_teacher_passes_without_a_warning(head, raised, tmp_path):
    teacher = saved(tmp_path / "good", head, ("neg", "pos"))
    said, row = raised(teacher)
    assert "warning: the teacher" not in said and "data's order" not in said
    on_labels, on_validation = map(float, re.search(LINE, said).groups())
    assert on_labels > 90 and on_validation > 90
    assert row.metrics["check/accuracy"] == pytest.approx(on_validation / 100, abs=1e-3)
    assert row.metrics["check/accuracy"] > row.metrics["check/majority"] >= 0.5
    assert row.metrics["test/accuracy"] > 0.9
    again, _ = raised(teacher)
    assert "right in" not in again and "test accuracy" in again


def test_a_zeroed_head_is_found_out(head, raised, tmp_path):
    said, row = raised(saved(tmp_path / "zero", head, ("neg", "pos"), scale=0.0))
    assert re.search(r"warning: the teacher knows no more of validation than that '\w+' is", said)
    assert "it says 'neg' of every row" in said and "--label-map" not in said
    assert row.metrics["check/accuracy"] <= row.metrics["check/majority"]
    again, _ = raised(saved(tmp_path / "zero again", head, ("neg", "pos"), scale=0.0))
    assert "knows no more of validation" in again  # also where the row is there already


def test_a_fine_tuned_teacher_is_asked_too(head, raised, tmp_path):
    """A rate of next to nothing: it learns nothing."""
    teacher = saved(tmp_path / "good", head, ("neg", "pos"))
    flags = ("--fine-tune", "--teacher-epochs", "1", "--teacher-learning-rate", "1e-30")
    said, row = raised(teacher, *flags)
    assert row.metrics["check/accuracy"] <= row.metrics["check/majority"]
    assert "train it longer, on more labels" in said and "--label-map" not in said


def test_rows_of_the_head_that_are_swapped_are_named_and_put_right(head, raised, tmp_path):
    teacher = saved(tmp_path / "swapped", head, None, columns=(1, 0))
    said, row = raised(teacher)
    assert "seem to be in another order: LABEL_0 is pos, LABEL_1 is neg" in said
    assert row.metrics["test/accuracy"] < 0.1 and row.metrics["check/reordered"] > 0.9
    flag = hint_in(said)
    assert flag == ["--label-map", "LABEL_0=pos,LABEL_1=neg"]

    said, mended = raised(teacher, *flag)
    assert "warning: the teacher" not in said
    assert "classes are put in the data's order: neg is its LABEL_1 (output 1)" in said
    assert mended.metrics["test/accuracy"] == pytest.approx(1 - row.metrics["test/accuracy"])
    assert mended.fingerprints["teacher"] != row.fingerprints["teacher"]
    plain = saved(tmp_path / "plain", head, ("neg", "pos"))
    _, plain_row = raised(plain, folder="plain")
    assert mended.fingerprints["teacher"] == plain_row.fingerprints["teacher"]
    assert mended.hash == plain_row.hash


def test_a_wrong_map_is_named_too(head, raised, tmp_path):
    teacher = saved(tmp_path / "good", head, ("bad", "good"))
    said, _ = raised(teacher, "--label-map", "bad=pos,good=neg")
    assert hint_in(said)[1] in ("good=pos,bad=neg", "bad=neg,good=pos")
    said, row = raised(teacher, *hint_in(said))
    assert "warning: the teacher" not in said and row.metrics["test/accuracy"] > 0.9


def test_names_in_another_order_and_case_are_put_right(head, raised, tmp_path):
    teacher = saved(tmp_path / "turned", head, ("POS", "Neg"), columns=(1, 0))
    said, row = raised(teacher)
    assert "classes are put in the data's order: neg is its Neg (output 1), pos is its POS" in said
    assert row.metrics["test/accuracy"] > 0.9


def test_three_classes_teach_two(head, raised, tmp_path):
    teacher = saved(tmp_path / "three", head, ("good", "so-so", "bad"), columns=(1, -1, 0))
    with pytest.raises(UserError, match=r"not the data's: good, so-so, bad and neg, pos"):
        raised(teacher)
    said, row = raised(teacher, "--label-map", "good=pos,bad=neg")
    assert "left out: so-so" in said and row.config["model"]["num_labels"] == 2
    assert row.metrics["test/accuracy"] > 0.9


def test_a_map_for_a_fresh_head_is_refused(head, raised, tmp_path):
    with pytest.raises(UserError, match="a fine-tuned one gets a new head"):
        raised(saved(tmp_path / "good", head, None), "--fine-tune", "--label-map", "0=neg,1=pos")


def test_refuse_stops_before_anything_is_trained(head, raised, tmp_path):
    useless = saved(tmp_path / "zero", head, ("neg", "pos"), scale=0.0)
    with pytest.raises(UserError, match=r"knows no more of validation.*--teacher-check warn goes"):
        raised(useless, "--teacher-check", "refuse")
    swapped = saved(tmp_path / "swapped", head, None, columns=(1, 0))
    with pytest.raises(UserError, match="--label-map 'LABEL_0=pos,LABEL_1=neg'"):
        raised(swapped, "--teacher-check", "refuse")
    assert not (tmp_path / "raised/ledger.jsonl").exists()
    said, row = raised(useless, "--teacher-check", "off")
    assert "right in" not in said and "check/accuracy" not in row.metrics


def run(declared, folder):
    sweep, options = declared
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200))
    spec, rows = run_table(Classification(sweep), folder, reporter, track="none", options=options)
    return table_of(spec, rows), out.getvalue()


@pytest.fixture
def one_device(monkeypatch):
    """Compiles faster than eight."""
    engine = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", engine)


def test_a_whole_table_says_so_below_and_orders_agree_only_where_compared(
    head, sweep, tmp_path, one_device, capsys
):
    swapped = saved(tmp_path / "swapped", head, None, columns=(1, 0))
    table, said = run(sweep(swapped), tmp_path / "blind")
    assert "label orders agree" not in said
    assert "the teacher does not name its classes: they are taken in the data's order" in said
    assert any("is no better on validation than always saying" in note for note in table.notes)
    assert any("its classes seem to be in another order" in note for note in table.notes)

    flag = hint_in(said)
    with pytest.raises(UserError, match=r"another run at kl.*label_map.*--allow-change teacher"):
        run(sweep(swapped, *flag), tmp_path / "blind")
    table, said = run(sweep(swapped, *flag), tmp_path / "mapped")
    assert "label orders agree" not in said and "classes as --label-map says" in said
    assert not any("no better" in note or "another order" in note for note in table.notes)
    caches = {
        read_manifest(path).origin["columns"] is None: path
        for path in (tmp_path / "home/teacher_outputs").iterdir()
    }
    assert set(caches) == {True, False}
    for path in caches.values():  # the teacher of a cache is found again with its map
        dispatch(["cache", "verify", str(path), "--sample", "8"])
        assert "the teacher says the same" in capsys.readouterr().out

    named = saved(tmp_path / "named", head, ("neg", "pos"))
    _, said = run(sweep(named), tmp_path / "named table")
    assert "label orders agree" in said


def test_a_look_at_the_data_takes_the_same_map(head, sweep, toy_reviews, tmp_path, capsys):
    teacher = saved(tmp_path / "three", head, ("good", "so-so", "bad"), columns=(1, -1, 0))
    common = ["data", f"files:{toy_reviews}", "--teacher", teacher, "--no-fine-tune"]
    with pytest.raises(UserError, match="--label-map"):
        dispatch(common)
    dispatch([*common, "--label-map", "good=pos,bad=neg"])
    assert "left out: so-so" in capsys.readouterr().out


# The order that is named is no find of chance.


def said_by(rng, rows, classes, right, order=None):
    labels_N = rng.integers(classes, size=rows)
    said_N = np.where(rng.random(rows) < right, labels_N, rng.integers(classes, size=rows))
    return Said(said_N if order is None else order[said_N], labels_N)


@pytest.mark.parametrize("classes", [2, 5, 20, 77])
def test_noise_has_no_better_order(classes):
    rng = np.random.default_rng(classes)
    for rows in (10, 54, 300, 1500):
        for right in (0.0, 0.3, 0.9):
            assert better_order(said_by(rng, rows, classes, right), classes) is None, (rows, right)


@pytest.mark.parametrize("classes", [2, 5, 20])
def test_a_mixed_up_order_is_found(classes):
    rng = np.random.default_rng(classes)
    order = np.roll(np.arange(classes), 1)
    found = better_order(said_by(rng, 1000, classes, 0.8, order), classes)
    np.testing.assert_array_equal(found[order], np.arange(classes))


def test_two_of_five_classes_swapped_are_found():
    order = np.array([0, 2, 1, 3, 4])
    said = said_by(np.random.default_rng(0), 400, 5, 0.8, order)
    np.testing.assert_array_equal(better_order(said, 5), order)


def test_who_always_says_the_rarer_class_has_no_order():
    labels_N = np.arange(500) % 5 == 0
    assert better_order(Said(np.ones(500, int), labels_N.astype(int)), 2) is None
