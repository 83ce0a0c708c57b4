"""Tables of language models, small: from texts to a table, the same in every way."""

import dataclasses
import io
import re
from functools import partial

import jax
import numpy as np
import pytest
from language_tables import language, on_one_device, write_texts
from rich.console import Console
from safetensors.numpy import load_file

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.wordpiece import train_wordpiece
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.models.masked_bert import MASKED_BERTS
from distill_jax.tables.build import table_of
from distill_jax.tables.evidence import scores_by_example, weights_by_example
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.language.cells import LanguageDataConfig, LanguageSetup, LanguageTraining
from distill_jax.tasks.language.table import Language
from distill_jax.tasks.language.texts import prepare_texts
from distill_jax.training.interrupt import Interrupted
from distill_jax.training.step import CompiledStep

ROWS = {
    "ce": {},
    "kl": {"objective": "kl + 0.5*ce"},
    "hidden": {"objective": "kl + hidden_mse + attention_mse"},
}
SHORT = LanguageTraining(steps=3, evaluations=1, batch_size=8, max_shapes=1)


def run(sweep, folder, **how):
    out = io.StringIO()
    options = how.pop("options", RunOptions())
    how = {"strategy": "sequential", **how}
    spec, rows = run_table(
        Language(sweep), folder, Reporter(Console(file=out, width=400)), options=options, **how
    )
    return spec, {row.row: row for row in rows}, out.getvalue()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        on_one_device(patch)
        yield


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("texts"), 240)


@pytest.fixture(scope="module")
def teacher(texts, tmp_path_factory):
    """A folder of a model that was trained for some steps, and what came of it."""
    folder = tmp_path_factory.mktemp("teacher")
    training = dataclasses.replace(language(texts, ("ce",)).base.training, steps=60)
    sweep = language(texts, ("ce",), training=training, sizes=("2x16x2",))
    spec, rows, said = run(sweep, folder)
    return folder / "runs" / spec.places[0].hash / "model", rows["ce"], said


@pytest.fixture(scope="module")
def taught(texts, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    sweep = language(texts, ROWS, teacher=str(teacher[0]), seeds=(0, 1))
    return folder, sweep, *run(sweep, folder)


def test_a_model_learns_what_was_hidden(teacher):
    _, row, said = teacher
    assert row.history[-1]["nll"] < row.history[0]["nll"] < np.log(80)
    metrics = row.metrics
    assert metrics["test/perplexity"] == pytest.approx(np.exp(metrics["test/nll"]))
    assert 0 < metrics["test/top1"] < 1 and "test/kl" not in metrics
    assert re.search(r"training tokens of a vocabulary of [1-8]\d\n", said)
    assert "tokens that are [UNK]: train " in said
    assert "self-checks" in said and "passed" in said


def test_what_a_column_shows_is_what_its_test_tests(taught):
    for row in taught[3].values():
        for name in ("nll", "top1"):
            scores_N = scores_by_example(row, f"test/{name}")
            weights_N = weights_by_example(row, f"test/{name}")
            shown = np.average(scores_N, weights=weights_N)
            assert shown == pytest.approx(row.metrics[f"test/{name}"], rel=1e-4)


def test_a_table_has_its_teacher_and_how_far_students_are_from_it(taught, teacher):
    _, _, spec, rows, _ = taught
    assert rows["teacher"].metrics["test/nll"] == pytest.approx(
        teacher[1].metrics["test/nll"], rel=1e-4
    )
    assert all(rows[name].metrics["test/kl"] > 0 for name in ROWS)
    table = table_of(spec, Ledger(taught[0] / "ledger.jsonl").rows())
    assert len(table.rows) == len(ROWS) + 1
    assert any("hidden from every model" in line for line in spec.protocol)


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.long
@pytest.mark.parametrize(
    "way",
    [
        {"strategy": "vmap"},
        {"options": RunOptions(fsdp=2, accumulate=2, remat=True)},
    ],
    ids=("vmap", "fsdp"),
)
def test_every_way_gives_one_table(taught, texts, teacher, way, tmp_path, monkeypatch):
    folder = taught[0]
    if "options" in way:
        two = make_mesh(jax.devices()[:2])
        monkeypatch.setattr(run_module, "Engine", partial(Engine, mesh=two))
    seeds = (0, 1) if "strategy" in way else (0,)
    sweep = language(texts, {"kl": ROWS["kl"]}, teacher=str(teacher[0]), seeds=seeds)
    spec, _, _ = run(sweep, tmp_path, **way)
    for place in spec.places:
        found, expected = (weights(each / "runs" / place.hash) for each in (tmp_path, folder))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=3e-4, err_msg=name)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(texts, tmp_path, monkeypatch):
    one = make_mesh(jax.devices()[:1])
    sweep = language(texts, ("ce",), training=dataclasses.replace(SHORT, steps=6))
    engines = []

    def watched(*args):
        engines.append(Engine(*args, mesh=one))
        return engines[-1]

    monkeypatch.setattr(run_module, "Engine", watched)
    spec, _, _ = run(sweep, tmp_path / "whole")
    calls, step = [], CompiledStep.__call__

    def counted(*arguments):
        calls.append(1)
        engines[-1].stop.requested |= len(calls) == 4
        return step(*arguments)

    monkeypatch.setattr(CompiledStep, "__call__", counted)
    with pytest.raises(Interrupted):
        run(sweep, tmp_path / "stopped")
    _, _, said = run(sweep, tmp_path / "stopped", options=RunOptions(resume="must"))
    assert "goes on from step" in said
    place = f"runs/{spec.places[0].hash}"
    whole, stopped = (weights(tmp_path / name / place) for name in ("whole", "stopped"))
    for name, values in whole.items():
        np.testing.assert_array_equal(stopped[name], values)


def test_it_goes_on_from_a_checkpoint_and_keeps_its_tokeniser(texts, teacher, tmp_path):
    sweep = language(texts, ("ce",), training=SHORT, start=str(teacher[0]), sizes=("4x256",))
    spec, rows, _ = run(sweep, tmp_path)
    kept = tmp_path / "runs" / spec.places[0].hash / "model" / "tokenizer.json"
    assert kept.read_bytes() == (teacher[0] / "tokenizer.json").read_bytes()
    assert rows["ce"].metrics["parameters"] == teacher[1].metrics["parameters"]
    assert rows["ce"].metrics["test/nll"] < teacher[1].history[0]["nll"]


def test_a_decoder_is_distilled_token_by_token(texts, tmp_path):
    spec, rows, _ = run(
        language(texts, ("ce",), asks="next", sizes=("2x16x2",)), tmp_path / "teacher"
    )
    folder = tmp_path / "teacher/runs" / spec.places[0].hash / "model"
    few = {"kl": ROWS["kl"]}
    sweep = language(texts, few, asks="next", teacher=str(folder), training=SHORT)
    spec, found, _ = run(sweep, tmp_path / "student")
    assert found["kl"].metrics["test/kl"] > 0
    assert found["teacher"].metrics["test/nll"] == pytest.approx(
        rows["ce"].metrics["test/nll"], rel=1e-4
    )
    assert any("all tokens but the first" in line for line in spec.protocol)


def test_what_does_not_fit_is_said_before_anything_is_trained(texts, teacher, tmp_path):
    tokenizer, start = tmp_path / "tokenizer.json", str(tmp_path / "start")
    train_wordpiece(["other words of other texts"] * 2, 64).save(str(tokenizer))
    small = MASKED_BERTS.sized("1x8", vocab_size=64, positions=16)
    drawn = MASKED_BERTS.init(small, jax.random.key(0))
    MASKED_BERTS.save(tmp_path / "start", small, drawn, tokenizer, 16)
    for given, message in (
        ({"teacher": str(teacher[0]), "start": start}, "different tokenisers"),
        ({"teacher": str(tmp_path)}, r"has no config\.json"),
        ({"asks": "next", "teacher": str(teacher[0])}, "is not of a distill_jax_decoder"),
    ):
        sweep = language(texts, ("ce",), training=SHORT, **given)
        with pytest.raises(UserError, match=message):
            run(sweep, tmp_path / "nothing")
    with pytest.raises(UserError, match="needs a teacher"):
        run(language(texts, ("kl",)), tmp_path / "nothing")
    with pytest.raises(UserError, match="starts by chance"):
        run(language(texts, ("ce",), sizes=("l2",)), tmp_path / "nothing")
    assert not list((tmp_path / "nothing/runs").glob("*/model"))


def test_settings_out_of_range_are_said():
    for make, message in (
        (partial(LanguageDataConfig, max_length=3), "from 4 to 512"),
        (partial(LanguageDataConfig, mask_share=1.0), r"in \(0, 1\)"),
        (partial(LanguageDataConfig, words="letters"), "words"),
        (partial(LanguageTraining, epochs=0.0), "positive"),
        (partial(LanguageTraining, batch_size=0), "at least 1"),
        (partial(LanguageSetup, asks="all"), "asks"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_long_texts_are_read_on_where_the_next_token_is_asked_for(texts):
    config = LanguageDataConfig(f"text:{texts}", vocab_size=80, max_length=8)
    whole, cut = (prepare_texts(config, asks, None) for asks in ("next", "masked"))
    assert all(each.cut == 0 for each in whole.coverage.values())
    assert all(each.cut == 1 for each in cut.coverage.values())
    for split, table in whole.tables.items():
        assert len(table) > len(cut.tables[split]) and table.asked_S is not None
        told = f"{split}: {len(cut.tables[split]):,} texts of more than 8 tokens are read on in "
        assert any(note.startswith(told) for note in whole.notes)
    assert not any("further windows" in note for note in cut.notes)
