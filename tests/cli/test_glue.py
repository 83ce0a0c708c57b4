"""The plan of the published recipes: costs add up, what is missing is named, nothing is fetched."""

import subprocess
import sys

import pytest

from distill_jax.cli import glue
from distill_jax.core.errors import UserError
from distill_jax.sweeps.recipes import RECIPES, find_recipe


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
    monkeypatch.setattr(glue, "_measured", lambda stage, student, tokens: 0.5)
    teacher, first, second = glue.plan_lines([find_recipe("tinybert-4")], 3, 32)
    assert (teacher.cells, teacher.steps) == (1, 4 * 2105)
    assert (first.cells, first.steps, first.stage) == (3, 10 * 2105, "intermediate")
    assert first.seconds == 3 * 21050 * 0.5
    assert second.steps == 3 * 2105


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
