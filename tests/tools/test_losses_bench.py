"""What losses cost: the script runs, compares within rounds and keeps what it measured."""

import importlib.util
import json
from pathlib import Path

import jax
import pytest

from distill_jax.models.bert import init_bert
from distill_jax.models.build import build_model
from distill_jax.objectives.resolve import resolve
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import make_step

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("losses_bench", ROOT / "tools/bench/losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_run_prints_both_tables_and_keeps_the_seconds(tool, tmp_path, capsys):
    objectives = ("kl", "kl + mse_logits")
    tool.main(
        tool.Arguments(
            losses=("kl",),
            classes=300,
            rows=4,
            tokens=3,
            objectives=objectives,
            layers=1,
            width=8,
            vocabulary=30,
            rounds=2,
            output=tmp_path / "bench",
        )
    )
    printed = capsys.readouterr().out
    assert "| `plain KL` |" in printed and "| `kl + mse_logits` |" in printed
    kept = json.loads((tmp_path / "bench/losses.json").read_text())
    assert list(kept["losses"]) == [tool.PLAIN, "kl"] and list(kept["steps"]) == list(objectives)
    assert all(len(own) == 2 for part in ("losses", "steps") for own in kept[part].values())


def test_ratios_are_those_within_a_round(tool):
    """A round in which everything takes ten times as long changes none of them."""
    seconds = {"one": [1.0, 10.0, 1.0], "more": [1.1, 11.0, 1.1]}
    assert tool.lines(seconds, "a step")[-1] == "| `more` | 1100.00 | 1100.00 | 1.100 |"


@pytest.mark.long
@pytest.mark.parametrize("more", ["mse_logits", "ce", "js(T=2)"])
def test_one_more_logit_loss_is_at_most_a_twentieth_of_a_tiny_step(tool, quickly, more):
    """In operations and in bytes moved, which no neighbour on the machine disturbs."""
    args = tool.Arguments(vocabulary=1000)
    config = tool.student_config(args)
    batch, said = tool.draw_batch(args)

    def work(text):
        objective = resolve(text, config.shape, config.shape)
        optimizer = make_optimizer(OptimizerConfig())
        step = make_step(build_model(config), objective, optimizer)
        state = init_state(init_bert(config, jax.random.key(0)), {}, optimizer)
        numbers = step_numbers(objective, OptimizerConfig(), 0, 0, 100)
        compiled = jax.jit(step, **quickly).lower(state, batch, said, numbers).compile()
        return [compiled.cost_analysis()[name] for name in ("flops", "bytes accessed")]

    for with_more, alone in zip(work(f"kl + {more}"), work("kl"), strict=True):
        assert 0 < alone < with_more <= 1.05 * alone
