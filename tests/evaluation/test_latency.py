"""Latency: where it runs, what is timed, and how the times are summed up."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.evaluation import latency, timing
from distill_jax.evaluation.latency import cpu_latency, parameter_count
from distill_jax.evaluation.timing import Latency


class Clock:
    """A clock that stands still but for the seconds that the calls under test add."""

    def __init__(self):
        self.now = 0

    def perf_counter_ns(self):
        return self.now


@pytest.fixture
def clocked_calls(monkeypatch):
    """Replaces JAX by plain calls that cost what their parameters say, and logs the order."""
    clock, order = Clock(), []
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(
        latency,
        "jax",
        SimpleNamespace(
            jit=lambda function: function,
            device_put=lambda value, device: value,
            block_until_ready=lambda value: value,
            devices=lambda kind: [kind],
        ),
    )

    def apply(params, batch):
        order.append((params["id"], batch))
        clock.now += params["ms"] * batch * 1_000_000
        if len(order) % 7 == 3:  # the machine is slow for a moment
            clock.now += 500_000_000
        return batch

    return apply, order


def test_percentiles_are_over_batches_of_medians_over_repeats(clocked_calls):
    apply, _ = clocked_calls
    measured = cpu_latency(apply, {"id": 0, "ms": 2}, [1, 2, 3, 4, 5], warmup=1, repeats=5)
    # Costs are 2, 4, 6, 8, 10 ms; hiccups of 500 ms never reach a median of five.
    assert measured == Latency(p50_ms=6.0, p95_ms=pytest.approx(9.6), runs=25)


def test_repeats_go_round_all_batches(clocked_calls):
    apply, order = clocked_calls
    measured = cpu_latency(apply, {"id": 0, "ms": 2}, [1, 2], warmup=1, repeats=9)
    assert order == [(0, 1), (0, 2)] * 10
    assert measured.p50_ms == pytest.approx(3.0)


def test_parameters_are_counted_by_hand_and_by_shapes_alone():
    params = {"word": jnp.zeros((10, 4)), "layers": [{"kernel": jnp.zeros((4, 4), jnp.bfloat16)}]}
    assert parameter_count(params) == 56 == parameter_count(jax.eval_shape(lambda: params))
    assert parameter_count({"bias": jnp.zeros(())}) == 1 and parameter_count({}) == 0


def test_runs_on_the_first_cpu_and_compiles_once_per_shape(monkeypatch):
    traces, devices = [], set()

    def apply(params, batch):
        traces.append(batch.shape)
        return {"logits": batch * params["scale"]}

    other = jax.devices("cpu")[3]
    params = jax.device_put({"scale": jnp.float32(2)}, other)
    batches = [np.ones(n, np.float32) for n in (4, 8, 4)]
    original = jax.block_until_ready

    def watch(outputs):
        devices.update(device for leaf in jax.tree.leaves(outputs) for device in leaf.devices())
        return original(outputs)

    monkeypatch.setattr(jax, "block_until_ready", watch)
    with jax.default_device(other):
        measured = cpu_latency(apply, params, batches, warmup=1, repeats=3)
        cpu_latency(apply, params, batches, warmup=1, repeats=1)
    assert sorted(traces) == [(4,), (8,)]
    assert devices == {jax.devices("cpu")[0]}
    assert len(traces) == 2  # another model of the same shape is not compiled again
    assert measured.runs == 9 and 0 < measured.p50_ms <= measured.p95_ms


@pytest.mark.parametrize("change", [{"batches": []}, {"warmup": 0}, {"repeats": 0}])
def test_bad_arguments(change):
    arguments = {"batches": [np.ones(1, np.float32)], "warmup": 1, "repeats": 1, **change}
    with pytest.raises(UserError, match="at least one"):
        cpu_latency(lambda params, batch: batch, {}, **arguments)


def test_without_a_cpu_backend_it_says_what_to_do(monkeypatch):
    def missing(kind):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "devices", missing)
    with pytest.raises(UserError, match="JAX_PLATFORMS"):
        cpu_latency(lambda params, batch: batch, {}, [np.ones(1, np.float32)])
