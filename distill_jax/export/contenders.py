"""From the folders that somebody names to the models that are measured against each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.latency import parameter_count
from distill_jax.export.bench import Contender
from distill_jax.export.formats import format_named, names
from distill_jax.export.manifest import RANKING, Manifest, is_export, read_manifest
from distill_jax.export.own_data import NoData, data_config
from distill_jax.export.runtime import answering, task_of
from distill_jax.export.source import Source, open_source
from distill_jax.export.write import export_model
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL, RUNS, TOKENIZER
from distill_jax.tables.outputs import LEDGER
from distill_jax.tasks.classification.cells import TEACHER
from distill_jax.tasks.classification.splits import load_texts
from distill_jax.tasks.kinds.classes import Classes

JAX = "jax"
_FOR = "bench is for models that answer about texts"
_UNREAD = NoData("what it costs is measured, not its scores")


@dataclasses.dataclass(frozen=True, eq=False)
class Entrant:
    """A folder that is to be measured: a run, or an export.

    Attributes:
      name: for people.
      of_run: the run's row of the ledger; None where its folder stands alone.
      source, manifest: one of the two.
      data: what it was trained on; None where that is not known.
      pairs: whether it reads pairs of texts.
      task: the kind of task that it is for.
      form: of its answers, which knows how its texts are read.
    """

    name: str
    folder: Path
    of_run: LedgerRow | None
    source: Source | None
    manifest: Manifest | None
    data: dict[str, Any] | None
    pairs: bool
    task: str
    form: Form

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the texts that it is asked about, see ``Form.asked``."""
        return tuple(self.form.asked(self.pairs))


def enter(folder: Path) -> Entrant:
    """Open what somebody names.

    Raises:
      UserError: there is no model that answers about texts.
    """
    folder = user_path(folder)
    if is_export(folder):
        manifest = read_manifest(folder)
        if manifest.task in RANKING:
            raise UserError(f"{folder} is an export for {manifest.task}; {_FOR}")
        birth = manifest.source
        name = _label(birth.get("group"), birth.get("row")) or folder.name
        task = task_of(folder, manifest)
        kind = task.task if task else Classes.name
        form = answering(folder, manifest)
        return Entrant(name, folder, None, None, manifest, None, manifest.pairs, kind, form)
    source = open_source(folder)
    row = source.row
    name = _label(row.group, row.row) if row else folder.name
    data = dict(row.config["data"]) if row and "data" in row.config else None
    form = source.opened.answering
    return Entrant(name, folder, row, source, None, data, source.pairs, source.kind.name, form)


def teacher_of(entrants: Iterable[Entrant]) -> Path | None:
    """The folder of the teacher's own run, in the results of the first student that has one."""
    for entrant in entrants:
        row = entrant.of_run
        if row is None or row.row == TEACHER:
            continue
        results = entrant.folder.resolve().parents[1]
        for each in Ledger(results / LEDGER).rows():
            same = each.fingerprints.get("teacher") == row.fingerprints.get("teacher")
            place = results / RUNS / each.hash
            if each.row == TEACHER and same and (place / MODEL).is_dir():
                return place
    return None


def check_same(entrants: Sequence[Entrant]) -> None:
    """Raises ``UserError`` for models that cannot be asked about the same texts."""
    first = entrants[0]
    for other in entrants[1:]:
        if other.task != first.task:
            raise UserError(
                f"{first.folder} is for task {first.task} and {other.folder} for {other.task}: "
                "bench measures models of one task beside each other"
            )
        if other.pairs != first.pairs:
            reads = {True: "pairs of texts", False: "single texts"}
            raise UserError(
                f"{first.folder} reads {reads[first.pairs]} and {other.folder} "
                f"{reads[other.pairs]}: they are not of one task"
            )
    known = [each for each in entrants if each.data is not None]
    for other in known[1:]:
        names_ = [each.data["name"] for each in (known[0], other) if each.data]
        if names_[0] != names_[1]:
            raise UserError(
                f"{known[0].folder} was trained on {names_[0]} and {other.folder} on {names_[1]}: "
                "they are not of one task; --input FILE asks them about texts of your own"
            )


def test_texts(entrants: Sequence[Entrant]) -> tuple[tuple[str, ...], ...]:
    """The texts of the test split that the models were trained beside, and those of pairs.

    Raises:
      UserError: nobody knows which.
    """
    data = next((each.data for each in entrants if each.data is not None), None)
    if data is None:
        raise UserError(
            "none of these folders says what it was trained on: name a run in RESULTS/runs/HASH "
            "too, or give texts with --input FILE"
        )
    test = load_texts(data_config(data)).splits["test"]
    return (test.texts,) if test.texts_b is None else (test.texts, test.texts_b)


def contenders_of(
    entrant: Entrant,
    runtimes: Sequence[str],
    scratch: Path,
    said: Callable[[str], None] = lambda line: None,
) -> list[Contender]:
    """A run under each runtime, exported to ``scratch`` where it has to be; an export as it is.

    Raises:
      UserError: an unknown runtime, or one that cannot hold the model.
    """
    if entrant.manifest is not None:
        return [exported(entrant.name, entrant.folder, entrant.manifest)]
    source = entrant.source
    assert source is not None, "it is a run or an export"
    contenders = []
    for runtime in runtimes:
        if runtime == JAX:
            contenders.append(_under_jax(entrant, source))
            continue
        target = scratch / f"{len(list(scratch.iterdir()))}-{runtime}"
        said(f"{entrant.name}: {runtime}")
        manifest = export_model(
            source, format_named(runtime), target, data=_UNREAD, max_drop=math.inf
        )
        contenders.append(exported(entrant.name, target, manifest))
    return contenders


def check_runtimes(runtimes: Sequence[str]) -> None:
    """Raises ``UserError`` for one that there is not, or none."""
    allowed = (JAX, *names())
    for runtime in runtimes:
        if runtime not in allowed:
            raise unknown("runtime", runtime, allowed, where="in --runtimes")
    if not runtimes or len(set(runtimes)) < len(runtimes):
        raise UserError(f"--runtimes needs names, each once: {', '.join(allowed)}")


def _under_jax(entrant: Entrant, source: Source) -> Contender:
    inner = entrant.folder / MODEL
    return Contender(
        name=entrant.name,
        runtime=JAX,
        folder=entrant.folder,
        tokenizer_file=source.opened.tokenizer_file,
        max_length=source.opened.max_length,
        parameters=parameter_count(source.model.params),
        model_folder=inner if inner.is_dir() else entrant.folder,
        form=entrant.form,
    )


def exported(name: str, folder: Path, manifest: Manifest) -> Contender:
    """An export as it is."""
    return Contender(
        name=name,
        runtime=manifest.format,
        folder=folder,
        tokenizer_file=folder / TOKENIZER,
        max_length=manifest.max_length,
        parameters=int(manifest.source.get("parameters", 0)),
        model_folder=folder,
        form=answering(folder, manifest),
    )


def _label(group: Any, row: Any) -> str:
    if row == TEACHER:
        return TEACHER
    return ", ".join(str(each) for each in (group, row) if each)
