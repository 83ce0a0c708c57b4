"""A member of a population is the run that it would have been alone, whatever the placement."""

import time
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh, make_placement
from distill_jax.data.plan import choose_lengths
from distill_jax.models.bert import init_bert
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, TrainResult, step_numbers, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.population import PopulationStep, number_table, train_population
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

STEPS = 7
LOOP = LoopConfig(STEPS, eval_every=2, log_every=1, checkpoint_seconds=1e9)
USUAL = OptimizerConfig(learning_rate=1e-2)


@dataclass(frozen=True)
class Member:
    """What makes one member differ from the others."""

    objective: str
    seed: int
    optimizer: OptimizerConfig = USUAL


MEMBERS = (
    Member("hidden_mse + kl(T=2)", 0),
    Member("0.5*hidden_mse + 2*kl(T=8)", 1),
    Member("linear(1, 0)*hidden_mse + kl(T=cosine(8, 1))", 2),
    Member("hidden_mse + kl(T=2)", 3, OptimizerConfig(3e-3, schedule="cosine", warmup=0.3)),
    Member("3*hidden_mse + kl", 1, OptimizerConfig(2e-2, schedule="constant", warmup=0.0)),
)
DIVERGING = Member("hidden_mse + kl", 4, OptimizerConfig(learning_rate=1e30))


def of_one(params):
    """Two numbers that any change of the parameters moves."""
    bias = np.asarray(params["classifier"]["bias"], np.float64)
    return {"accuracy": float(bias[0]), "other": float(bias[1])}


def of_all(params):
    """``of_one`` for each of a stack of parameters."""
    stacked = jax.device_get(params)
    count = len(jax.tree.leaves(stacked)[0])
    return [of_one(jax.tree.map(lambda x, m=m: x[m], stacked)) for m in range(count)]


@pytest.fixture(scope="module")
def world(toy_table, student, teacher, student_config, teacher_config):
    """How to train members, alone and together."""
    return World(toy_table, student[0], teacher, student_config, teacher_config)


class World:
    def __init__(self, table, model, teacher, student_config, teacher_config):
        self.table, self.model, self.config = table, model, student_config
        self.shapes = (student_config.shape, teacher_config.shape)
        self.teacher = LiveTeacher(*teacher, self.resolve(MEMBERS[0]).teacher_capture)
        self.lengths = choose_lengths(table.lengths_N, max_shapes=2)
        assert len(self.lengths) == 2
        step = make_step(model, self.resolve(MEMBERS[0]), make_optimizer(MEMBERS[0].optimizer))
        self.alone = CompiledStep(step)
        self.steps = {
            (shared, strategy): PopulationStep(
                step, shared_batch=shared, placement=make_placement(strategy, make_mesh())
            )
            for shared in (True, False)
            for strategy in ("vmap", "sharded")
        }

    def resolve(self, member):
        return resolve(parse(member.objective), *self.shapes)

    def feed(self, seed, *, lengths=None):
        return Feed(self.table, lengths or self.lengths, 16, seed, self.teacher)

    def feeds(self, members, shared):
        """One for all, or one of a single batch length for each seed."""
        if shared:
            return self.feed(11)
        by_seed = {m.seed: self.feed(m.seed, lengths=self.lengths[-1:]) for m in members}
        return [by_seed[m.seed] for m in members]

    def state(self, member):
        params = init_bert(self.config, jax.random.key(member.seed))
        own = self.resolve(member).init_params(jax.random.key(member.seed))
        return init_state(params, own, make_optimizer(member.optimizer))

    def together(self, members=MEMBERS, *, shared=True, strategy="vmap", **given):
        settings = {
            "loop": LOOP,
            "evaluate": of_all,
            "on_log": lambda step, values: None,
            "stop": StopRequest(),
            **given,
        }
        feeds = settings.pop("feeds", None) or self.feeds(members, shared)
        step = settings.pop("step", None) or self.steps[shared, strategy]
        return train_population(
            [self.state(member) for member in members],
            step,
            feeds,
            objectives=[self.resolve(member) for member in members],
            optimizers=[member.optimizer for member in members],
            seeds=[member.seed for member in members],
            **settings,
        )

    def one(
        self,
        member,
        *,
        shared=True,
        on_log=lambda step, values: None,
        checkpoints=None,
        loop=LOOP,
        evaluate=of_one,
    ):
        feeds = self.feeds([member], shared)
        return train(
            self.state(member),
            self.alone,
            feeds if shared else feeds[0],
            objective=self.resolve(member),
            optimizer=member.optimizer,
            loop=loop,
            layout=Layout(make_mesh(jax.devices()[:1])),
            evaluate=evaluate,
            on_log=on_log,
            stop=StopRequest(),
            seed=member.seed,
            checkpoints=checkpoints,
        )


def assert_same_runs(left, right, *, exact=False):
    """Results of two trainings, member for member; times apart."""
    assert len(left) == len(right)
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-3, "atol": 2e-5}
    for one, other in zip(left, right, strict=True):
        assert isinstance(one, TrainResult) and isinstance(other, TrainResult)
        assert one.progress.examples == other.progress.examples
        assert one.progress.best_step == other.progress.best_step
        for a, b in zip(one.progress.history, other.progress.history, strict=True):
            assert a == pytest.approx(b, rel=tolerance["rtol"], abs=tolerance["atol"])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one.params, other.params
        )


@pytest.mark.parametrize("shared", [True, False], ids=["shared order", "own order"])
def test_members_are_what_they_would_be_alone(world, shared):
    """Dropout, order, schedules, learning rates and initialisation of each are its own."""
    logs, alone_logs = [], []
    together = world.together(shared=shared, on_log=lambda step, values: logs.append(values))
    alone = [
        world.one(
            member, shared=shared, on_log=lambda step, values, m=m: alone_logs.append((m, values))
        )
        for m, member in enumerate(MEMBERS)
    ]
    assert_same_runs(together, alone)
    for m in range(len(MEMBERS)):
        expected = [values for owner, values in alone_logs if owner == m]
        for values, wanted in zip([entry[m] for entry in logs], expected, strict=True):
            assert values == pytest.approx(wanted, rel=1e-3, abs=2e-5)
    finals = [result.progress.history[-1]["accuracy"] for result in together]
    assert len(set(finals)) == len(MEMBERS), "members that do not differ prove nothing"


@pytest.mark.parametrize("objective", ["kl(T=2) + ce", "linear(1, 0)*kl + ce", "expert_hints + kl"])
def test_the_numbers_of_a_table_are_those_of_each_step_alone(world, objective):
    """Weights, temperatures, rates, and what is drawn: another number at each step and seed."""
    member = Member(objective, 0)
    resolved, seeds = world.resolve(member), (3, 0, 3)
    table = number_table([resolved] * 3, [USUAL] * 3, seeds, STEPS)
    for step in range(STEPS):
        for place, seed in enumerate(seeds):
            own = jax.tree.map(lambda x, s=step, p=place: x[s, p], table)
            jax.tree.map(
                np.testing.assert_array_equal, own, step_numbers(resolved, USUAL, seed, step, STEPS)
            )


@pytest.mark.parametrize("shared", [True, False], ids=["shared order", "own order"])
def test_eight_devices_train_what_one_does(world, shared):
    """Five members on eight devices: three places are filled with copies, which nobody sees."""
    seen = []

    def log(step, values):
        seen.append(len(values))

    sharded = world.together(shared=shared, strategy="sharded", on_log=log)
    assert set(seen) == {len(MEMBERS)}
    assert_same_runs(sharded, world.together(shared=shared))


@pytest.mark.parametrize("shared", [True, False], ids=["shared order", "own order"])
def test_devices_do_not_talk(world, shared):
    step = world.steps[shared, "sharded"]
    members = [*MEMBERS, *MEMBERS[:3]]
    states = jax.tree.map(lambda *x: np.stack(x), *[world.state(m) for m in members])
    batch, said = world.feed(0)(0)
    put = step.placement.put_shared
    if not shared:
        batch, said = jax.tree.map(lambda x: np.stack([x] * len(members)), (batch, said))
        put = step.placement.put_members
    numbers = number_table(
        [world.resolve(m) for m in members], [m.optimizer for m in members], range(8), STEPS
    )
    numbers = jax.tree.map(lambda table: table[0], numbers)
    arguments = (step.placement.put_members(states), *put((batch, said)), numbers)
    program = step._compile(arguments[0])[0].lower(*arguments).compile().as_text()
    for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"):
        assert word not in program


@pytest.mark.parametrize("stop_at", [1, 4])
@pytest.mark.parametrize("strategy", ["vmap", "sharded"])
def test_an_interrupted_population_is_the_same_population(world, tmp_path, stop_at, strategy):
    whole, seen, stop = [], [], StopRequest()
    expected = world.together(
        strategy=strategy, on_log=lambda step, values: whole.append((step, values))
    )

    def log(step, values):
        seen.append((step, values))
        stop.requested = step == stop_at

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        world.together(strategy=strategy, stop=stop, on_log=log, checkpoints=checkpoints)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = world.together(strategy=strategy, on_log=log, checkpoints=checkpoints)
    assert seen == whole
    assert_same_runs(resumed, expected, exact=True)


def test_a_population_goes_on_elsewhere(world, tmp_path):
    """From one device to eight: what fills the places is no part of a checkpoint."""
    stop = StopRequest()
    stop.requested = True
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        world.together(stop=stop, checkpoints=checkpoints)
    steps = []
    with Checkpoints(tmp_path) as checkpoints:
        resumed = world.together(
            strategy="sharded",
            on_log=lambda step, values: steps.append(step),
            checkpoints=checkpoints,
        )
    assert steps[0] == 2
    assert_same_runs(resumed, world.together())


def test_checkpoints_of_other_members_are_refused(world, tmp_path):
    stop = StopRequest()
    stop.requested = True
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        world.together(stop=stop, checkpoints=checkpoints)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="cannot be read"):
        world.together(MEMBERS[:3], checkpoints=checkpoints)


def test_one_program_for_each_shape_of_batch(world):
    step = PopulationStep(
        make_step(world.model, world.resolve(MEMBERS[0]), make_optimizer(MEMBERS[0].optimizer)),
        shared_batch=True,
        placement=make_placement("vmap", make_mesh()),
    )
    shapes = {world.feed(11)(n)[0].input_ids_BT.shape for n in range(STEPS)}
    assert len(shapes) == 2
    world.together(step=step)
    assert step.traces == len(shapes)
    others = [Member("7*hidden_mse + 3*kl(T=linear(9, 1))", 20 + n) for n in range(len(MEMBERS))]
    world.together(others, step=step)
    assert step.traces == len(shapes)


@pytest.mark.parametrize("resume", [False, True], ids=["at once", "resumed"])
def test_a_member_that_diverges_does_not_take_the_others_with_it(world, tmp_path, resume):
    members = (MEMBERS[0], DIVERGING, *MEMBERS[2:])
    logs, stop = [], StopRequest()

    def log(step, values):
        logs.append(values)
        stop.requested = resume and step == 5

    with Checkpoints(tmp_path) as checkpoints:
        if resume:
            with pytest.raises(Interrupted):
                world.together(members, on_log=log, stop=stop, checkpoints=checkpoints)
        first, failed, *others = world.together(members, on_log=log, checkpoints=checkpoints)
    assert isinstance(failed, UserError)
    with pytest.raises(UserError) as alone:
        world.one(DIVERGING)
    assert str(failed) == str(alone.value)
    assert "not finite" in str(failed) and "kl" in str(failed)
    expected = world.together()
    assert_same_runs([first, *others], [expected[0], *expected[2:]])
    assert [bool(values) for values in logs[-1]] == [True, False, True, True, True]


def test_the_last_good_state_of_a_member_that_diverged_is_its_own(world, tmp_path):
    """It is kept as a run alone would keep it, from before that step."""
    _, failed = world.together((MEMBERS[0], DIVERGING))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(UserError):
            world.one(DIVERGING, checkpoints=checkpoints)
        alone = checkpoints.restore(world.state(DIVERGING))
    assert failed.snapshot.step == alone.step > 0
    for leaf, other in zip(
        jax.tree.leaves(failed.snapshot.state), jax.tree.leaves(alone.state), strict=True
    ):  # numbers are as large as they get: rounding is all there is to compare
        assert leaf.shape == other.shape and leaf.dtype == other.dtype
        assert np.isfinite(leaf).all()
    assert failed.snapshot.record["examples"] == alone.record["examples"]


@pytest.mark.long
def test_members_skip_steps_by_themselves(world):
    """Where one skips a step the others take it; each is the run that it would be alone."""
    step = PopulationStep(
        make_step(
            world.model,
            world.resolve(MEMBERS[0]),
            make_optimizer(USUAL),
            skip_nonfinite=True,
        ),
        shared_batch=True,
        placement=make_placement("vmap", make_mesh()),
    )
    said, skip = [], replace(LOOP, on_nan="skip")
    calm, wild = world.together((MEMBERS[0], DIVERGING), step=step, loop=skip, say=said.append)
    assert calm.progress.skipped == 0
    assert 0 < wild.progress.skipped < STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wild.params))
    assert said[0].startswith("member 1: step ")
    assert_same_runs([calm], world.together(MEMBERS[:1]))


def test_a_population_of_which_none_is_left_ends(world):
    steps = []
    results = world.together((DIVERGING, DIVERGING), on_log=lambda step, values: steps.append(step))
    assert all(isinstance(result, UserError) for result in results)
    assert max(steps) < STEPS


def test_each_member_keeps_its_own_best_step_and_of_equals_the_earliest(world):
    scores = iter([(0.1, 0.9), (0.7, 0.9), (0.7, 0.2), (0.3, 0.95)])
    seen = []

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return [{"accuracy": score} for score in next(scores)]

    first, second = world.together(MEMBERS[:2], evaluate=evaluate)
    assert (first.progress.best_step, first.progress.best_score) == (4, 0.7)
    assert (second.progress.best_step, second.progress.best_score) == (7, 0.95)
    assert [entry["step"] for entry in first.progress.history] == [2, 4, 6, 7]
    for member, (result, when) in enumerate([(first, 1), (second, 3)]):
        expected = jax.tree.map(lambda x, m=member: x[m], seen[when])
        jax.tree.map(np.testing.assert_array_equal, result.params, expected)


def test_patience_ends_each_member_where_it_would_end_alone(world):
    """The first ends at step 4; from then on nothing more is filed of it, good scores neither."""
    loop = replace(LOOP, patience=1)
    scores = iter([(0.7, 0.1), (0.6, 0.2), (0.9, 0.1)])
    logged = []

    first, second = world.together(
        MEMBERS[:2],
        loop=loop,
        evaluate=lambda params: [{"accuracy": score} for score in next(scores)],
        on_log=lambda step, values: logged.append((step, [bool(own) for own in values])),
    )
    assert [entry["step"] for entry in first.progress.history] == [2, 4]
    assert [entry["step"] for entry in second.progress.history] == [2, 4, 6]
    assert (first.progress.best_step, second.progress.best_step) == (2, 4)
    assert first.progress.examples < second.progress.examples
    assert (5, [False, True]) in logged and (4, [True, True]) in logged
    assert max(step for step, _ in logged) == 6 < STEPS
    alone = iter([0.7, 0.6])
    member = world.one(MEMBERS[0], loop=loop, evaluate=lambda params: {"accuracy": next(alone)})
    assert_same_runs([first], [member])


def test_without_selection_the_end_is_kept(world):
    last = {}

    def evaluate(params):
        last["params"] = jax.tree.map(np.array, params)
        return of_all(params)

    world.together(evaluate=evaluate)
    results = world.together(
        loop=LoopConfig(STEPS, eval_every=2, select=None), evaluate=lambda params: 1 / 0
    )
    for member, result in enumerate(results):
        assert (result.progress.best_step, result.progress.history) == (STEPS, [])
        expected = jax.tree.map(lambda x, m=member: x[m], last["params"])
        jax.tree.map(np.testing.assert_array_equal, result.params, expected)


def test_seconds_are_shared_out(world):
    """Members' seconds add up to no more than the population took."""
    started = time.perf_counter()
    results = world.together()
    whole = time.perf_counter() - started
    spent = [r.progress.train_seconds + r.progress.compile_seconds for r in results]
    assert len(set(spent)) == 1 and 0 < sum(spent) <= whole


def test_numbers_of_all_steps_are_those_of_each(world):
    objectives = [world.resolve(member) for member in MEMBERS]
    optimizers = [member.optimizer for member in MEMBERS]
    table = number_table(objectives, optimizers, range(5), STEPS)
    for step in range(STEPS):
        for m, (objective, optimizer) in enumerate(zip(objectives, optimizers, strict=True)):
            expected = step_numbers(objective, optimizer, m, step, STEPS)
            got = jax.tree.map(lambda x, s=step, m=m: x[s, m], table)
            jax.tree.map(np.testing.assert_array_equal, got, expected)
            jax.tree.map(lambda a, b: a.dtype == b.dtype or pytest.fail("dtype"), got, expected)


def test_feeds_of_different_batch_shapes_are_refused(world):
    feeds = [world.feed(member.seed) for member in MEMBERS]
    with pytest.raises(ValueError, match=r"different shapes at step \d.*single batch length"):
        world.together(shared=False, feeds=feeds)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((Member("kl", 0), Member("kl + ce", 1)), "different structure"),
        ((Member("kl", 0), Member("kl", 1, OptimizerConfig(b1=0.5))), "optimisers"),
    ],
)
def test_members_that_cannot_share_a_program_are_refused(world, members, message):
    with pytest.raises(ValueError, match=message):
        world.together(members)


def test_feeds_must_fit_the_step(world):
    with pytest.raises(ValueError, match="shared_batch=True"):
        world.together(feeds=[world.feed(0)] * len(MEMBERS))
    with pytest.raises(ValueError, match="5 members, 2 feeds"):
        world.together(shared=False, feeds=[world.feed(0)] * 2)
