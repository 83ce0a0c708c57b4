"""The whole way in small: reviews on disk, a teacher, students, a ledger, a table."""

import dataclasses
import io
import json
import re
import sys
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.objectives import plugins, registry
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import write_outputs
from distill_jax.tasks.classification.table import Classification
from distill_jax.teachers.manifest import read_manifest
from distill_jax.training.interrupt import Interrupted

OBJECTIVES = ("ce", "0.5*kl(T=2) + 0.5*ce", "hidden_mse + attention_kl + ce")


@pytest.fixture
def world(small_table):
    """(changes) -> arguments of a small table, see ``small_table``."""
    return partial(small_table, objectives=OBJECTIVES, track="tensorboard")


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=200))
    spec, rows = run_table(
        Classification(sweep_of(args)),
        folder,
        reporter,
        track=args.track,
        strategy=strategy,
        options=args.options,
    )
    return (spec, rows), out.getvalue()


def numbers(folder):
    """What a run must reproduce: everything measured but times."""
    return {
        (row.row, row.seed): {
            key: value for key, value in row.metrics.items() if not key.startswith("latency/")
        }
        for row in Ledger(folder / "ledger.jsonl").rows()
    }


def test_the_whole_way(world, tmp_path):
    (spec, _), said = run(world(), tmp_path / "out")
    assert "30 labelled and 30 unlabelled training examples, 24 validation, 30 test" in said
    assert said.count("self-checks: teacher deterministic, ") == 1

    unknown = int(re.search(r"data: warning: (\d+)% of the \w+ tokens are \[UNK\]", said)[1])
    assert any("does not know: train" in line for line in spec.protocol)
    rows = Ledger(tmp_path / "out/ledger.jsonl").rows()
    assert {row.metrics["train/cut"] for row in rows} == {0.0}
    shares = [{row.metrics[f"{s}/unknown"] for row in rows} for s in ("train", "test")]
    assert all(len(each) == 1 and 0.05 < min(each) <= (unknown + 1) / 100 for each in shares)
    assert [row.row for row in rows] == ["teacher"] + [o for o in OBJECTIVES for _ in range(2)]
    kl = rows[3]
    assert kl.config["objective"] == "0.5*kl(T=2) + 0.5*ce"
    assert kl.config["student"] == "1x8x2"
    assert 0 < kl.metrics["latency/p50_ms"] <= kl.metrics["latency/p95_ms"]
    assert set(kl.fingerprints) == {"teacher", "pretrained", "data", "tokens"}
    assert kl.selected_step in (3, 6)
    assert kl.seconds["train"] > 0
    for row in rows:  # the teacher's too: a temperature fitted on validation
        assert 0.01 <= row.metrics["temperature"] <= 100
        assert 0 <= row.metrics["test/ece_calibrated"] <= 1

    paths = write_outputs(table_of(spec, rows), tmp_path / "out")
    assert {"table.md", "table.tex", "table.csv", "figure.png", "report.html"} <= {
        path.name for path in paths
    }
    text = (tmp_path / "out/table.md").read_text()
    named = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| 1x8x2")]
    assert named == [objective.replace("*", r"\*") for objective in OBJECTIVES]
    assert "accuracy %: no test: fewer than 3 seeds." in text

    run_folder = tmp_path / "out/runs" / kl.hash
    history = json.loads((run_folder / "history.json").read_text())
    assert [entry["step"] for entry in history] == [3, 6]
    logits = np.load(run_folder / "test_logits.npz", allow_pickle=False)
    teacher = np.load(tmp_path / "out/runs" / rows[0].hash / "test_logits.npz", allow_pickle=False)
    agree_N = logits["logits_NC"].argmax(axis=1) == teacher["logits_NC"].argmax(axis=1)
    assert kl.metrics["test/fidelity"] == pytest.approx(agree_N.mean())
    correct_N = logits["logits_NC"].argmax(axis=1) == logits["labels_N"]
    assert correct_N.mean() == pytest.approx(kl.metrics["test/accuracy"])
    assert tuple(logits["label_names"]) == ("neg", "pos")
    calibration = json.loads((run_folder / "model/calibration.json").read_text())
    assert calibration["temperature"] == kl.metrics["temperature"]
    found = json.loads((run_folder / "mistakes.json").read_text())
    assert np.array(found["confusion"]).sum() == len(correct_N)
    assert len(found["worst"]) == min(20, (~correct_N).sum())
    assert all(len(each["texts"]) == 1 and each["texts"][0] for each in found["worst"])
    assert logits["logits_NC"].shape == (30, 2)
    assert any((run_folder / "events").iterdir())
    assert (run_folder / "model/model.safetensors").is_file()
    assert not (run_folder / "checkpoint").exists()

    assert re.search(r"\d% of the \w+ tokens are unknown", (tmp_path / "out/table.md").read_text())
    report = (tmp_path / "out/report.html").read_text()
    assert "train: 0.0% of the texts cut" in report and "of the tokens [UNK]" in report

    before = (tmp_path / "out/ledger.jsonl").read_bytes()
    again, said = run(world(), tmp_path / "out")
    assert "6 of 6 runs are finished already" in said
    assert "self-checks" not in said
    assert (tmp_path / "out/ledger.jsonl").read_bytes() == before
    assert to_markdown(table_of(*again)) == to_markdown(table_of(spec, rows))


def test_seeds_share_programs(world, tmp_path, monkeypatch, nothing_compiled):
    engines = []

    def watched(*args):
        engines.append(Engine(*args, mesh=make_mesh(jax.devices()[:1])))
        return engines[0]

    monkeypatch.setattr(run_module, "Engine", watched)
    objectives = ("0.5*kl(T=2) + 0.5*ce", "0.9*kl(T=8) + 0.1*ce", "kl(T=3) + 2*ce")
    run(world(objectives=objectives, seeds=(0, 1, 2)), tmp_path / "out")
    # One program for the teacher's fine-tuning, one for nine students: one batch length.
    assert engines[0].compilations == 2


def test_an_interrupted_table_goes_on_and_comes_out_the_same(world, tmp_path, monkeypatch):
    _, _ = run(world(), tmp_path / "undisturbed")

    class Impatient(Engine):
        runs = 0

        def train(self, *args, **kwargs):
            Impatient.runs += 1
            if Impatient.runs == 4:  # the teacher is the first
                self.stop.requested = True
            return super().train(*args, **kwargs)

    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "another_home"))
    with monkeypatch.context() as patched:
        mesh = make_mesh(jax.devices()[:1])
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=mesh))
        with pytest.raises(Interrupted):
            run(world(), tmp_path / "disturbed")
    assert len(Ledger(tmp_path / "disturbed/ledger.jsonl").rows()) == 3
    _, said = run(world(), tmp_path / "disturbed")
    assert "2 of 6 runs are finished already" in said
    assert numbers(tmp_path / "disturbed") == numbers(tmp_path / "undisturbed")


def test_live_and_cached_teachers_say_the_same(world, tmp_path):
    only = {"objectives": ("kl", "hidden_mse + attention_kl + ce"), "seeds": (0,)}
    run(world(**only, cache_dtype="float32"), tmp_path / "cached")
    run(world(**only, teacher_outputs="live"), tmp_path / "live")
    cached, live = numbers(tmp_path / "cached"), numbers(tmp_path / "live")
    assert cached.keys() == live.keys()
    for key in cached:
        assert cached[key]["test/nll"] == pytest.approx(live[key]["test/nll"], rel=1e-3)


def test_the_teacher_is_asked_only_about_what_the_steps_read(world, tmp_path, capsys):
    """Two seeds read two steps of 16 each, of 60 examples; the results are those of a live one."""
    objectives = ("kl", "hidden_mse + ce")
    _, said = run(world(steps=2, evaluations=1, objectives=objectives), tmp_path / "few")
    asked = int(re.search(r"is asked about the (\d+) of 60 examples", said)[1])
    assert 32 < asked <= 54
    live = world(steps=2, evaluations=1, objectives=objectives, teacher_outputs="live")
    run(live, tmp_path / "live")
    few, whole = numbers(tmp_path / "few"), numbers(tmp_path / "live")
    assert few.keys() == whole.keys()
    for key, metrics in few.items():
        assert metrics == pytest.approx(whole[key], abs=2e-3, nan_ok=True)
    (cache,) = (tmp_path / "home/teacher_outputs").iterdir()
    assert read_manifest(cache).examples == asked
    dispatch(["cache", "verify", str(cache), "--sample", "8"])
    assert f"8 of {asked} examples: the teacher says the same" in capsys.readouterr().out


def test_copied_students_get_their_own_learning_rate(world, tmp_path):
    run(world(students=("l2",), objectives=("ce",), seeds=(0,)), tmp_path / "out")
    row = Ledger(tmp_path / "out/ledger.jsonl").rows()[-1]
    assert row.config["training"]["optimizer"]["learning_rate"] == 3e-4
    assert row.config["model"]["num_layers"] == 2


def test_a_teacher_that_is_trained_already_is_used_as_it_came(world, tmp_path, toy_teacher):
    """Trap 23: its labels are a and b, the data's are neg and pos."""
    with pytest.raises(UserError, match=r"not the data's: a, b and neg, pos.*--label-map 'a=..."):
        run(world(fine_tune=False), tmp_path / "out")


def test_a_plugins_loss_is_a_row_and_its_content_counts(world, tmp_path, own_registry):
    plugin = tmp_path / "mylosses.py"
    plugin.write_text(
        "import jax.numpy as jnp\n"
        "from distill_jax.objectives.plugin_api import LogitFeed, register\n"
        "from scale_of_a_users_loss import SCALE\n\n\n"
        "@register(feed=LogitFeed())\n"
        "def l1_logits(student, teacher, *, where=None):\n"
        '    """Mean absolute difference of logits."""\n'
        "    return SCALE * jnp.mean(jnp.abs(student - teacher), axis=-1)\n"
    )
    helper = tmp_path / "scale_of_a_users_loss.py"
    helper.write_text("SCALE = 1.0\n")
    args = world(plugin=plugin, objectives=("ce", "l1_logits"), seeds=(0,))

    run(args, tmp_path / "out")
    rows = {row.row: row for row in Ledger(tmp_path / "out/ledger.jsonl").rows()}
    assert rows["l1_logits"].config["plugin"] and rows["ce"].config["plugin"] is None

    helper.write_text("SCALE = 2.0\n")  # as the next process finds it
    registry.forget(["l1_logits"])
    plugins._LOADED.clear()
    del sys.modules["scale_of_a_users_loss"]
    with pytest.raises(UserError, match=r"another run at l1_logits.*plugin.*--allow-change plugin"):
        run(args, tmp_path / "out")
    allowed = dataclasses.replace(
        args, options=dataclasses.replace(args.options, allow_change=("plugin",))
    )
    _, said = run(allowed, tmp_path / "out")
    assert "1 of 2 runs are finished already" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("ce", "kll")}, "unknown loss 'kll'.*Did you mean 'kl'"),
        ({"objectives": ("ce", "ce")}, "repeat"),
        ({"objectives": ()}, "no objectives"),
        ({"students": ("teeny",)}, "unknown student 'teeny'.*tiny"),
        ({"seeds": (1, 1)}, "seeds repeat"),
        ({"seeds": (-1,)}, "from 0 to"),
        ({"seeds": (2**32,)}, "from 0 to"),
        ({"epochs": float("nan"), "steps": 0}, "epochs must be positive, not nan"),
        ({"steps": -5}, "steps must be from 0 to 2147483647, not -5 .0 leaves them to epochs"),
        ({"steps": 2**31}, "steps must be from 0"),
        ({"evaluations": 0}, "evaluations must be from 1"),
        ({"max_shapes": 0}, "max shapes must be from 1"),
        ({"teacher_epochs": float("inf")}, "epochs"),
        ({"baseline": "kl"}, "unknown baseline 'kl'"),
        ({"data": "review_snippet/movie"}, "Did you mean 'review_snippets/movie'"),
        ({"data": "files:/no/such/folder"}, "/no/such/folder"),
        ({"label": "lable"}, "lable"),
        ({"teacher": "/no/such/teacher"}, "/no/such/teacher"),
        ({"label_fraction": 0.0}, "label fraction"),
        ({"learning_rate": -1.0}, "learning rate"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(world, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as told:
        run(world(**changes), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def test_trap_22_what_the_teacher_says_matters(world, tmp_path):
    """Two teachers, one objective, everything else equal: two students."""
    only = {"objectives": ("kl",), "seeds": (0,)}
    run(world(**only), tmp_path / "one")
    run(world(**only, teacher_learning_rate=3e-2), tmp_path / "other")
    one = Ledger(tmp_path / "one/ledger.jsonl").rows()[-1]
    other = Ledger(tmp_path / "other/ledger.jsonl").rows()[-1]
    assert one.fingerprints["teacher"] != other.fingerprints["teacher"]
    assert one.metrics["test/nll"] != other.metrics["test/nll"]


def test_eight_devices_share_a_batch(world, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "Engine", Engine)
    with pytest.raises(UserError, match="12 examples cannot be shared equally by 8 devices"):
        run(world(teacher_batch_size=12), tmp_path / "out")
    run(world(objectives=("kl",), seeds=(0,)), tmp_path / "out")
    assert len(Ledger(tmp_path / "out/ledger.jsonl").rows()) == 2
