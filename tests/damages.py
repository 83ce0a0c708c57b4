"""What fuzzing is made of: damage to files and values, and what may come of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from distill_jax.core.errors import UserError

Damage = Callable[[bytes], bytes]


def told(do: Callable[[], Any]) -> tuple[Any, str | None]:
    """(result, None), or (None, the user's error); any other exception is the test's failure."""
    try:
        return do(), None
    except UserError as error:
        message = str(error)
        assert message.strip() and "\n" not in message, repr(message)
        return None, message


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with bytes flipped, cut off, taken out, put in or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), at + draw(st.sampled_from([1, 1, 2, 5, 64])))
        match draw(st.sampled_from(["flip", "cut", "remove", "insert", "double"])):
            case "flip":
                mask = draw(st.integers(1, 255))
                data = data[:at] + bytes(byte ^ mask for byte in data[at : at + 1]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "remove":
                data = data[:at] + data[end:]
            case "insert":
                data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at:]
            case "double":
                data = data[:end] + data[at:]
    return data


@st.composite
def damaged_text(draw: st.DrawFn, text: str, pieces: tuple[str, ...]) -> str:
    """``text`` with parts taken out, and pieces of its language put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        if draw(st.booleans()):
            text = text[:at] + draw(st.sampled_from(pieces)) + text[at:]
        else:
            text = text[:at] + text[at + draw(st.integers(1, 5)) :]
    return text


NUMBERS = st.one_of(
    st.integers(-3, 9),
    st.sampled_from([-1, 2**31, 2**63, 10**30, 10**400]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 0.5, 1e-320, 1e308]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
"""Any JSON value, numbers at the edges more often than by chance."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something stands."""
    found = [path]
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> Any:
    """A copy of a JSON value with something in it replaced, removed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            return draw(JSON) if draw(st.integers(0, 9)) == 0 else value
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                holder[path[-1]] = draw(JSON)
            case "remove":
                del holder[path[-1]]
            case "add" if isinstance(holder, dict):
                holder[draw(st.text(max_size=4))] = draw(JSON)
            case "add":
                holder.append(draw(JSON))
    return value


@st.composite
def folder_damage(draw: st.DrawFn, folder: Path) -> dict[str, bytes | None]:
    """What becomes of some files of a folder: new bytes, or None for gone."""
    names = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()
    )
    changes: dict[str, bytes | None] = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(names))
        data = (folder / name).read_bytes()
        match draw(st.sampled_from(["damage", "damage", "remove", "swap", "empty"])):
            case "damage":
                changes[name] = draw(damaged(data))
            case "remove":
                changes[name] = None
            case "empty":
                changes[name] = b""
            case "swap":
                other = draw(st.sampled_from(names))
                changes |= {name: (folder / other).read_bytes(), other: data}
    return changes


def damaged_copy(folder: Path, changes: dict[str, bytes | None], target: Path) -> Path:
    """A copy of a folder with the changes of ``folder_damage`` made; ``target`` is made anew."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    for name, data in changes.items():
        if data is None:
            (target / name).unlink()
        else:
            (target / name).write_bytes(data)
    return target
