"""Pieces of a web page that needs nothing from elsewhere: text, tables, pictures."""

import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from urllib.parse import quote

from distill_jax.tables.sheet import Sheet

PAGE_WIDTH, CHAR_WIDTH, CELL_PADDING = 1040, 7.9, 23
"""In pixels, of tables at their own font size on a page of full width."""
LABEL_CHARS = 24
"""Labels that are longer may be folded."""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page; its policy forbids every request, whatever the content."""
    style = (resources.files("distill_jax.tables") / "report.css").read_text("utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>",
        "<body>",
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def text(value: object) -> str:
    """Text in which nothing is markup."""
    return html.escape(str(value))


def prose(sentence: str) -> str:
    """A sentence; what stands between backticks is code."""
    parts = [text(part) for part in sentence.split("`")]
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def section(heading: str, body: Iterable[str]) -> list[str]:
    """A section under its heading; nothing where there is nothing to say."""
    lines = list(body)
    return ["<section>", f"<h2>{text(heading)}</h2>", *lines, "</section>"] if lines else []


def folded(heading: str, body: Iterable[str]) -> list[str]:
    """What is there for those who ask."""
    return ["<details>", f"<summary>{text(heading)}</summary>", *body, "</details>"]


def link(target: str, words: str) -> str:
    """A link to what lies beside the page."""
    return f'<a href="{text(quote(target))}">{text(words)}</a>'


def bullets(sentences: Sequence[str], css: str = "notes") -> list[str]:
    """A list of sentences."""
    if not sentences:
        return []
    return [f'<ul class="{css}">', *(f"<li>{prose(s)}</li>" for s in sentences), "</ul>"]


def definitions(terms: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Terms, each with one or several descriptions."""
    lines = ["<dl>"]
    for term, descriptions in terms:
        if descriptions:
            lines.append(f"<dt>{text(term)}</dt>")
            lines += [f"<dd>{prose(description)}</dd>" for description in descriptions]
    return [*lines, "</dl>"]


def sheet(sheet: Sheet) -> list[str]:
    """A table without its empty columns: side by side in blocks that fit a screen, and on a narrow
    one a card for each line."""
    filled = sheet.without_empty()
    lines = [f"<p>{prose(sentence)}</p>" for sentence in filled.lead]
    for block in filled.blocks(_widths(filled), PAGE_WIDTH):
        lines += _table(filled.only(block))
    return lines


def _table(sheet: Sheet) -> list[str]:
    lines = ["<table>", "<thead>", _row("th", sheet.heading, sheet.labels), "</thead>", "<tbody>"]
    previous = None
    for line in sheet.lines:
        cells = [f"<b>{text(c.text)}</b>" if c.bold else text(c.text) for c in line.cells]
        css = ' class="section"' if previous not in (None, line.section) else ""
        previous = line.section
        lines.append(_row("td", cells, sheet.labels, css, titles=sheet.heading))
    return [*lines, "</tbody>", "</table>"]


def _widths(sheet: Sheet) -> list[int]:
    """Of columns in pixels, roughly: what may be folded is as wide as its longest word."""
    widths = []
    for index, title in enumerate(sheet.heading):
        cells = [line.cells[index].text for line in sheet.lines]
        longest = max((len(word) for word in title.split()), default=0)
        if index < sheet.labels:
            longest = max([longest, *(min(len(cell), LABEL_CHARS) for cell in cells)])
        else:
            longest = max([longest, *map(len, cells)])
        widths.append(round(longest * CHAR_WIDTH) + CELL_PADDING)
    return widths


def picture(svg: bytes, name: str, description: str) -> list[str]:
    """An SVG drawing inside the page.

    Args:
      svg: as matplotlib writes it.
      name: goes before its ids, which would clash with those of another drawing.
      description: for those who cannot see it.
    """
    drawing = svg.decode("utf-8")
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'href="#', f'href="#{name}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{name}-", drawing)
    opening, rest = drawing.split(">", 1)
    opening = re.sub(r'\s(?:width|height)="[^"]*"', "", opening)
    opening += f' role="img" aria-label="{text(description)}"'
    return ['<div class="picture">', f"{opening}>{rest.strip()}", "</div>"]


def _row(
    tag: str,
    cells: Sequence[str],
    labels: int,
    css: str = "",
    *,
    titles: Sequence[str] = (),
) -> str:
    """A line; with ``titles`` its cells are markup and know what they are, for cards."""
    done = []
    for index, cell in enumerate(cells):
        label = ' class="label"' if index < labels else ""
        titled = f' data-title="{text(titles[index])}"' if titles else ""
        done.append(f"<{tag}{label}{titled}>{cell if titles else text(cell)}</{tag}>")
    return f"<tr{css}>{''.join(done)}</tr>"
