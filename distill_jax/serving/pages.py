"""Pages for people: one to try a model, one on its interface. Nothing comes from elsewhere."""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_jax.serving.model import Served

FILES = {"page.css": "text/css", "page.js": "text/javascript"}


def read(name: str) -> str:
    """A file of this room's folder ``static``."""
    return (resources.files("distill_jax.serving") / "static" / name).read_text(encoding="utf-8")


def try_page(served: Served) -> str:
    """The page at ``/``, with a box for every text of an example."""
    boxes = "\n".join(
        f'<label for="{escape(name)}">{escape(_sentence(told))}</label>\n'
        f'<textarea id="{escape(name)}" name="{escape(name)}" rows="3" required></textarea>'
        for name, told in served.columns.items()
    ).replace(" required>", " required autofocus>", 1)
    about = escape(_sentence(served.about))
    return Template(read("page.html")).substitute(boxes=boxes, about=about)


def _sentence(told: str) -> str:
    return told[:1].upper() + told[1:]


def docs_page(openapi: dict[str, Any]) -> str:
    """The interface as a page: every path, what it takes, and what it answers."""
    parts = [
        f"<section><h2>{method.upper()} {escape(path)}</h2><p>{escape(about['summary'])}</p>"
        f"{_request(about)}{_responses(about)}</section>"
        for path, methods in openapi["paths"].items()
        for method, about in methods.items()
    ]
    schemas = openapi.get("components", {}).get("schemas", {})
    parts += [
        f'<section><h2 id="{escape(name)}">{escape(name)}</h2>{_schema(schema)}</section>'
        for name, schema in schemas.items()
    ]
    info = openapi["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return Template(read("docs.html")).substitute(title=title, parts="\n".join(parts))


def _request(about: dict[str, Any]) -> str:
    content = about.get("requestBody", {}).get("content", {})
    return "".join(
        f"<h3>Body: {escape(kind)}</h3>{_schema(said['schema'])}" for kind, said in content.items()
    )


def _responses(about: dict[str, Any]) -> str:
    rows = []
    for status, said in about["responses"].items():
        schema = said.get("content", {}).get("application/json", {}).get("schema", {})
        rows.append(
            f"<tr><td>{escape(status)}</td><td>{escape(said['description'])}</td>"
            f"<td>{_kind(schema)}</td></tr>"
        )
    head = "<tr><th>status</th><th>when</th><th>body</th></tr>"
    return f"<h3>Answers</h3><table>{head}{''.join(rows)}</table>"


def _schema(schema: dict[str, Any]) -> str:
    """A table of an object's fields, and an example where there is one."""
    rows = [
        f"<tr><td><code>{escape(name)}</code></td><td>{_kind(field)}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    ]
    example = schema.get("example")
    shown = f"<pre>{escape(json.dumps(example, indent=1))}</pre>" if example else ""
    head = "<tr><th>field</th><th>type</th><th>what it is</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>{shown}"


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value in a few words, with its limits."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    said = escape(schema.get("type", ""))
    if "items" in schema:
        said += f" of {_kind(schema['items'])}"
    limits = {"maxLength": "characters", "maxItems": "items"}
    for key, unit in limits.items():
        if key in schema:
            said += f" (at most {schema[key]} {unit})"
    return said
