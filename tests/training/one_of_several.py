"""A short training run, alone or as one of several processes; the lead writes its end."""

import sys
from pathlib import Path

import jax
import numpy as np

from distill_jax.core.distributed import is_lead, join_processes, to_host
from distill_jax.core.mesh import make_mesh, own_rows
from distill_jax.data.plan import choose_lengths
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.predict import logits_of, predict_logits
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.step import make_step

STUDENT = BertConfig(20, 8, 1, 2, 16, max_positions=16, pooling="mean")
TEACHER = BertConfig(20, 12, 2, 2, 16, max_positions=16, pooling="mean")
BATCH = 8


def toy_table() -> TokenTable:
    """21 examples of several lengths: the last batch of an epoch is not full."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 20, size) for size in rng.integers(3, 12, 21)]
    return TokenTable(
        ids=tuple(map(str, range(21))),
        tokens_S=np.concatenate(rows).astype(np.int32),
        token_types_S=np.zeros(sum(map(len, rows)), np.int8),
        offsets_N1=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        labels_N=rng.integers(0, 2, 21).astype(np.int32),
    )


def main(objective_text: str, fsdp: int, folder: Path) -> None:
    """Six steps with three evaluations."""
    join_processes()
    table, mesh = toy_table(), make_mesh(fsdp=fsdp)
    lengths = choose_lengths(table.lengths_N, max_shapes=2)
    layout = Layout(mesh)
    objective = resolve(objective_text, STUDENT.shape, TEACHER.shape)
    config = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
    optimizer = make_optimizer(config)
    teacher = LiveTeacher(
        Bert(TEACHER), init_bert(TEACHER, jax.random.key(1)), objective.teacher_capture
    )
    pure = make_step(Bert(STUDENT), objective, optimizer, gathered=layout.gathered)
    apply = logits_of(Bert(STUDENT))

    def evaluate(params: object) -> dict[str, float]:
        logits_NC = predict_logits(
            apply, params, table, shape_lengths=lengths, batch_size=BATCH, mesh=mesh
        )
        return {"accuracy": float(np.mean(logits_NC.argmax(-1) == table.labels_N))}

    logged: list[float] = []
    params, losses = init_bert(STUDENT, jax.random.key(0)), objective.init_params(jax.random.key(2))
    result = train(
        layout.new_state(params, losses, optimizer),
        layout.compile(pure),
        Feed(table, lengths, BATCH, 5, teacher, own_rows(mesh, BATCH)),
        objective=objective,
        optimizer=config,
        loop=LoopConfig(6, eval_every=2, log_every=1),
        layout=layout,
        evaluate=evaluate,
        on_log=lambda step, values: logged.append(values.get("train/loss", np.nan)),
        stop=StopRequest(),
    )
    params = to_host(result.params)
    if is_lead():
        flat = {str(n): leaf for n, leaf in enumerate(jax.tree.leaves(params))}
        np.savez(folder / "end.npz", logged=np.asarray(logged), **flat)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
