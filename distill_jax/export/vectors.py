"""Recommenders and towers as vectors, an index of them, and the programs that make more.

A folder holds ``items.npy`` [I, D] float32, ``items.csv`` (row, id, title), ``items.faiss``
(an exact index of inner products), ``query.stablehlo`` and, where the model reads texts,
``item.stablehlo`` and ``tokenizer.json``, or where users have vectors ``users.csv`` (row, user);
``export.json`` and ``README.md`` as of every export.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

import distill_jax
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.export.manifest import TOKENIZER, Manifest, digests_of, write_manifest
from distill_jax.export.retrievers import Program, Retriever, open_retriever
from distill_jax.export.source import birth_of, row_of
from distill_jax.export.vectors_card import vectors_card
from distill_jax.export.write import installed_versions
from distill_jax.models.loaded import check_free

FORMAT = "vectors"
ITEMS, TITLES, INDEX, USERS = "items.npy", "items.csv", "items.faiss", "users.csv"
QUERY, ITEM = "query.stablehlo", "item.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5
"""By which a score may differ from the model's, of scores above 1 in proportion."""
LIST = 10


def export_vectors(run: Path, folder: Path) -> Manifest:
    """Write a finished run's recommender or towers, whole or not at all, and compare them.

    Raises:
      UserError: the folder is not free, the model gives items no vectors, faiss is not installed,
        what was written answers otherwise, or the disk is full.
    """
    check_free(folder)
    faiss = faiss_library()
    retriever = open_retriever(run)
    with atomic_folder(folder) as scratch:
        _write(retriever, scratch, faiss)
        parity = compare(retriever, scratch)
        (scratch / "README.md").write_text(vectors_card(retriever, parity), encoding="utf-8")
        manifest = _manifest(run, retriever, digests_of(scratch), parity)
        write_manifest(scratch, manifest)
    return manifest


def _write(retriever: Retriever, folder: Path, faiss: Any) -> None:
    items_ID = np.ascontiguousarray(retriever.items_ID, np.float32)
    np.save(folder / ITEMS, items_ID, allow_pickle=False)
    index = faiss.IndexFlatIP(items_ID.shape[1])
    index.add(items_ID)
    (folder / INDEX).write_bytes(faiss.serialize_index(index).tobytes())
    catalogue = retriever.catalogue
    titles = [(row, name, catalogue.title(row)) for row, name in enumerate(catalogue.names)]
    _write_csv(folder / TITLES, ("row", "id", "title"), titles)
    if retriever.users:
        users = [(row, name) for row, name in enumerate(retriever.users) if name is not None]
        _write_csv(folder / USERS, ("row", "user"), users)
    (folder / QUERY).write_bytes(compiled_program(retriever.query))
    if retriever.item is not None:
        (folder / ITEM).write_bytes(compiled_program(retriever.item))
        assert retriever.tokenizer_file is not None, "tokens are read"
        shutil.copyfile(retriever.tokenizer_file, folder / TOKENIZER)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def compiled_program(program: Program) -> bytes:
    """A program for any number of rows and any length up to its longest, by ``jax.export``."""
    scope = export.SymbolicScope(["b >= 1", "t >= 1", f"t <= {program.longest}"])
    given = [
        jax.ShapeDtypeStruct(export.symbolic_shape(axes, scope=scope), np.int32)
        for axes in program.inputs.values()
    ]
    made = export.export(jax.jit(program.apply), platforms=PLATFORMS)(*given)
    return bytes(made.serialize())


def compare(retriever: Retriever, folder: Path) -> dict[str, Any]:
    """The files read again and asked what the model was asked: for ``export.json``.

    Raises:
      UserError: where a score or a list is another.
    """
    items_ID = np.load(folder / ITEMS, allow_pickle=False)
    index = faiss_library().read_index(str(folder / INDEX))
    query = export.deserialize(bytearray((folder / QUERY).read_bytes()))
    vectors_ED = np.asarray(query.call(*retriever.probes), np.float32)
    expected_EI = retriever.expected_EI
    allowed = TOLERANCE * max(1.0, float(np.abs(expected_EI).max()))
    worst = float(np.abs(vectors_ED @ items_ID.T - expected_EI).max())
    length = min(LIST, len(items_ID))
    _, found_EK = index.search(vectors_ED, length)
    best_EK = -np.sort(-expected_EI, axis=1)[:, :length]
    off_EK = np.abs(np.take_along_axis(expected_EI, found_EK, axis=1) - best_EK)
    if not (worst <= allowed and float(off_EK.max()) <= 2 * allowed):  # NaN is no agreement
        raise UserError(
            f"what was written answers otherwise than the model: a score differs by {worst:.3g}, "
            f"more than {allowed:.3g}, or a list does; nothing was kept"
        )
    return {
        "compared_with": "the model's scores of all items",
        "askers": len(expected_EI),
        "worst_difference": worst,
        "tolerance": TOLERANCE,
        "lists": f"the first {length} of each, by the index; equal scores in any order",
    }


def faiss_library() -> Any:
    """faiss, which is an extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "an index of items needs the package faiss: pip install 'distill_jax[index]'"
        ) from error
    return faiss


def _manifest(
    run: Path, retriever: Retriever, files: dict[str, str], parity: dict[str, Any]
) -> Manifest:
    programs = {"query": retriever.query, "item": retriever.item}
    return Manifest(
        format=FORMAT,
        task=retriever.task,
        label_names=(),
        max_length=retriever.query.longest,
        pairs=False,
        temperature=1.0,
        source=birth_of(retriever.model, retriever.parameters, row_of(run)),
        files=files,
        versions={"distill_jax": distill_jax.__version__, **installed_versions()},
        parity=parity,
        retrieval={
            "items": len(retriever.items_ID),
            "numbers": retriever.items_ID.shape[1],
            "similarity": "inner product",
            "programs": {
                name: {"inputs": dict(program.inputs), "longest": program.longest}
                for name, program in programs.items()
                if program is not None
            },
        },
    )
