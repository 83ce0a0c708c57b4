"""What a table comes to, in three sentences: the best student, its cost, what was significant.

A fourth warns where the best student or the teacher does not beat a yardstick.
"""

from collections.abc import Callable

from distill_jax.tables.cautions import named_row, not_above
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.sheet import format_p, show
from distill_jax.tables.table import Table, TableRow

CHOSEN_BY = ("validation/accuracy", "validation/ndcg@10")
"""Which of a row's runs is the one to take: the best on validation in the first of these, or in the
score that its curve shows."""
COSTS = (
    ("parameters", "parameters", lambda x: f"{x / 1e6:,.2f} M"),
    ("latency/p50_ms", "CPU time of a single example", lambda x: f"{x:,.2f} ms"),
)


def conclusion(table: Table, key: str) -> tuple[str, ...]:
    """Sentences on the column ``key``; () where there is no student with a score.

    What is called significant is what the joint test over seeds and test examples, corrected over
    the whole table, says; the teacher is in no test, and nothing is claimed of it.
    """
    best, column = best_student(table, key), table.column(key)
    if best is None:
        return ()
    return (
        _who(table, best, column),
        *_not_above(table, best, column),
        _cost(table, best),
        _significance_of_letters(table, best, column)
        if table.spec.against == "best"
        else _significance(table, best, column),
    )


def best_student(table: Table, key: str) -> TableRow | None:
    """The row with the best mean of all groups; the first of equals."""
    better = table.column(key).higher_is_better
    rows = [row for row in table.students if row.entries[key].summary.n]
    rows = [row for row in rows if row.entries[key].summary.mean == row.entries[key].summary.mean]
    if better is None or not rows:
        return None
    return (max if better else min)(rows, key=lambda row: row.entries[key].summary.mean)


def run_to_take(row: TableRow) -> LedgerRow:
    """Of a row's runs the best on validation; the test split has no say."""
    curves = (point for run in row.runs.values() for point in run.history)
    drawn = [f"validation/{name}" for name in next(curves, {}) if name != "step"]
    for name in (*CHOSEN_BY, *drawn):
        scored = [run for run in row.runs.values() if run.number(name) is not None]
        if scored:
            return max(scored, key=lambda run: run.number(name) or 0.0)
    return next(iter(row.runs.values()))


def _teacher(table: Table, row: TableRow) -> TableRow | None:
    """The teacher of a row where there is one alone."""
    own = [each for each in table.teachers if each.group == row.group] or list(table.teachers)
    own = [each for each in own if each.runs]
    return own[0] if len(own) == 1 else None


def _who(table: Table, best: TableRow, column: Column) -> str:
    said = f"Best student: {named_row(best)}, {column.title} {show(best, column)}"
    teacher = _teacher(table, best)
    if teacher and teacher.entries[column.key].summary.n:
        said += f"; the teacher has {show(teacher, column)}"
    return f"{said}."


def _not_above(table: Table, best: TableRow, column: Column) -> list[str]:
    """Where the best student, or a teacher, does not beat a yardstick; [] where all do."""
    teachers = [row for row in table.teachers if row.runs]
    alone = _teacher(table, best)
    whose = [("the best student", best)]
    whose += [("the teacher" if row is alone else named_row(row), row) for row in teachers]
    said = []
    for name, row in whose:
        unbeaten = [each for each in table.yardsticks if not_above(row, each, column)]
        if unbeaten:
            named = " and ".join(f"`{each.row}` ({show(each, column)})" for each in unbeaten)
            said.append(f"{name} does not beat {named}")
    return [f"Beside the yardsticks: {'; '.join(said)}."] if said else []


def _cost(table: Table, best: TableRow) -> str:
    teacher = _teacher(table, best)
    said = []
    for key, name, shown in COSTS:
        own = best.mean(key)
        theirs = teacher.mean(key) if teacher else None
        if own is None:
            continue
        said.append(f"{name} {shown(own)}" + _beside(own, theirs, shown))
    if not said:
        return "What it costs was not measured."
    return f"Its cost: {', '.join(said)}."


def _beside(own: float, theirs: float | None, shown: Callable[[float], str]) -> str:
    if theirs is None or not own > 0 or not theirs > 0:
        return ""
    return f" against the teacher's {shown(theirs)} ({theirs / own:.1f} to 1)"


def _significance(table: Table, best: TableRow, column: Column) -> str:
    """Of the best row against its group's baseline."""
    compared = [row for row in table.groups[best.group] if row.role == "compared"]
    if best.role == "baseline":
        tested = [row for row in compared if _joint(row, column)]
        if not tested:
            return f"It is the baseline itself, and {_none_tested(compared)}."
        worse = [row for row in tested if _differs(row, column)]
        named = ", ".join(f"`{row.row}`" for row in worse)
        end = f"significantly worse at 5%: {named}" if worse else "none significantly worse at 5%"
        return f"It is the baseline itself; of {len(tested)} other rows of its group, {end}."
    entry = best.entries[column.key]
    tests = entry.tests
    if tests is None or tests.joint is None or tests.p_joint is None:
        return (
            f"Whether it differs from `{table.spec.baseline}` is not known: there is no test over "
            "seeds and test examples for it."
        )
    unit = " points" if column.scale == 100 else ""
    difference, low, high = (
        f"{x * column.scale:+.{column.decimals}f}"
        for x in (tests.joint.difference, tests.joint.low, tests.joint.high)
    )
    verdict = "significant" if tests.different else "not significant"
    return (
        f"Its difference from `{table.spec.baseline}`, {difference}{unit} [{low}, {high}], is "
        f"{verdict} at 5% (p {format_p(tests.p_joint)} over seeds and test examples, corrected for "
        "all comparisons of the table)."
    )


def _significance_of_letters(table: Table, best: TableRow, column: Column) -> str:
    """Of the best row against all others of its group."""
    others = [row for row in table.groups[best.group] if row is not best]
    lettered = [row for row in others if row.entries[column.key].letters]
    if not lettered or not best.entries[column.key].letters:
        return f"Whether others differ from it is not known: {_none_tested(others)}."
    level = [row for row in lettered if "a" in row.entries[column.key].letters]
    named = ": " + ", ".join(f"`{row.row}`" for row in level) if level else ""
    return (
        f"Of {len(lettered)} other rows of its group, {len(level) or 'none'} cannot be told from "
        f"it at 5%{named}."
    )


def _none_tested(rows: list[TableRow]) -> str:
    return "no other row was tested" if rows else "there is no other row"


def _joint(row: TableRow, column: Column) -> bool:
    tests = row.entries[column.key].tests
    return bool(tests and tests.joint and tests.p_joint is not None)


def _differs(row: TableRow, column: Column) -> bool:
    tests = row.entries[column.key].tests
    return bool(tests and tests.different)
