"""The race in words: tables for the terminal, and the same in Markdown."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import steps
from rich.console import Console
from rich.table import Table

Lines = list[list[str]]
"""Of a table, the first one its heading."""
COLD, WARM = "ours, cold", "ours, warm"
PHASES = (
    "imports",
    "data",
    "compile",
    "fine-tuning the teacher",
    "asking the teacher",
    "self-checks",
    "steps",
    "evaluation",
    "latency",
    "yardsticks",
    "saving",
    "tables",
)
"""In the order of the page; others follow."""


@dataclass(frozen=True)
class Made:
    """A table that a competitor made.

    Attributes:
      seconds: from the command to its end.
      phases: seconds by phase; the rest is the start of the process.
      accuracy: objective (``teacher``) -> seed -> on the test split.
      counts: programs compiled, steps called; what came of ``torch.compile``.
    """

    name: str
    seconds: float
    phases: Mapping[str, float]
    accuracy: Mapping[str, Mapping[int, float]]
    counts: Mapping[str, Any]


def by_name(made: Sequence[Made]) -> dict[str, list[Made]]:
    """The turns of each competitor."""
    turns: dict[str, list[Made]] = {}
    for each in made:
        turns.setdefault(each.name, []).append(each)
    return turns


def p50(turns: Sequence[Made]) -> float:
    """Median of the seconds."""
    return statistics.median(each.seconds for each in turns)


def table_lines(made: Sequence[Made]) -> Lines:
    """Seconds of every competitor, over ours, and accuracies: mean and standard deviation over
    seeds."""
    turns = by_name(made)
    objectives = list(dict.fromkeys(name for each in made for name in each.accuracy))
    own = {name: p50(turns[name]) for name in (COLD, WARM) if name in turns}
    ratios = [f"/ {name}" for name in own]
    rows = [["table", "seconds", *ratios, *(f"{name}, %" for name in objectives)]]
    for name, each in turns.items():
        over = [f"{p50(each) / seconds:.2f}" for seconds in own.values()]
        scores = [_score(each[0].accuracy.get(objective, {})) for objective in objectives]
        rows.append([name, f"{p50(each):.0f}", *over, *scores])
    return rows


def phase_lines(made: Sequence[Made]) -> Lines:
    """Seconds by phase, of the first turn of each competitor."""
    first = {name: turns[0] for name, turns in by_name(made).items()}
    found = dict.fromkeys(phase for each in first.values() for phase in each.phases)
    names = [phase for phase in PHASES if phase in found]
    names += [phase for phase in found if phase not in (*PHASES, "total")]
    rows = [["phase, s", *first]]
    for phase in names:
        rows.append([phase, *(_seconds(each.phases.get(phase)) for each in first.values())])
    return rows


def _score(seeds: Mapping[int, float]) -> str:
    values = [100 * value for value in seeds.values()]
    if not values:
        return "–"
    sd = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{sd}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def largest_difference(made: Sequence[Made]) -> str:
    """The difference to our accuracies that is largest by its standard error over seeds."""
    first = {name: turns[0] for name, turns in by_name(made).items()}
    ours = first.get(COLD)
    found = [
        (abs(gap) / error, gap, objective, name)
        for name, each in first.items()
        if ours and name not in (COLD, WARM)
        for objective in each.accuracy.keys() & ours.accuracy.keys()
        for gap, error in [_gap(each.accuracy[objective], ours.accuracy[objective])]
        if error > 0
    ]
    if not found:
        return ""
    errors, gap, objective, name = max(found)
    return (
        f"Largest difference in accuracy to ours, by its standard error over seeds: {gap:+.1f} "
        f"points (`{objective}`, {name}), {errors:.1f} standard errors, of {len(found)} compared."
    )


def _gap(theirs: Mapping[int, float], ours: Mapping[int, float]) -> tuple[float, float]:
    """The difference of two means in points, and its standard error over seeds."""
    both = [[100 * value for value in each.values()] for each in (theirs, ours)]
    gap = statistics.mean(both[0]) - statistics.mean(both[1])
    if min(map(len, both)) < 2:
        return gap, 0.0
    return gap, sum(statistics.variance(each) / len(each) for each in both) ** 0.5


def counts_line(made: Sequence[Made]) -> str:
    """How many programs ours compiled, how many steps it called."""
    told = [
        f"{name}: {turns[0].counts['compiled']} programs made, of them "
        f"{turns[0].counts['cached']} read from the cache, {turns[0].counts['steps']} calls of a "
        "training step"
        for name, turns in by_name(made).items()
        if name in (COLD, WARM)
    ]
    return f"{'; '.join(told)}." if told else ""


def parts(made: Sequence[Made], seconds: steps.Seconds) -> Iterator[tuple[str, Lines]]:
    """Titles and tables of the page."""
    if made:
        turns = max(map(len, by_name(made).values()))
        yield f"The whole table, from the command (median of {turns})", table_lines(made)
        yield "Where the time goes (first turn)", phase_lines(made)
    if seconds:
        rounds = max(len(values) for found in seconds.values() for values in found.values())
        yield f"Steps side by side (median of {rounds} rounds)", steps.lines(seconds)


def show(console: Console, made: Sequence[Made], seconds: steps.Seconds) -> None:
    """Print the tables."""
    for title, (heading, *rows) in parts(made, seconds):
        table = Table(*heading, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in filter(None, (largest_difference(made), counts_line(made))):
        console.print(line, markup=False)


def page(made: Sequence[Made], seconds: steps.Seconds, machine: Mapping[str, Any]) -> str:
    """The tables in Markdown, and the machine they are from."""
    blocks = [f"**{title}**\n\n{steps.markdown(rows)}" for title, rows in parts(made, seconds)]
    blocks += [line for line in (largest_difference(made), counts_line(made)) if line]
    packages = {**machine["packages"], "torch": machine["torch"]}
    shown = ", ".join(f"{name} {version}" for name, version in packages.items())
    blocks.append(
        f"{machine['device']}; load before {machine['load before']:.1f}; {shown}; "
        f"{machine['finished_at']}."
    )
    return "\n\n".join(blocks) + "\n"
