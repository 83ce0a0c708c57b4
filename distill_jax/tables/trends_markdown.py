"""What became of trends, as Markdown."""

from collections.abc import Sequence

from distill_jax.tables.markdown import escape
from distill_jax.tables.sheet import MISSING
from distill_jax.tables.statistics import Summary
from distill_jax.tables.trends import Trend, TrendResult, place_name

POINTS = 100.0
"""Shown value = raw value * this: points of shares."""


def trends_markdown(results: Sequence[TrendResult]) -> str:
    """Trends as a Markdown table: statement, contrasts, estimates with intervals, verdicts."""
    lines = ["| statement | contrast | estimate [95% interval], points | verdict |"]
    lines.append("|---|---|---:|---|")
    notes = []
    for result in results:
        statement = escape(result.trend.statement)
        contrasts = result.trend.contrasts
        if len(contrasts) > 1:
            lines.append(
                f"| {statement} | all {len(contrasts)} below | | **{escape(result.verdict)}** |"
            )
            statement = ""
        for contrast, summary, words in zip(
            contrasts, result.summaries, result.verdicts, strict=True
        ):
            label = escape(f"{contrast.label} {claimed(result.trend, POINTS)}")
            words = escape(words) if len(contrasts) > 1 else f"**{escape(words)}**"
            lines.append(f"| {statement} | {label} | {estimate(summary, POINTS)} | {words} |")
        notes += _choices(result)
    notes += _intervals(results)
    return "\n".join([*lines, "", *(f"- {note}" for note in dict.fromkeys(notes))]).rstrip() + "\n"


def claimed(trend: Trend, scale: float) -> str:
    """What the contrasts of a trend are claimed to be: ``> 0``."""
    margin = f"{trend.margin * scale:g}"
    return {
        "positive": "> 0",
        "negative": "< 0",
        "within": f"within ±{margin}",
        "not_below": f"> −{margin}",
    }[trend.claim]


def estimate(summary: Summary, scale: float) -> str:
    """A contrast's mean with its interval."""
    if not summary.n:
        return MISSING
    mean, low, high = (value * scale for value in (summary.mean, summary.low, summary.high))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _intervals(results: Sequence[TrendResult]) -> list[str]:
    """What the intervals are over."""
    tested = [
        (summary.n, examples)
        for result in results
        for summary, examples in zip(result.summaries, result.examples, strict=True)
        if summary.n
    ]
    if not tested:
        return []
    seeds = sorted({n for n, _ in tested})
    between = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    both = sorted({examples for _, examples in tested if examples})
    alone = (
        "they weigh the spread between training runs, not the choice of test examples"
        if any(not examples for _, examples in tested)
        else ""
    )
    if both:
        many = " or ".join(f"{n:,}" for n in both)
        words = f"over {between} seeds and {many} test examples at once, both random"
        words += f"; where these were not kept, over seeds alone: {alone}" if alone else ""
    else:
        words = f"over {between} seeds, paired by seed; {alone}"
    return [f"95% t intervals {words}. A statement held if all of its contrasts did."]


def _choices(result: TrendResult) -> list[str]:
    """What was chosen on validation, for the notes."""
    notes = []
    for contrast, chosen in zip(result.trend.contrasts, result.chosen, strict=True):
        for pick, place in zip(contrast.picks, chosen, strict=False):
            if len(pick.places) > 1:
                notes.append(
                    f"{escape(contrast.label)}: by {result.trend.select} the best of "
                    f"{len(pick.places)} is {escape(place_name(place))}."
                )
    return notes
