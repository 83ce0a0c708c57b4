"""Recommenders and towers as vectors, an index of them, and the programs that make more.

A folder holds ``items.npy`` [I, D] float32, ``items.csv`` (row, id, title), ``items.faiss``
(an exact index of inner products), ``query.stablehlo`` and, where the model reads texts,
``item.stablehlo`` and ``tokenizer.json``, or where users have vectors ``users.csv`` (row, user);
``export.json`` and ``README.md`` as of every export.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from distill_jax.core.errors import UserError, first_line
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.core.version import VERSION
from distill_jax.export.manifest import (
    TOKENIZER,
    Manifest,
    check_files,
    digests_of,
    read_manifest,
    write_manifest,
)
from distill_jax.export.retrievers import Program, Retriever, is_retriever, open_retriever
from distill_jax.export.source import birth_of, row_of
from distill_jax.export.vectors_card import vectors_card
from distill_jax.export.write import installed_versions
from distill_jax.models.hf_weights import read_safetensors
from distill_jax.models.loaded import check_free

FORMAT = "vectors"
ITEMS, TITLES, INDEX, USERS = "items.npy", "items.csv", "items.faiss", "users.csv"
GOLDEN = "golden.safetensors"
TABLE = "items"
"""The input that is ``items.npy``."""
QUERY, ITEM = "query.stablehlo", "item.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5
"""By which a score may differ from the model's, of scores above 1 in proportion."""
ITEM_TOLERANCE = 1e-4
"""By which a number of a new item's vector may differ, as a share of the largest: an encoder of
many layers lies before it."""
LIST = 10


def export_vectors(run: Path, folder: Path) -> Manifest:
    """Write a finished run's recommender or towers, whole or not at all, and compare them.

    Raises:
      UserError: the folder is not free, the model gives items no vectors, faiss is not installed,
        what was written answers otherwise, or the disk is full.
    """
    check_free(folder)
    faiss_library()
    retriever = open_retriever(run)
    with atomic_folder(folder) as scratch:
        _write(retriever, scratch)
        parity = compare(retriever, scratch)
        write_golden(retriever, scratch)
        said = {"model": retriever.model, "parameters": retriever.parameters}
        birth = birth_of(said, row_of(run))
        card = vectors_card(retriever, birth, parity)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        manifest = _manifest(retriever, birth, digests_of(scratch), parity)
        write_manifest(scratch, manifest)
    return manifest


def _write(retriever: Retriever, folder: Path) -> None:
    items_ID = np.ascontiguousarray(retriever.items_ID, np.float32)
    np.save(folder / ITEMS, items_ID, allow_pickle=False)
    (folder / INDEX).write_bytes(_index_of(items_ID))
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
    limits = ["b >= 1", "t >= 1", f"t <= {program.longest}"]
    if TABLE in program.inputs:
        limits.append(f"i >= {program.items}")
    scope = export.SymbolicScope(limits)
    given = [
        jax.ShapeDtypeStruct(
            export.symbolic_shape(axes, scope=scope), np.float32 if name == TABLE else np.int32
        )
        for name, axes in program.inputs.items()
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
    table = [items_ID] if TABLE in retriever.query.inputs else []
    vectors_ED = np.asarray(query.call(*table, *retriever.probes), np.float32)
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
    _compare_items(retriever, folder)
    return {
        "compared_with": "the model's scores of all items",
        "askers": len(expected_EI),
        "worst_difference": worst,
        "tolerance": TOLERANCE,
        "lists": f"the first {length} of each, by the index; equal scores in any order",
    }


def _compare_items(retriever: Retriever, folder: Path) -> None:
    """Vectors of items as if they were new."""
    if retriever.item is None:
        return
    program = export.deserialize(bytearray((folder / ITEM).read_bytes()))
    vectors_ND = np.asarray(program.call(*retriever.item_probes), np.float32)
    expected_ND = retriever.item_expected_ND
    allowed = ITEM_TOLERANCE * float(np.abs(expected_ND).max())
    worst = float(np.abs(vectors_ND - expected_ND).max())
    if not worst <= allowed:
        raise UserError(
            f"what was written makes other vectors of items than the model: a number differs by "
            f"{worst:.3g}, more than {allowed:.3g}; nothing was kept"
        )


def write_golden(retriever: Retriever, folder: Path) -> None:
    """Keep some askers and the scores that the model gave them, in an ``atomic_folder``."""
    probes = {f"input_{n}": np.ascontiguousarray(x) for n, x in enumerate(retriever.probes)}
    best_EK = np.argsort(-retriever.expected_EI, axis=1, kind="stable")[:, :LIST]
    scores_EK = np.take_along_axis(retriever.expected_EI, best_EK, axis=1)
    arrays = {"items": best_EK.astype(np.int32), "scores": np.asarray(scores_EK, np.float32)}
    save_tensors(folder / GOLDEN, {**probes, **arrays})


def verified(folder: Path, run: Path | None = None) -> Iterator[str]:
    """What is found in an exported folder, line by line.

    Args:
      run: what it was made of; by default the run in whose folder it lies, where it does.

    Raises:
      UserError: a file has changed, or something is answered otherwise than when it was written.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    yield f"{len(manifest.files)} files are what they were"
    yield _golden_again(folder, manifest)
    beside = folder.resolve().parents[1] if len(folder.resolve().parents) > 1 else folder
    if run is None and not is_retriever(beside):
        return
    retriever = open_retriever(run or beside)
    if retriever.model == manifest.source.get("model"):
        found = compare(retriever, folder)
        worst = f"scores within {found['worst_difference']:.1e}"
        yield f"the source, {run or beside}: {found['askers']} askers, {worst}"
    elif run is not None:
        raise UserError(f"{run} is not what {folder} was made of: its model is another")


def _golden_again(folder: Path, manifest: Manifest) -> str:
    """The askers that were kept, asked again. The folder may be anybody's: of the index, which
    faiss would read without care, only the bytes are looked at."""
    faiss_library()
    golden = read_safetensors(folder / GOLDEN)
    try:
        items_ID = np.load(folder / ITEMS, allow_pickle=False)
        same_index = (folder / INDEX).read_bytes() == _index_of(items_ID)
        probes = [golden[f"input_{n}"] for n in range(len(golden) - 2)]
        query = export.deserialize(bytearray((folder / QUERY).read_bytes()))
        table = [items_ID] if TABLE in manifest.retrieval["programs"]["query"]["inputs"] else []
        vectors_ED = np.asarray(query.call(*table, *probes), np.float32)
        scores_EI = vectors_ED @ items_ID.T
        found_EK = np.take_along_axis(scores_EI, golden["items"].astype(np.int64), axis=1)
        best_EK = -np.sort(-scores_EI, axis=1)[:, : found_EK.shape[1]]
        expected_EK = golden["scores"] + np.zeros_like(found_EK)
    except Exception as error:  # JAX and faiss have kinds of their own for what is no program
        raise UserError(f"{folder} is damaged: {first_line(error)}") from error
    if not same_index:
        raise UserError(f"{folder / INDEX} is not the index of {ITEMS}")
    allowed = TOLERANCE * max(1.0, float(np.abs(expected_EK).max()))
    worst = max(float(np.abs(each - expected_EK).max()) for each in (found_EK, best_EK))
    if not worst <= allowed:
        raise UserError(
            f"parity is broken: {folder} gives scores that differ by {worst:.3g} from those it was "
            f"written with, more than {allowed:.3g}"
        )
    return f"golden lists: {len(found_EK)} askers, scores within {worst:.1e}"


def _index_of(items_ID: np.ndarray) -> bytes:
    """An exact index of inner products, as faiss writes it."""
    faiss = faiss_library()
    index = faiss.IndexFlatIP(items_ID.shape[1])
    index.add(np.ascontiguousarray(items_ID, np.float32))
    return bytes(faiss.serialize_index(index).tobytes())


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
    retriever: Retriever, birth: dict[str, Any], files: dict[str, str], parity: dict[str, Any]
) -> Manifest:
    programs = {"query": retriever.query, "item": retriever.item}
    return Manifest(
        format=FORMAT,
        task=retriever.task,
        label_names=(),
        max_length=retriever.query.longest,
        pairs=False,
        temperature=1.0,
        source=birth,
        files=files,
        versions={"distill_jax": VERSION, **installed_versions()},
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
