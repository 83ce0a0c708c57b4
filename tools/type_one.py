"""How often each printed test errs: simulated tables in which no row differs, or one by as much.

    python tools/type_one.py                             # five minutes on one core
    python tools/type_one.py --report docs/type_one.md
    python tools/type_one.py --trials 200 --tables 20    # a quick look

A row answers test example i rightly in run s where `shift + training_s + liking_i + difficulty_i
+ luck_si > 0`: all normal, training drawn for each run and row, liking for each row and example,
difficulty for each example and shared by the rows, luck for each answer. In a table without a
difference all rows have one shift, so that every rejection is an error; new training runs and new
test examples are drawn every time. The noise is set so that the differences between two rows
spread as in the committed tables.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.progress import track
from scipy.stats import norm

from distill_jax.core.files import write_atomic
from distill_jax.tables.statistics import (
    crossed_test,
    crossed_tests,
    holm,
    mean_squares,
    paired_bootstrap,
    paired_test,
)

EXAMPLES = 1053
"""As many as the test split of the movie reviews has."""
KINDS = ("p seeds", "p examples", "both of these", "p")
JUDGES = ("both of these", "p")
"""What bold was and is."""
POWER = (3, 6, 12)
"""True differences in points."""
ZERO = dict.fromkeys(range(10), 0.0)


@dataclass(frozen=True)
class Noise:
    """Standard deviations, in units of the difficulty's.

    Attributes:
      words: for people.
      training, liking, luck: see the module.
    """

    words: str
    training: float
    liking: float
    luck: float


NOISES = (
    Noise("a teacher against labels", 0.03, 0.7, 0.75),
    Noise("two like losses", 0.03, 0.15, 0.4),
    Noise("unsteady training", 0.12, 0.3, 0.5),
    Noise("training runs alike", 0.0, 0.5, 0.5),
)


@dataclass(frozen=True)
class Arguments:
    """How often each printed test errs, by simulation."""

    trials: int = 2000
    """Comparisons for each kind of noise and number of seeds."""
    tables: int = 200
    """Tables of several comparisons, likewise."""
    seeds: tuple[int, ...] = (3, 5, 10)
    """Training runs of a row."""
    resamples: int = 2000
    """Of the bootstrap."""
    report: Path | None = None
    """A Markdown file to write."""


def table_of_answers(
    noise: Noise, rng: np.random.Generator, seeds: int, shifts: list[float]
) -> np.ndarray:
    """float64 [R, S, N], 1 where row r answers rightly: one simulated table."""
    rows = len(shifts)
    liking_RN = rng.normal(0, noise.liking, (rows, 1, EXAMPLES))
    training_RS = rng.normal(0, noise.training, (rows, seeds, 1))
    luck_RSN = rng.normal(0, noise.luck, (rows, seeds, EXAMPLES))
    shift_R = np.array(shifts)[:, None, None] + 0.7  # about three of four are right
    return (shift_R + liking_RN + training_RS + luck_RSN + rng.normal(size=EXAMPLES) > 0) * 1.0


def p_values(d_SN: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """Of every printed test, uncorrected."""
    seeds = paired_test(dict(enumerate(d_SN.mean(axis=1))), ZERO)
    examples = paired_bootstrap(
        d_SN.mean(axis=0), np.zeros(d_SN.shape[1]), resamples=resamples, seed=seed
    )
    squares = mean_squares(d_SN)
    assert seeds and examples and squares
    return {
        "p seeds": seeds.p,
        "p examples": examples.p,
        "both of these": max(seeds.p, examples.p),
        "p": crossed_test(squares).p,
    }


def joint_p_values(singles: list[dict[str, float]], family: list) -> list[dict[str, float]]:
    """Those of the comparisons of one group of a table, where the joint tests know each other."""
    tests = crossed_tests(family)
    return [{**single, "p": test.p} for single, test in zip(singles, tests, strict=True)]


def spread(d_SN: np.ndarray) -> tuple[float, float, float]:
    """Variances of a difference by seed, by example and of the rest, by the mean squares."""
    seeds, examples = d_SN.shape
    by_seed, by_example = d_SN.mean(axis=1), d_SN.mean(axis=0)
    rest = d_SN - by_seed[:, None] - by_example + d_SN.mean()
    ms_rest = (rest**2).sum() / ((seeds - 1) * (examples - 1))
    of_seeds = by_seed.var(ddof=1) - ms_rest / examples
    return float(of_seeds), float(by_example.var(ddof=1) - ms_rest / seeds), float(ms_rest)


def single_errors(args: Arguments) -> Iterator[list[str]]:
    """A line for each noise and number of seeds: how often each test is wrong to reject."""
    grid = list(itertools.product(NOISES, args.seeds))
    for number, (noise, seeds) in enumerate(track(grid, "single comparisons")):
        rng = np.random.default_rng(number)
        found, spreads = [], []
        for trial in range(args.trials):
            one, other = table_of_answers(noise, rng, seeds, [0, 0])
            found.append(p_values(one - other, args.resamples, trial))
            spreads.append(spread(one - other))
        sds = np.sqrt(np.maximum(np.mean(spreads, axis=0), 0))
        shown = f"{100 * sds[0]:.1f}, {100 * sds[1]:.0f}, {100 * sds[2]:.0f}"
        rates = [_share(np.mean([p[kind] < 0.05 for p in found])) for kind in KINDS]
        yield [noise.words, shown, str(seeds), *rates]


def family_errors(args: Arguments, comparisons: int = 28) -> Iterator[list[str]]:
    """Tables of many rows against one baseline: how often any row is called better or worse, and
    how often a row that is better by so many points is found."""
    grid = list(itertools.product(NOISES[:3], args.seeds))
    for number, (noise, seeds) in enumerate(track(grid, f"tables of {comparisons} comparisons")):
        rng = np.random.default_rng(100 + number)
        errors = dict.fromkeys(JUDGES, 0)
        found = {(points, kind): 0 for points in POWER for kind in JUDGES}
        for trial in range(args.tables):
            answers = table_of_answers(noise, rng, seeds, [0.0] * (comparisons + 1))
            differences = [row - answers[0] for row in answers[1:]]
            singles = [p_values(d_SN, args.resamples, trial) for d_SN in differences]
            family = [mean_squares(d_SN) for d_SN in differences]
            ps = joint_p_values(singles, family)
            for kind in JUDGES:
                errors[kind] += any(_rejected(ps, kind))
            for points, shift in zip(POWER, _shifts(noise), strict=True):
                base, better = table_of_answers(noise, rng, seeds, [0.0, shift])
                single = p_values(better - base, args.resamples, trial)
                with_it = [mean_squares(better - base), *family[1:]]
                ps = joint_p_values([single, *singles[1:]], with_it)
                for kind in JUDGES:
                    found[points, kind] += _rejected(ps, kind)[0]
        counts = [*errors.values(), *found.values()]
        yield [noise.words, str(seeds), *(_share(count / args.tables) for count in counts)]


def _shifts(noise: Noise) -> list[float]:
    """Shifts of a row that make it so many points better, by the normal distribution."""
    sd = (1 + noise.liking**2 + noise.training**2 + noise.luck**2) ** 0.5
    base = norm.cdf(0.7 / sd)
    return [float(norm.ppf(base + points / 100) * sd - 0.7) for points in POWER]


def _corrected(ps: list[dict[str, float]], kind: str) -> list[float]:
    adjusted = holm([p[kind] for p in ps])
    return [p for p in adjusted if p is not None]


def _rejected(ps: list[dict[str, float]], kind: str) -> list[bool]:
    """After Holm's correction; of two tests each is corrected by itself, and both must reject."""
    if kind == "both of these":
        pairs = zip(_corrected(ps, "p seeds"), _corrected(ps, "p examples"), strict=True)
        return [max(pair) < 0.05 for pair in pairs]
    return [p < 0.05 for p in _corrected(ps, kind)]


def few_examples(args: Arguments) -> Iterator[list[str]]:
    """Tests over examples by their number: signs are flipped up to 99, bootstrap beyond."""
    for number, examples in enumerate(track((6, 10, 20, 50, 99, 100, 300), "few examples")):
        rng = np.random.default_rng(200 + number)
        rejected = [
            paired_bootstrap(
                rng.normal(size=examples), np.zeros(examples), resamples=args.resamples, seed=trial
            ).p  # type: ignore[union-attr]
            < 0.05
            for trial in range(args.trials)
        ]
        yield [str(examples), _share(np.mean(rejected))]


def clusters(args: Arguments) -> Iterator[list[str]]:
    """Users with several cases each: the two tests that weigh them, by number of seeds."""
    for number, seeds in enumerate(track(args.seeds, "users with several cases")):
        rng = np.random.default_rng(300 + number)
        found = []
        for trial in range(args.trials):
            cases = np.maximum(1, rng.lognormal(3.5, 1.2, 400)).astype(int)
            d_SN = (
                rng.normal(0, 0.002, (seeds, 1))
                + rng.normal(0, 0.06, (1, 400))
                + rng.normal(0, 0.1, (seeds, 400)) / np.sqrt(cases)
            )
            squares = mean_squares(d_SN, cases)
            examples = paired_bootstrap(
                d_SN.mean(axis=0), np.zeros(400), cases, resamples=args.resamples, seed=trial
            )
            assert squares and examples
            found.append((examples.p < 0.05, crossed_test(squares).p < 0.05))
        yield [str(seeds), *map(_share, np.mean(found, axis=0))]


def _share(rate: float | np.floating) -> str:
    return f"{100 * rate:.1f}"


def main(args: Arguments) -> None:
    """Simulate, print and write the tables."""
    text = page(
        args,
        list(single_errors(args)),
        list(family_errors(args)),
        list(few_examples(args)),
        list(clusters(args)),
    )
    print(text)
    if args.report:
        write_atomic(args.report, text)


def page(args: Arguments, single: list, family: list, few: list, users: list) -> str:
    """The report."""
    assert __doc__ is not None
    powers = [f"{points} points, {kind}" for points in POWER for kind in ("both", "p")]
    error = 100 * (0.05 * 0.95 / args.trials) ** 0.5
    blocks = [
        "# How often the printed tests err",
        __doc__.split("\n\n")[-1].strip(),
        "Made by `python tools/type_one.py`. `p` is the joint test, the one that makes a row bold; "
        "*both* is bold as it was before, when `p seeds` and `p examples` both had to reject. "
        "`p seeds` asks about other seeds on the same test examples and `p examples` about other "
        "examples for the same models: neither claims to hold for both, and the first two columns "
        "of rates show how far either is from that.",
        "## One comparison without a difference",
        f"Rejections at 5% in {args.trials:,} comparisons (5.0 is right, give or take "
        f"{error:.1f}), {EXAMPLES:,} test examples. Spread: standard deviations of the difference "
        "by seed, by example and of the rest, in points.",
        _table(["noise", "spread", "seeds", *KINDS], single),
        "## Tables of 28 comparisons with one baseline, Holm-corrected",
        f"Of {args.tables:,} tables: in how many any of 28 rows that do not differ is called "
        "different (at most 5 is right), and how often a row that is better by so many points is "
        "found among them.",
        _table(["noise", "seeds", "any error, both", "any error, p", *powers], family),
        "## Few test examples",
        "Rejections of `p examples` at 5% where examples do not differ, normal differences.",
        _table(["examples", "rejected %"], few),
        "## Users with several cases each",
        "400 users with 33 cases in the middle and thousands at most, each weighing as many: "
        "rejections at 5% without a difference.",
        _table(["seeds", "p examples", "p"], users),
        "A trend's interval is the joint test's: a statement of one contrast is held by error half "
        "as often as `p` rejects.",
    ]
    return "\n\n".join(blocks) + "\n"


def _table(heading: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heading, rule, *lines])


if __name__ == "__main__":
    main(tyro.cli(Arguments))
