"""Configurations as flat settings, and what differs between two of them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distill_jax.core.digests import canonical_json

Changes = dict[str, tuple[Any, Any]]
"""Dotted path of a setting -> (old value, new value); None where there was none."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a nested configuration by dotted path, ``training.epochs``."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(config: Any) -> Any:
    """As it looks after a way through JSON: tuples are lists."""
    return json.loads(canonical_json(config))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """The settings in which two configurations differ, sorted by path.

    A setting that there was not when ``old`` was kept may be as it always was: it is named only
    where nothing else differs.
    """
    before, after = dict(flatten(plain(old))), dict(flatten(plain(new)))
    found = {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }
    groups = {""} | {key[:end] for key in before for end in range(len(key)) if key[end] == "."}
    named = {
        key: values
        for key, values in found.items()
        if key in before or key.rpartition(".")[0] not in groups
    }
    return named or found


def not_allowed(found: Changes, allowed: Iterable[str]) -> Changes:
    """The changes that are not allowed; ``training`` allows all that stand below it."""
    prefixes = tuple(allowed)
    return {
        key: values
        for key, values in found.items()
        if not any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
    }


def describe(found: Changes) -> str:
    """The changes in one line: ``training.epochs: 2 -> 3, ...``."""
    return ", ".join(f"{key}: {_short(old)} -> {_short(new)}" for key, (old, new) in found.items())


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
