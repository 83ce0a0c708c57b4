"""``report.html``: one page with everything, which needs nothing from elsewhere."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_jax.data.table import SPLITS
from distill_jax.tables import html
from distill_jax.tables.conclusion import best_student, conclusion, run_to_take
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.report_errors import errors, taking
from distill_jax.tables.sheet import (
    MISSING,
    Line,
    Sheet,
    SheetCell,
    every_test,
    sheets_of,
    sources_of,
    text_sheet,
)
from distill_jax.tables.table import Table
from distill_jax.tables.trends import TrendResult
from distill_jax.tables.trends_markdown import claimed, estimate


def report(
    table: Table,
    trends: Sequence[TrendResult],
    drawings: Mapping[str, bytes],
    folder: Path | None = None,
) -> str:
    """The page: what the table comes to, table and figures, then what they rest on.

    Args:
      table: as ``table_of`` builds it.
      trends: as evaluated.
      drawings: SVG: ``figure``, where runs kept their history ``curves``, where they were timed
        ``costs``.
      folder: in which the page and ``runs`` lie; None where only the ledger is known.
    """
    main, *published = sheets_of(table)
    tests = every_test(table)
    runs = _runs(table)
    body = [
        f"<h1>{html.text(table.spec.title)}</h1>",
        f'<p class="soft">{_summary(table, runs)}</p>',
    ]
    told = conclusion(table, table.spec.figure_key)
    best = best_student(table, table.spec.figure_key)
    if told and best is not None:
        body += ['<div class="conclusion">', *(f"<p>{html.prose(each)}</p>" for each in told)]
        body += [*taking(run_to_take(best), folder), "</div>"]
    body += html.section("Results", [*html.sheet(main)])
    body += _pictured("Figure", drawings, "figure", _described(table))
    against = f"{_described(table)}, against latency"
    body += _pictured("Score against latency", drawings, "costs", against)
    if best is not None and folder is not None:
        body += html.section("Where the best student is wrong", errors(run_to_take(best), folder))
    body += html.section("Trends", _trends(table, trends))
    body += html.section("Published numbers", _published(table, published))
    by_step = f"Validation scores by optimiser step, {table.spec.title}"
    body += _pictured("Learning curves", drawings, "curves", by_step)
    body += html.section("Protocol", html.bullets(table.spec.protocol, "protocol"))
    statistics = html.bullets(table.notes)
    if tests is not None:
        statistics += html.folded("Every test in numbers", html.sheet(tests))
    body += html.section("How to read the numbers", statistics)
    body += html.section("Provenance", _provenance(table, runs))
    return html.page(table.spec.title, body)


def _pictured(heading: str, drawings: Mapping[str, bytes], name: str, described: str) -> list[str]:
    """A drawing in a section of its own, where there is one."""
    if name not in drawings:
        return []
    return html.section(heading, html.picture(drawings[name], name, described))


def _runs(table: Table) -> dict[str, list[LedgerRow]]:
    """Hash -> the run as it stands at each of its places, in the table's order."""
    runs: dict[str, list[LedgerRow]] = {}
    for row in table.rows:
        for run in row.runs.values():
            runs.setdefault(run.hash, []).append(run)
    return runs


def _summary(table: Table, runs: Mapping[str, object]) -> str:
    names = f"<code>{html.text(table.spec.name)}</code>"
    missing, _ = table.unfinished
    state = f"{len(runs)} runs" + (f", {missing} more not finished" if missing else "")
    return f"{names} · {state} · baseline <code>{html.text(table.spec.baseline)}</code>"


def _described(table: Table) -> str:
    column = table.column(table.spec.figure_key)
    spec = table.spec
    return f"{column.title} by {spec.row_title} and {spec.group_title}, {spec.title}"


def _trends(table: Table, results: Sequence[TrendResult]) -> list[str]:
    if not results:
        return []
    scales = {column.key: column.scale for column in table.columns}
    lines = [
        Line(str(number), tuple(map(SheetCell, cells)))
        for number, result in enumerate(results)
        for cells in _contrasts(result, scales.get(result.trend.metric, 100.0))
    ]
    heading = ("statement", "contrast", "claimed", "estimate [95%, seeds], points", "here")
    counts = Counter(_word(result.verdict) for result in results)
    counted = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    verdicts = [
        f"<li>{_verdict(result.verdict)}: {html.prose(result.trend.statement)}</li>"
        for result in results
    ]
    lead = f"<p>Of {len(results)} statements: {counted}.</p>"
    return [lead, "<ul>", *verdicts, "</ul>", *html.sheet(Sheet(heading, tuple(lines), 3, 3))]


def _contrasts(result: TrendResult, scale: float) -> list[tuple[str, ...]]:
    """A line for each contrast of a trend; the first says what the paper says."""
    trend = result.trend
    lines: list[tuple[str, ...]] = []
    for index, contrast in enumerate(trend.contrasts):
        picked = [
            f"{row} ({group})"
            for pick, (row, group) in zip(contrast.picks, result.chosen[index], strict=False)
            if len(pick.places) > 1
        ]
        label = contrast.label
        if picked:
            label += f"; chosen on validation: {', '.join(picked)}"
        statement = trend.statement if index == 0 else ""
        interval, verdict = estimate(result.summaries[index], scale), result.verdicts[index]
        lines.append((statement, label, claimed(trend, scale), interval, verdict))
    return lines


def _word(verdict: str) -> str:
    return verdict.split(":")[0]


def _verdict(verdict: str) -> str:
    css = {"held": "held", "not held": "failed"}.get(_word(verdict), "soft")
    return f'<span class="{css}">{html.text(verdict)}</span>'


def _covered(rows: Sequence[LedgerRow]) -> list[str]:
    """Of each split, the share of texts that were cut and of tokens that are unknown."""
    said = {
        f"{split}: {100 * row.metrics[f'{split}/cut']:.1f}% of the texts cut, "
        f"{100 * row.metrics[f'{split}/unknown']:.1f}% of the tokens [UNK]"
        for row in rows
        for split in SPLITS
        if f"{split}/cut" in row.metrics and f"{split}/unknown" in row.metrics
    }
    return sorted(said)


def _published(table: Table, sheets: Sequence[Sheet]) -> list[str]:
    if table.published is None:
        return []
    published = table.published
    lines = [f"<p>{html.prose(published.title)}. Source: {html.prose(published.source)}.</p>"]
    for sheet in sheets:
        lines += html.sheet(Sheet(sheet.heading, sheet.lines, sheet.labels, sheet.repeated))
    lines += html.bullets(published.remarks)
    return [*lines, *html.folded("Where each was read", html.sheet(sources_of(published)))]


def _provenance(table: Table, runs: Mapping[str, list[LedgerRow]]) -> list[str]:
    rows = [places[0] for places in runs.values()]
    if not rows:
        return []
    seconds = sum(row.seconds.get("total", row.seconds.get("train", 0.0)) for row in rows)
    times = sorted(row.finished_at for row in rows)
    prints = sorted({key for row in rows for key in row.fingerprints})
    lines = html.definitions(
        [
            ("Code", _counted(_code(row.code) for row in rows)),
            ("Packages", _counted(_packages(row.packages) for row in rows)),
            ("Devices", _counted(row.device for row in rows)),
            ("Finished", [f"{times[0]} to {times[-1]}; {seconds:,.0f} s of runs in all"]),
            *(
                (f"Fingerprint of {key}", _counted(row.fingerprints.get(key, "") for row in rows))
                for key in prints
            ),
        ]
    )
    covered = _covered(rows)
    lines += html.definitions([("Texts and tokens", covered)]) if covered else []
    shared = shared_settings([run for row in table.students for run in row.runs.values()])
    if shared:
        sheet = text_sheet(("setting", "value"), shared.items(), labels=2, repeated=1)
        lines += html.folded("Settings that all students share", html.sheet(sheet))
    return [*lines, *html.folded(f"All {len(runs)} runs", html.sheet(_run_sheet(table, runs)))]


def shared_settings(runs: Sequence[LedgerRow]) -> dict[str, str]:
    """Dotted path -> value, of the settings that are the same in all runs."""
    settings = [run.settings() for run in runs]
    return {
        key: str(value)
        for key, value in (settings[0] if settings else {}).items()
        if all(key in other and other[key] == value for other in settings)
    }


def _run_sheet(table: Table, runs: Mapping[str, list[LedgerRow]]) -> Sheet:
    column = table.column(table.spec.figure_key)
    lines = []
    for hash, places in runs.items():
        run = places[0]
        score = run.number(column.key)
        seconds = run.seconds.get("total", run.seconds.get("train"))
        cells = [
            hash,
            "; ".join(dict.fromkeys(place.group for place in places)),
            "; ".join(dict.fromkeys(place.row for place in places)),
            str(run.seed),
            MISSING if run.selected_step is None else str(run.selected_step),
            MISSING if score is None else f"{score * column.scale:.{column.decimals + 1}f}",
            MISSING if seconds is None else f"{seconds:,.1f}",
        ]
        lines.append(cells)
    heading = ("hash", table.spec.group_title, table.spec.row_title, "seed", "selected step")
    return text_sheet((*heading, column.title, "seconds"), lines, labels=3, repeated=3)


def _code(code: Mapping[str, Any]) -> str:
    text = f"distill_jax {code.get('version', '?')}"
    if "commit" in code:
        state = "with uncommitted changes" if code.get("dirty") else "clean"
        text += f", commit `{code['commit']}` ({state})"
    return text


def _packages(packages: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))


def _counted(values: Iterable[str]) -> list[str]:
    """Each value once, with the number of runs where they differ."""
    counts = Counter(value for value in values if value)
    if len(counts) == 1:
        return list(counts)
    return [f"{value}: {count} run{'s' * (count > 1)}" for value, count in sorted(counts.items())]
