"""Language modelling: hidden words or the next token, with or without a teacher, see
``interface.Task``."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
from jax.sharding import Mesh

from distill_jax.core.digests import digest
from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.core.sharding import ShardingRules, place
from distill_jax.data.coverage import as_metrics
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import Precision
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.sweep import Entry, Sweep, distinct
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.language import Measure, TextScores, measure_of, score_texts
from distill_jax.evaluation.latency import parameter_count
from distill_jax.models.build import build_model, language_family
from distill_jax.models.loaded import Loaded
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.objectives.vocabulary import VOCABULARY
from distill_jax.tables.evidence import CASES, pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.language.cells import LanguageCell, LanguageSetup, LanguageTraining
from distill_jax.tasks.language.texts import (
    EVALUATION_BATCH,
    LanguageTexts,
    load_models,
    prepare_texts,
)
from distill_jax.teachers.cache import union_of
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.checkpoint import Identity
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import LoopConfig, TrainResult
from distill_jax.training.state import Params

TEACHER, MODEL = "teacher", "model"
READ = partial(parse, vocabulary=VOCABULARY)
"""Reads an objective of language models."""
SELECT = "nll"
PROTOCOL = {
    "masked": "Of a test text the same words are hidden from every model; loss and top-1 are means "
    "over these tokens, perplexity is exp of the loss. Tests over texts weigh a text by its "
    "tokens.",
    "next": "Loss and top-1 are means over all tokens but the first of each test text, "
    "perplexity is exp of the loss. Tests over texts weigh a text by its tokens.",
}


@dataclass(frozen=True, eq=False)
class Materials:
    """What a cell is made of, found before anything is trained.

    Attributes:
      start, teacher: models as loaded, None where it has none.
      config: of its model.
    """

    texts: LanguageTexts
    start: Loaded | None
    teacher: Loaded | None
    config: Any

    @property
    def digest(self) -> str:
        """Of texts, tokens, and of what the model starts from."""
        return digest([self.texts.digest, self.start.digest if self.start else ""])

    def objective(self, text: str) -> ResolvedObjective:
        """An objective, fitted to the models."""
        shape = self.teacher.config.shape if self.teacher else None
        return resolve(text, self.config.shape, shape, VOCABULARY)


@dataclass(eq=False)
class Language:
    """What is needed for the runs of a sweep of language models, and the runs."""

    sweep: Sweep[LanguageSetup]
    entries: Sequence[Entry[LanguageSetup]] = ()
    engine: Engine = field(init=False)
    _texts: dict[Any, LanguageTexts] = field(default_factory=dict)
    _live: dict[str, LiveTeacher] = field(default_factory=dict)
    _references: list[Place] = field(default_factory=list)

    def prepare(self, engine: Engine, entries: Sequence[Entry[LanguageSetup]]) -> None:
        self.engine, self.entries = engine, entries
        for cell in distinct(entries):
            plugin_digest(cell.objective, read=READ)
            found = self.materials(cell)
            objective = found.objective(cell.objective)
            for note in objective.notes:
                engine.reporter.say(f"{cell.setup.student}: {note}")
            build_model(found.config, compute_dtype(cell.precision), engine.options.remat)
            engine.check_batch_size(cell.training.batch_size)

    def materials(self, cell: LanguageCell) -> Materials:
        """What a cell is made of; texts are read once for all that share them.

        Raises:
          UserError: for what cannot be had or does not fit together.
        """
        setup = cell.setup
        start, teacher = load_models(setup)
        given = teacher or start
        file = given.tokenizer_file if given else None
        key = setup.data, setup.asks, file
        if key not in self._texts:
            self._texts[key] = texts = prepare_texts(setup.data, setup.asks, file)
            told = [*texts.told(), *(f"start: {note}" for note in (start.notes if start else ()))]
            for line in told:
                self.engine.reporter.say(line)
        return _materials(setup, self._texts[key], start, teacher)

    def known(self, cell: LanguageCell) -> Known:
        known = cell.but(data_digest=self.materials(cell).digest)
        return known.config, ("teacher_digest", "plugin")

    def raise_teachers(self, ledger: Ledger) -> None:
        for cell in distinct(self.entries):
            self.engine.check_stop()
            if (found := self.materials(cell)).teacher is not None:
                self._file_teacher(cell, found, ledger)

    def run(self, entry: Entry[LanguageSetup]) -> LanguageRun:
        found = self.materials(entry.cell)
        cell = entry.cell.but(
            plugin=plugin_digest(entry.cell.objective, read=READ),
            data_digest=found.digest,
            teacher_digest=found.teacher.digest if found.teacher else "",
        )
        return LanguageRun(dataclasses.replace(entry, cell=cell), self.sweep.name, found, self)

    def heard(self, found: Materials) -> LiveTeacher | None:
        """A teacher as all hear it: one speaker, that says what any of them reads."""
        teacher = found.teacher
        if teacher is None:
            return None
        if teacher.digest not in self._live:
            captures = [
                objective.teacher_capture
                for entry in self.entries
                if (own := self.materials(entry.cell)).teacher is not None
                and own.teacher.digest == teacher.digest
                and (objective := own.objective(entry.cell.objective)).needs_teacher
            ]
            params = place(teacher.params, ShardingRules().teacher, self.engine.mesh.local_mesh)
            speaker = LiveTeacher(build_model(teacher.config), params, union_of(captures))
            self._live[teacher.digest] = speaker
        return self._live[teacher.digest]

    def described(self, spec: TableSpec) -> TableSpec:
        asked = dict.fromkeys(entry.cell.setup.asks for entry in self.entries)
        protocol = (*spec.protocol, *(PROTOCOL[asks] for asks in asked))
        return dataclasses.replace(spec, teachers=tuple(self._references), protocol=protocol)

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def _file_teacher(self, cell: LanguageCell, found: Materials, ledger: Ledger) -> None:
        """The teacher as it came, in the ledger."""
        teacher = found.teacher
        assert teacher is not None
        setup = LanguageSetup(cell.setup.data, cell.setup.asks, TEACHER, teacher=cell.setup.teacher)
        own = Cell(
            setup,
            (Train("", LanguageTraining()),),
            data_digest=found.texts.digest,
            teacher_digest=teacher.digest,
        )
        there = Place(TEACHER, self.sweep.groups[0].label, 0, own.hash)
        if there in self._references:
            return
        self._references.append(there)
        due = self.engine.options.share.holds(own.hash)
        if not due or own.hash in rows_in(ledger.path.parent):
            return
        scores = _scores(self.engine, found.texts, teacher.config, teacher.params, "test")
        if is_lead():
            ledger.append(
                ledger_row(
                    hash=own.hash,
                    experiment=self.sweep.name,
                    row=there.row,
                    group=there.group,
                    seed=0,
                    config=own.config,
                    metrics=_metrics(scores, found.texts, teacher.params),
                    fingerprints=_fingerprints(found),
                    training={},
                    test_scores=_evidence(scores),
                )
            )


def _materials(
    setup: LanguageSetup, texts: LanguageTexts, start: Loaded | None, teacher: Loaded | None
) -> Materials:
    family = language_family(setup.asks)
    if start is not None:
        config = start.config
    else:
        positions = max(setup.data.max_length, 64)
        count = teacher.config.vocab_size if teacher else texts.vocab_size
        config = family.sized(setup.student, vocab_size=count, positions=positions)
    for model in (config, *([teacher.config] if teacher else [])):
        if texts.longest > model.max_positions:
            raise UserError(
                f"texts of {texts.longest} tokens do not fit {model.max_positions} positions; "
                "lower --max-length"
            )
    if teacher and teacher.config.vocab_size != config.vocab_size:
        raise UserError(
            f"the model has {config.vocab_size} tokens, its teacher {teacher.config.vocab_size}"
        )
    return Materials(texts, start, teacher, config)


@dataclass(frozen=True, eq=False)
class LanguageRun(Run):
    """A model.

    Attributes:
      found: what it is made of.
      table: that it stands in.
    """

    experiment: str
    found: Materials
    table: Language

    @cached_property
    def works(self) -> tuple[Work, ...]:
        cell, found = self.cell, self.found
        training, texts, config = cell.training, found.texts, found.config
        objective = found.objective(cell.objective)
        train = texts.tables["train"]
        steps = training.total_steps(len(train))
        work = Work(
            identity=Identity(cell.hash, self.config),
            seed=cell.seed,
            config=config,
            build=partial(build_model, config),
            objective=objective,
            optimizer=training.optimizer,
            loop=LoopConfig(steps, max(1, -(-steps // training.evaluations)), select=SELECT),
            batch_size=training.batch_size,
            lengths=texts.lengths(training.batch_size, training.max_shapes),
            table=train,
            data=texts.digest,
            loss_params=lambda: objective.init_params(jax.random.key(cell.seed)),
            evaluate=partial(_evaluate, texts, config, cell.precision),
            draws=train.draws(-(-len(train) // training.batch_size)),
            precision=cell.precision,
        )
        return (work,)

    def start(self) -> Params:
        if self.found.start is not None:
            return self.found.start.params
        family = language_family(self.cell.setup.asks)
        return family.init(self.found.config, jax.random.key(self.cell.seed))

    def outputs(self) -> TeacherOutputs | None:
        needs = self.found.objective(self.cell.objective).needs_teacher
        return self.table.heard(self.found) if needs else None

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        found, texts = self.found, self.found.texts
        scores = _scores(engine, texts, found.config, result.params, "test", found.teacher)
        if is_lead():
            folder = engine.run_folder(self.hash) / MODEL
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed here
            language_family(self.cell.setup.asks).save(
                folder, found.config, result.params, texts.tokenizer_file, texts.config.max_length
            )
        metrics = _metrics(scores, texts, result.params)
        return ledger_row(
            hash=self.hash,
            experiment=self.experiment,
            row=self.entry.label,
            group=self.entry.group,
            seed=self.cell.seed,
            config=self.config,
            metrics={**metrics, f"validation/{SELECT}": result.progress.best_score},
            fingerprints=_fingerprints(found),
            training=training_facts(result, seconds),
            history=[{"step": at["step"], SELECT: at[SELECT]} for at in result.progress.history],
            test_scores=_evidence(scores),
        )

    def told(self, row: LedgerRow) -> str:
        numbers = row.metrics
        return (
            f"test loss {numbers['test/nll']:.3f}, perplexity {numbers['test/perplexity']:.1f}, "
            f"top-1 {100 * numbers['test/top1']:.1f}%"
        )


@functools.lru_cache(maxsize=32)
def _measure(config: Any, precision: Precision, teacher: Any = None) -> Measure:
    """The compiled measurement of models of this shape."""
    heard = None if teacher is None else build_model(teacher)
    return measure_of(build_model(config, compute_dtype(precision)), heard)


def _scores(
    engine: Engine,
    texts: LanguageTexts,
    config: Any,
    params: Params,
    split: str,
    teacher: Loaded | None = None,
) -> TextScores:
    return score_texts(
        _measure(config, "f32", teacher and teacher.config),
        params,
        teacher and teacher.params,
        texts.tables[split],
        shape_lengths=texts.few_lengths,
        batch_size=EVALUATION_BATCH * engine.mesh.size,
        mesh=engine.mesh,
        on_batch=engine.check_stop,
    )


def _evaluate(
    texts: LanguageTexts,
    config: Any,
    precision: Precision,
    params: Params,
    mesh: Mesh,
    on_batch: Callable[[], None],
) -> dict[str, float]:
    """Scores on validation, of the model as it is trained."""
    return score_texts(
        _measure(config, precision),
        params,
        None,
        texts.tables["validation"],
        shape_lengths=texts.few_lengths,
        batch_size=EVALUATION_BATCH * mesh.size,
        mesh=mesh,
        on_batch=on_batch,
    ).means


def _metrics(scores: TextScores, texts: LanguageTexts, params: Params) -> dict[str, float]:
    return {
        **{f"test/{name}": value for name, value in scores.means.items()},
        **as_metrics(texts.coverage),
        "parameters": parameter_count(params),
    }


def _evidence(scores: TextScores) -> dict[str, str]:
    """What tests over texts need."""
    by_text = {name: pack_numbers(scores.by_text(name)) for name in scores.sums}
    return {**by_text, CASES: pack_numbers(scores.counts_N)}


def _fingerprints(found: Materials) -> dict[str, str]:
    named = {"start": found.start, TEACHER: found.teacher}
    models = {name: model.digest for name, model in named.items() if model is not None}
    return {**models, "data": found.texts.digest}
