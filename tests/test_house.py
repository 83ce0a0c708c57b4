"""The house keeps its shape: files form no circle of imports, inside a room or through several.

Imports inside functions and those for type checkers count. Which room may import which is held by
import-linter, see pyproject.toml.
"""

import graphlib
import pkgutil

import grimp
import pytest

import distill_jax

ROOMS = [room.name for room in pkgutil.iter_modules(distill_jax.__path__) if room.ispkg]


@pytest.fixture(scope="module")
def imports():
    graph = grimp.build_graph("distill_jax", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle_of(imports, room):
    return circle_among(imports, {each for each in imports if each.split(".")[1:2] == [room]})


def circle_among(imports, inside):
    """The files of a circle, from one to the next; () where there is none."""
    try:
        graphlib.TopologicalSorter({each: imports[each] & inside for each in inside}).prepare()
    except graphlib.CycleError as error:
        return tuple(error.args[1])
    return ()


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_of_a_room_form_no_circle(imports, room):
    assert not circle_of(imports, room)


def test_the_whole_house_forms_no_circle(imports):
    assert not circle_among(imports, set(imports))


def test_a_circle_is_found():
    names = [f"distill_jax.room.{name}" for name in "abc"]
    chain = {names[0]: {names[1]}, names[1]: {names[2], "distill_jax.other"}, names[2]: set()}
    assert not circle_of(chain, "room")
    assert set(circle_of({**chain, names[2]: {names[0]}}, "room")) == set(names)
    assert "tables" in ROOMS
