"""The benchmarks run, in small and without PyTorch, and their pages say what they found."""

import json
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benches import BENCH, bench_module
from haste import HASTE
from scripts import ROOT

from distill_jax.core.errors import UserError
from distill_jax.models.bert import init_bert
from distill_jax.models.students import PRESETS


@pytest.fixture
def race():
    return bench_module("race")


@pytest.fixture
def made():
    """Three tables: ours twice, and one that takes four times as long."""
    Made = bench_module("race_page").Made

    def of(name, seconds, kl):
        accuracy = {"teacher": {0: 0.8}, "kl": dict(enumerate(kl))}
        counts = {"compiled": 9, "cached": 2, "steps": 7}
        return Made(name, seconds, {"steps": seconds / 2, "total": seconds}, accuracy, counts)

    return [
        of("ours, cold", 100.0, (0.76, 0.77, 0.78)),
        of("ours, warm", 50.0, (0.76, 0.77, 0.78)),
        of("torch-f32", 400.0, (0.76, 0.78, 0.77)),
        of("torch-f32", 200.0, (0.76, 0.78, 0.77)),
    ]


@pytest.mark.long
def test_a_race_without_torch(race, tmp_path, monkeypatch):
    """Slow: five processes, two of which make a table."""
    monkeypatch.setenv("XLA_FLAGS", HASTE)  # one device
    flags = "--objectives ce kl --seeds 0"
    race.main(race.Arguments(("ours",), flags=flags, rounds=1, tiny=True, output=tmp_path))
    told = json.loads((tmp_path / "race.json").read_text())
    cold, warm = told["tables"]
    assert (cold["name"], warm["name"]) == ("ours, cold", "ours, warm")
    assert cold["accuracy"] == warm["accuracy"] and cold["accuracy"].keys() == {
        "teacher",
        "ce",
        "kl",
    }
    assert warm["counts"]["compiled"] <= cold["counts"]["compiled"]
    assert cold["counts"]["steps"] <= 2 * 8 + 2  # runs of 8 steps, and the teacher
    assert {"compile", "imports", "evaluation"} <= cold["phases"].keys()
    assert cold["phases"]["total"] <= cold["seconds"]
    assert "student step, tiny" in told["steps"]
    assert "ours, warm" in (tmp_path / "race.md").read_text()


def test_competitors_are_known_and_there(race, monkeypatch):
    with pytest.raises(UserError, match="no competitor 'torch'"):
        race.main(race.Arguments(("torch",)))
    monkeypatch.setattr(race.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="make bench installs it"):
        race.main(race.Arguments(("ours", "torch-f32")))


def test_ratios_are_over_ours(made):
    page = bench_module("race_page")
    heading, cold, warm, torch = page.table_lines(made)
    assert heading[:4] == ["table", "seconds", "/ ours, cold", "/ ours, warm"]
    assert cold[1:4] == ["100", "1.00", "2.00"] and warm[1:4] == ["50", "0.50", "1.00"]
    assert torch[1:] == ["300", "3.00", "6.00", "80.0", "77.0 ± 1.0"]
    assert ["steps", "50.0", "25.0", "200.0"] in page.phase_lines(made)


def test_accuracies_are_compared_by_their_noise(made):
    page = bench_module("race_page")
    worse = page.Made("torch-bf16", 1.0, {}, {"kl": {0: 0.70, 1: 0.71, 2: 0.72}}, {})
    said = page.largest_difference([*made, worse])
    assert "-6.0 points (`kl`, torch-bf16), 7.3 standard errors, of 2 compared" in said
    assert page.largest_difference(made[:2]) == ""


def test_step_times_are_medians_and_ratios():
    steps = bench_module("steps")
    seconds = {"one": {"ours": [0.01, 0.03, 0.02], "torch-f32": [0.04]}, "two": {"ours": [0.5]}}
    heading, one, two = steps.lines(seconds)
    assert heading == ["step", "ours, ms", "torch-f32, ms", "torch-f32 / ours"]
    assert one == ["one", "20.0", "40.0", "2.00"] and two == ["two", "500.0", "–", "–"]


def test_sizes_that_are_timed_are_those_of_the_table():
    worker = bench_module("worker")
    tiny, preset = worker.FULL.students["student step, tiny"], PRESETS["tiny"]
    assert (tiny.layers, tiny.width, tiny.heads) == (
        preset.num_layers,
        preset.hidden_size,
        preset.num_heads,
    )
    assert worker.FULL.examples % worker.FULL.rows == 0
    tokens = worker.draw_tokens(worker.FULL)
    assert tokens.shape == (worker.FULL.examples, worker.FULL.tokens)
    assert tokens.min() >= worker.FIRST_WORD and tokens.max() < worker.VOCABULARY
    assert 12_000 < len(np.unique(tokens)) < 14_000  # as in the movie reviews


def test_a_moment_is_filed_by_room():
    phases = bench_module("phases")
    seen = []

    @jax.jit
    def traced(x):
        seen.append(phases.phase_of(phases.frames_of(sys._getframe())))
        return x

    traced(jnp.zeros(()))
    assert seen == ["compile"]
    package = "/somewhere/distill_jax"
    training = (f"{package}/training/drive.py", "run")
    assert phases.phase_of([training]) == "steps"
    teacher = (f"{package}/tasks/classification/teacher.py", "fine_tuned")
    assert phases.phase_of([teacher, training]) == "fine-tuning the teacher"
    evaluation = (f"{package}/evaluation/predict.py", "predict_logits")
    assert phases.phase_of([training, evaluation]) == "evaluation"
    assert phases.phase_of([("<frozen importlib._bootstrap>", "_load"), training]) == "imports"
    assert phases.phase_of([("/elsewhere.py", "main")]) is None


def test_the_parts_of_rooms_are_there():
    """A file that has moved would be filed under another phase."""
    phases = bench_module("phases")
    parts = [part for _, parts in phases.ROOMS for part in parts] + [phases.TEACHER]
    files = {str(path) for path in (ROOT / "distill_jax").rglob("*.py")}
    own = [part for part in parts if part != "matplotlib/"]
    assert [part for part in own if not any(part in file for file in files)] == []


def test_a_script_runs_as_it_would_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, time\ntime.sleep(0.1)\nsys.exit(sys.argv[1:] != ['--flag'])\n")
    phases, argv = bench_module("phases"), sys.argv
    try:
        with pytest.raises(SystemExit) as end:
            phases.main(tmp_path / "phases.json", str(script), ["--flag"])
    finally:
        sys.argv = argv
    told = json.loads((tmp_path / "phases.json").read_text())
    assert not end.value.code
    assert sum(v for name, v in told["seconds"].items() if name != "total") >= 0.05


@pytest.mark.long
def test_one_accelerator_in_small(capsys, tmp_path):
    """Slow: seven programs."""
    gpu = bench_module("gpu")
    told = gpu.main(tiny=True, output=tmp_path / "gpu.json")
    assert [line[0] for line in told["lines"]][:5] == [
        "student step, logits kept",
        "student step, logits kept, pmap",
        "student step, teacher asked",
        "teacher forward",
        "teacher's fine-tuning step",
    ]
    assert all(seconds > 0 for _, seconds, _, _ in told["lines"])
    assert "the peak of this device is not known here" in capsys.readouterr().out
    assert json.loads((tmp_path / "gpu.json").read_text())["peak"] is None


def test_flops_are_those_of_the_matrices():
    """Twice the kernels' sizes for each token, and attention's two products."""
    gpu = bench_module("gpu")
    config = gpu.TINY.teacher
    shapes = jax.eval_shape(lambda key: init_bert(config, key), jax.random.key(0))
    layers = [value for name, value in shapes.items() if name.startswith("layer_")]
    kernels = [leaf for leaf in jax.tree.leaves(layers) if leaf.ndim == 2]
    products = 2 * 2 * 16 * config.hidden_size * config.num_layers
    expected = 8 * 16 * (2 * sum(leaf.size for leaf in kernels) + products)
    assert gpu.forward_flops(config, rows=8, tokens=16) == expected


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("TPU v5 lite", 197e12),
        ("TPU v4", 275e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce GTX 1060", None),
    ],
)
def test_peaks_are_known_by_a_devices_name(kind, peak):
    class Device:
        device_kind = kind

    assert bench_module("gpu").peak_of(Device()) == peak


def test_every_script_says_how_it_is_run():
    commands = ("race", "steps", "gpu", "export", "torch_table", "phases")
    for name in commands:
        assert f"tools/bench/{name}.py" in (BENCH / f"{name}.py").read_text().split('"""')[1]
    assert Counter(Path(file).suffix for file in BENCH.iterdir())[".py"] >= len(commands)
