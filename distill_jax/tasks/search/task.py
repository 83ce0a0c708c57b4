"""What the cells of a search table share: tokens, candidates, the teacher and its scores."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.digests import digest
from distill_jax.core.distributed import to_host
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, home
from distill_jax.data.coverage import in_words, unknown_below
from distill_jax.data.load_search import load_search
from distill_jax.data.plan import choose_lengths
from distill_jax.data.query_lists import (
    Candidates,
    ListTable,
    choose_candidates,
    pair_table,
    prior_scores,
)
from distill_jax.data.query_product import SearchData
from distill_jax.data.tokenise import TokenTable, tokenise_texts
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import Precision
from distill_jax.engine.rows import training_facts
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.engine.work import Evaluate, Work
from distill_jax.evaluation.open_search import TokenLimits
from distill_jax.evaluation.predict import logits_of, predict_logits
from distill_jax.evaluation.search import (
    Encoder,
    SearchScores,
    exact_top_k,
    retrieval_scores,
)
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.build import build_model
from distill_jax.models.cross_encoder import CrossEncoderConfig
from distill_jax.models.huggingface import Pretrained, load_pretrained, save_pretrained
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig, pretrained_towers
from distill_jax.objectives.lists import resolve_lists
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.models import load_encoder
from distill_jax.tasks.classification.teacher import read_training
from distill_jax.tasks.search.cells import (
    SearchDataConfig,
    SearchTeacherConfig,
    SearchTraining,
    teacher_hash,
)
from distill_jax.teachers.pair_scores import PairScores, kept_scores
from distill_jax.training.checkpoint import Identity
from distill_jax.training.loop import LoopConfig

SELECT = "ndcg@10"
PAIRS_AT_ONCE = 256
FOUND = 100
"""Products retrieved for a query; recall is read from them."""


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Data, tokens and candidates of one (data, encoder, number of candidates).

    Attributes:
      encoder: pretrained; the teacher and copied students start from it, and it retrieves.
      queries, items: tokens of all queries and products.
      retrieved_QK: int32 [Q, K], what the untrained encoder finds for every query.
      candidates: of training and transfer queries.
      vectors: of all queries and products by that encoder, its scores their inner products.
      limits: tokens after which texts are cut.
      told: how much of the texts that leaves, a line each.
      below: what of that is said below a table.
    """

    data: SearchData
    encoder: Pretrained
    queries: TokenTable
    items: TokenTable
    retrieved_QK: np.ndarray
    candidates: Candidates
    vectors: tuple[np.ndarray, np.ndarray]
    limits: TokenLimits
    told: tuple[str, ...] = ()
    below: tuple[str, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """Of data and tokens; the model is named apart."""
        return digest([self.data.digest, self.queries.digest, self.items.digest])

    def table(self, **options: Any) -> ListTable:
        """The training queries, see ``ListTable``."""
        return ListTable(self.data, self.queries, self.items, self.candidates, **options)

    def find(self, encoder: Encoder, params: Any, split: str) -> SearchScores:
        """Retrieval over all products by a two-tower model, on a split."""
        rows = self.data.splits[split]
        queries_QD = encoder(params, self.queries.take(rows), "query")
        items_ID = encoder(params, self.items, "item")
        found_QK, _ = exact_top_k(queries_QD, items_ID, FOUND)
        return retrieval_scores(self.data, rows, found_QK)


def prepare(data_config: SearchDataConfig, config: SearchTeacherConfig) -> SearchTask:
    """Load, tokenise, retrieve.

    Raises:
      UserError: for data or an encoder that cannot be had.
    """
    of_esci = data_config.name.startswith("esci:")
    options = {"locale": data_config.locale, "version": data_config.version} if of_esci else {}
    data = load_search(data_config.name, **options)
    data = data.hide_labels(data_config.label_fraction)
    encoder = load_encoder(config.name, num_labels=1, fresh=True)
    if encoder.config.type_vocab_size < 2:
        raise UserError(
            f"the teacher {config.name!r} has type_vocab_size 1; a cross-encoder reads pairs."
        )
    encoder.params["classifier"] = jax.tree.map(np.zeros_like, encoder.params["classifier"])
    file = encoder.tokenizer_file
    limits = TokenLimits(data_config.query_length, data_config.item_length)
    queries, of_queries = tokenise_texts(
        data.queries, file, max_length=limits.query, ids=data.query_ids
    )
    items, of_items = tokenise_texts(data.items, file, max_length=limits.item, ids=data.item_ids)
    told = (
        *in_words({"query": of_queries}, limits.query, flag="query_length"),
        *in_words({"product": of_items}, limits.item, flag="--item-length"),
    )
    below = unknown_below({"query": of_queries, "product": of_items}, Path(config.name).name)
    towers, params = pretrained_towers(
        encoder.config, encoder.params, cosine_scale=config.prior_scale
    )
    encode = Encoder(TwoTower(towers))
    vectors_QD, vectors_ID = encode(params, queries, "query"), encode(params, items, "item")
    most = max(FOUND, 2 * config.candidates)
    retrieved_QK, _ = exact_top_k(vectors_QD, vectors_ID, most)
    candidates = choose_candidates(data, lambda rows: retrieved_QK[rows], size=config.candidates)
    vectors = vectors_QD, vectors_ID
    return SearchTask(
        data, encoder, queries, items, retrieved_QK, candidates, vectors, limits, told, tuple(below)
    )


@dataclass(frozen=True, eq=False)
class SearchTeacher:
    """A trained cross-encoder: it corrects what the encoder says of a pair by itself.

    Its score is its own output plus the encoder's, so that with a new head it starts as good as
    that, and cannot forget it for want of labels.

    Attributes:
      digest: of its parameters.
      training: selected step, seconds and the like.
    """

    config: BertConfig
    params: Any
    digest: str
    training: dict[str, Any]

    def score(self, task: SearchTask, query_P: np.ndarray, item_P: np.ndarray) -> np.ndarray:
        """Scores of pairs of query and product numbers, float32 [P]."""
        pairs = pair_table(task.queries, task.items, query_P, item_P)
        lengths = choose_lengths(pairs.lengths_N, batch_size=PAIRS_AT_ONCE, max_shapes=3)
        logits_P1 = predict_logits(
            _pair_logits(self.config),
            self.params,
            pairs,
            shape_lengths=lengths,
            batch_size=PAIRS_AT_ONCE,
        )
        prior_P1 = prior_scores(task.vectors, query_P, np.asarray(item_P)[:, None])
        return logits_P1[:, 0] + prior_P1[:, 0]

    def rerank(self, task: SearchTask, split: str, depth: int) -> SearchScores:
        """What it makes of the first ``depth`` products that the encoder finds, on a split."""
        rows = task.data.splits[split]
        found_QK = task.retrieved_QK[rows][:, :depth]
        pairs = np.repeat(rows, found_QK.shape[1]), found_QK.reshape(-1)
        scores_QK = self.score(task, *pairs).reshape(found_QK.shape)
        order_QK = np.argsort(-scores_QK, axis=1, kind="stable")
        ordered_QK = np.take_along_axis(found_QK, order_QK, axis=1)
        return retrieval_scores(task.data, rows, ordered_QK, recall_at=(10,))

    def pair_scores(self, task: SearchTask) -> PairScores:
        """Its scores of all candidates, kept under the home folder."""
        return kept_scores(
            task.candidates,
            partial(self.score, task),
            teacher_digest=digest([self.digest, task.digest]),
            cache=home() / "search" / "scores",
        )


def search_work(
    identity: Identity,
    seed: int,
    config: TwoTowerConfig | CrossEncoderConfig,
    objective: ResolvedObjective,
    training: SearchTraining,
    table: ListTable,
    *,
    data: str,
    evaluate: Evaluate,
    precision: Precision = "f32",
) -> Work:
    """A training on lists of products.

    Args:
      config: of the model that reads them.
      data: digest of the table.
      evaluate: gives validation scores, ``SELECT`` among them.
    """
    return Work(
        identity=identity,
        seed=seed,
        config=config,
        build=partial(build_model, config),
        objective=objective,
        optimizer=training.optimizer,
        loop=LoopConfig(training.steps, -(-training.steps // training.evaluations), select=SELECT),
        batch_size=training.batch_size,
        lengths=(table.query_length,),
        table=table,
        data=data,
        loss_params=dict,
        evaluate=evaluate,
        draws=table.draw,
        precision=precision,
    )


@functools.cache
def _pair_logits(config: BertConfig) -> Any:
    return logits_of(Bert(config))


def train_teacher(engine: Engine, task: SearchTask, config: SearchTeacherConfig) -> SearchTeacher:
    """The cross-encoder, trained now or found from an earlier run.

    Raises:
      UserError: where it diverges, or what was kept is damaged.
    """
    name = teacher_hash(task.digest, task.encoder.digest, config)
    folder = home() / "search" / "teachers" / name
    if not folder.is_dir():
        bert = task.encoder.config
        table = task.table(list_size=config.training.list_size, kind="pairs", prior=task.vectors)

        def validate(params: Any, mesh: Mesh, on_batch: Callable[[], None]) -> dict[str, float]:
            own = SearchTeacher(bert, to_host(params)["encoder"], "", {})
            return own.rerank(task, "validation", config.candidates).means

        work = search_work(
            Identity(name, {"teacher": dataclasses.asdict(config)}),
            0,
            CrossEncoderConfig(bert),
            resolve_lists("ce", list_size=config.training.list_size, teacher=False),
            config.training,
            table,
            data=task.digest,
            evaluate=validate,
        )
        own_folder = engine.run_folder(name, shared=True)
        result = engine.train(
            work,
            {"encoder": task.encoder.params},
            teacher=None,
            label="training the cross-encoder",
            folder=own_folder,
        )
        with atomic_folder(folder) as scratch:
            save_pretrained(
                scratch / "model",
                bert,
                result.params["encoder"],
                task.encoder.tokenizer_file,
            )
            (scratch / "training.json").write_text(json.dumps(training_facts(result), indent=1))
        clear_checkpoints(own_folder)
    loaded = load_pretrained(folder / "model")
    return SearchTeacher(loaded.config, loaded.params, loaded.digest, read_training(folder))
