"""The plan of the published recipes: costs add up, what is missing is named, nothing is fetched."""

import io
import subprocess
import sys
import time

import pytest
from rich.console import Console

from distill_jax.cli import glue
from distill_jax.core.errors import UserError
from distill_jax.tasks.classification import recipe_costs
from distill_jax.tasks.classification.recipes import RECIPES, Size, find_recipe


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))


def test_the_plan_names_every_recipe_and_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(glue, "have_weights", lambda name, folder: name.startswith("google/"))
    glue.main(["--plan", "--no-measure"])
    told = capsys.readouterr().out
    for recipe in RECIPES:
        assert f"{recipe.name}: {recipe.paper}" in told
        assert all(stage.objective in told for stage in recipe.stages)
        assert all(words in told for words in (*recipe.unverified, *recipe.departures))
    assert "missing: weights google-bert/bert-base-uncased as safetensors (all recipes)" in told
    assert "TinyBERT_General_4L_312D as safetensors (tinybert-4)" in told
    assert "missing: weights google/" not in told
    assert "missing: data tfds:glue/sst2" in told
    assert "Cost: not measured." in told


def test_steps_and_costs_add_up(monkeypatch):
    monkeypatch.setattr(glue, "_estimator", lambda tokens: lambda stage, student: 0.5)
    teacher, first, second = glue.plan_lines([find_recipe("tinybert-4")], 3, 32)
    assert (teacher.cells, teacher.steps) == (1, 4 * 2105)
    assert (first.cells, first.steps, first.stage) == (3, 10 * 2105, "intermediate")
    assert first.seconds == 3 * 21050 * 0.5
    assert second.steps == 3 * 2105


def test_one_program_is_compiled_and_timed_whatever_the_recipes(monkeypatch):
    """That is what keeps the plan of all recipes under half a minute on a busy machine."""
    traced, timed = [], []
    apply, clock = recipe_costs.Bert.apply, time.perf_counter

    def counted_apply(*args, **kwargs):
        traced.append(args)
        return apply(*args, **kwargs)

    def counted_clock():
        timed.append(clock())
        return timed[-1]

    monkeypatch.setattr(recipe_costs, "MEASURED", Size(1, 16, 2))
    monkeypatch.setattr(recipe_costs.Bert, "apply", counted_apply)
    monkeypatch.setattr(recipe_costs.time, "perf_counter", counted_clock)
    lines = glue.plan_lines(RECIPES, 3, 8)
    assert len(traced) == 1
    assert len(timed) == 2 * 3
    assert len(lines) > 12 and all(line.seconds > 0 for line in lines)
    by_recipe = {(line.recipe, line.stage): line.seconds_per_step for line in lines}
    assert by_recipe["turc-tiny", "distillation"] < by_recipe["turc-medium", "distillation"]


@pytest.mark.parametrize("seconds", [None, 0.0051, 89.4, 5400 * 1.1])
def test_the_plan_fits_eighty_columns(monkeypatch, seconds):
    """Every name and number is there, none cut."""
    monkeypatch.setattr(glue, "_estimator", lambda tokens: lambda stage, student: seconds)
    lines = glue.plan_lines(RECIPES, 3, 32)
    out = io.StringIO()
    Console(file=out, width=80).print(glue.plan_table(lines))
    printed = out.getvalue().splitlines()
    assert max(map(len, printed)) <= 80 and "…" not in out.getvalue()
    for line in lines:
        shown = (line.recipe, line.model, line.stage, str(line.cells), f"{line.steps:,}")
        times = (glue.duration(line.seconds_per_step), glue.duration(line.seconds))
        cells = " ".join([*shown, *times]).split()
        assert any(row.split() == cells for row in printed), cells


def test_in_a_narrow_terminal_names_are_folded_and_numbers_whole(monkeypatch):
    monkeypatch.setattr(glue, "_estimator", lambda tokens: lambda stage, student: 5000.0)
    out = io.StringIO()
    Console(file=out, width=60).print(glue.plan_table(glue.plan_lines(RECIPES, 3, 32)))
    assert "…" not in out.getvalue()
    assert "21,050" in out.getvalue()


def test_no_measurement_no_cost():
    assert all(line.seconds is None for line in glue.plan_lines(RECIPES, 1, None))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.012, "12 ms"),
        (0.0051, "5.1 ms"),
        (3.42, "3.4 s"),
        (89, "89 s"),
        (420, "7.0 min"),
        (54_000, "15 h"),
        (345_600, "4.0 d"),
    ],
)
def test_durations(seconds, text):
    assert glue.duration(seconds) == text


def test_weights_in_a_folder(tmp_path):
    assert not glue.have_weights("someone/model-x", tmp_path)
    folder = tmp_path / "model-x"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("")
    assert not glue.have_weights("someone/model-x", tmp_path)
    (folder / "model.safetensors").write_text("")
    assert glue.have_weights("someone/model-x", tmp_path)


def test_data_in_a_folder(tmp_path):
    assert not glue.have_data(f"files:{tmp_path}")
    (tmp_path / "train.tsv").write_text("")
    assert not glue.have_data(f"files:{tmp_path}")
    (tmp_path / "dev.tsv").write_text("")
    assert glue.have_data(f"files:{tmp_path}")


def test_data_prepared_for_tfds(tmp_path):
    assert not glue.have_data("tfds:glue/sst2")
    version = tmp_path / "tfds" / "glue" / "sst2" / "2.0.0"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    assert glue.have_data("tfds:glue/sst2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--plan"),
        (["--plan", "--recipes", "pkd6"], "Did you mean 'pkd-6'"),
        (["--plan", "--tokens", "2"], "--tokens"),
        (["--plan", "--no-measure", "--data", "sst2"], "files:FOLDER"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        glue.main(arguments)


def test_the_script_without_measuring_does_not_import_jax(tmp_path):
    program = (
        "import sys\nfrom distill_jax.cli.glue import GluePublished, plan_table\n"
        "assert 'jax' not in sys.modules and 'rich' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
