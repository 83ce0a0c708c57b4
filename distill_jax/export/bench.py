"""What finished models cost where they run: size, memory, latency, throughput, on the CPU.

Each model under each runtime is a process of its own. They are timed in rounds: in each, one
process after another goes once through the same sentences, in an order drawn anew, while the others
wait. So a slow moment of the machine hits all alike, and memory is nobody else's.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.plan import choose_lengths
from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.timing import Latency, latency_of, throughput_of
from distill_jax.export.bench_worker import Batch, write_batches
from distill_jax.export.manifest import MANIFEST
from distill_jax.export.padded import rows_compiled
from distill_jax.export.parity import GOLDEN
from distill_jax.export.plan import BenchPlan
from distill_jax.export.write import CARD

ALONE, TOGETHER = "alone", "together"
SHAPES = 4
"""Lengths that JAX compiles; every other runtime takes each text as long as it is."""
_NOT_THE_MODEL = (MANIFEST, GOLDEN, CARD)


@dataclasses.dataclass(frozen=True)
class Contender:
    """A model under a runtime.

    Attributes:
      name: of the model, for people.
      runtime: ``jax``, or the format of an export.
      folder: a run's, a model's or an export's.
      tokenizer_file, max_length: how its texts are cut.
      parameters: of the model.
      model_folder: where the files are that it is made of.
      form: of its answers, which knows how its texts are read.
    """

    name: str
    runtime: str
    folder: Path
    tokenizer_file: Path
    max_length: int
    parameters: int
    model_folder: Path
    form: Form

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} ({self.runtime})"

    @property
    def bytes_on_disk(self) -> int:
        """Of the model and its tokeniser, without what only describes them."""
        files = (path for path in self.model_folder.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if path.name not in _NOT_THE_MODEL)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a contender costs.

    Attributes:
      bytes_on_disk: of the model and its tokeniser.
      peak_bytes: the most memory that a process held that loaded the model and answered.
      latency: of one text at a time, from tokens to logits.
      texts_per_second: in batches.
    """

    name: str
    runtime: str
    parameters: int
    bytes_on_disk: int
    peak_bytes: int
    latency: Latency
    texts_per_second: float

    def as_row(self) -> dict[str, Any]:
        """Flat, for tables and files."""
        fields = dataclasses.asdict(self)
        times = fields.pop("latency")
        return {**fields, **times}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Measured:
        """The inverse of ``as_row``."""
        times = {field.name: row[field.name] for field in dataclasses.fields(Latency)}
        rest = {name: value for name, value in row.items() if name not in times}
        return cls(latency=Latency(**times), **rest)


def measure(
    contenders: Sequence[Contender],
    columns: Sequence[Sequence[str]],
    plan: BenchPlan,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measured]:
    """Time the contenders on the same texts, in the order given.

    Args:
      columns: the texts, or the texts and the second ones of pairs.
      on_pass: called with how many passes are done, and how many there are; may raise to stop.

    Raises:
      UserError: a model cannot be opened, or its process ends.
    """
    _, groups = _chosen(len(columns[0]), plan)
    rng = np.random.default_rng((plan.seed, 1))
    passes: list[dict[str, list[np.ndarray]]] = [{ALONE: [], TOGETHER: []} for _ in contenders]
    rounds = plan.warmup + plan.repeats
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        workers = []
        for number, contender in enumerate(contenders):
            batches = Path(scratch) / f"{number}.npz"
            write_batches(batches, batches_of(contender, columns, plan))
            workers.append(running.enter_context(_worker(contender, batches, Path(scratch))))
        for worker in workers:
            worker.hear()
        done = 0
        for turn in range(rounds):
            for index in rng.permutation(len(workers)).tolist():
                for kind in (ALONE, TOGETHER):
                    taken = np.asarray(workers[index].ask(kind))
                    if turn >= plan.warmup:
                        passes[index][kind].append(taken)
                done += 1
                on_pass(done, rounds * len(workers))
        peaks = [worker.end() for worker in workers]
    rows = sum(map(len, groups))
    return [
        Measured(
            contender.name,
            contender.runtime,
            contender.parameters,
            contender.bytes_on_disk,
            peak,
            latency_of(taken[ALONE]),
            throughput_of(taken[TOGETHER], rows),
        )
        for contender, taken, peak in zip(contenders, passes, peaks, strict=True)
    ]


def batches_of(
    contender: Contender,
    columns: Sequence[Sequence[str]],
    plan: BenchPlan,
) -> dict[str, list[Batch]]:
    """The lists that a worker is asked about, padded as its runtime is used.

    Args:
      columns: as of ``measure``.

    Returns:
      ``ALONE``, a batch a text, of all its windows; ``TOGETHER``, batches of as many windows as
      the plan has texts in one.
    """
    singles, groups = _chosen(len(columns[0]), plan)
    alone = _read(contender, columns, singles)
    together = _joined(_read(contender, columns, [row for group in groups for row in group]))
    size = plan.batch_size
    lengths_N = np.concatenate([table.lengths_N for table in (*alone, together)])
    jax = contender.runtime == "jax"
    shapes = choose_lengths(lengths_N, max_shapes=SHAPES) if jax else ()

    def batch(table: TokenTable, most: int) -> Batch:
        longest = int(table.lengths_N.max())
        length = next((shape for shape in shapes if shape >= longest), longest)
        made = table.batch(np.arange(len(table)), length, most if jax else len(table))
        ids, types, mask = (
            np.asarray(array, np.int64)
            for array in (made.input_ids_BT, made.token_type_ids_BT, made.where_BT)
        )
        return ids, types, mask

    parts = (np.arange(n, min(n + size, len(together))) for n in range(0, len(together), size))
    return {
        ALONE: [batch(table, rows_compiled(len(table))) for table in alone],
        TOGETHER: [batch(together.take(part), size) for part in parts],
    }


def lengths_of(
    contender: Contender, columns: Sequence[Sequence[str]], plan: BenchPlan
) -> np.ndarray:
    """Tokens of the texts that are asked one at a time, [N, W]: of all their windows, 0 behind the
    last one; a text that is read at once has one."""
    singles, _ = _chosen(len(columns[0]), plan)
    lengths = [table.lengths_N for table in _read(contender, columns, singles)]
    lengths_NW = np.zeros((len(lengths), max(map(len, lengths))), np.int64)
    for row, own in enumerate(lengths):
        lengths_NW[row, : len(own)] = own
    return lengths_NW


def _chosen(count: int, plan: BenchPlan) -> tuple[list[int], list[list[int]]]:
    """Rows that are asked one at a time, and in batches."""
    if not count:
        raise UserError("there are no texts to ask about")
    singles = np.unique(np.linspace(0, count - 1, plan.sentences).astype(int)).tolist()
    drawn = np.random.default_rng(plan.seed).permutation(count)
    rows = np.resize(drawn, plan.batches * plan.batch_size)  # again from the start where few
    return singles, rows.reshape(plan.batches, plan.batch_size).tolist()


def _read(
    contender: Contender, columns: Sequence[Sequence[str]], rows: Sequence[int]
) -> list[TokenTable]:
    """What a model is asked about each of some texts."""
    tokeniser = Tokeniser(contender.tokenizer_file, contender.max_length)
    return [
        contender.form.read(tokeniser, [[column[row]] for column in columns], ["0"]).tokens
        for row in rows
    ]


def _joined(tables: Sequence[TokenTable]) -> TokenTable:
    """The rows of all."""
    return functools.reduce(TokenTable.joined, tables)


class _Worker:
    """A process that answers for a contender."""

    def __init__(self, contender: Contender, process: subprocess.Popen[str], log: Path) -> None:
        self._contender, self._process, self._log = contender, process, log

    def hear(self) -> Any:
        """The next thing it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            last = [*self._log.read_text(errors="replace").strip().splitlines(), ""][-1]
            said = f"its process ended with code {self._process.returncode} {last}".strip()
            raise UserError(f"{self._contender.title}: {said}")
        said = json.loads(line)
        if isinstance(said, dict) and "error" in said:
            raise UserError(f"{self._contender.title}: {said['error']}")
        return said

    def ask(self, kind: str) -> Any:
        """One pass over a list of batches: nanoseconds each."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended; what it said last is heard next
            print(kind, file=self._process.stdin, flush=True)
        return self.hear()

    def end(self) -> int:
        """Let it end; the most memory that it held."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = int(self.hear()["peak_bytes"])
        self._process.wait()
        return peak


@contextmanager
def _worker(contender: Contender, batches: Path, scratch: Path) -> Iterator[_Worker]:
    log = scratch / f"{batches.stem}.log"
    command = [sys.executable, "-m", "distill_jax.export.bench_worker"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with open(log, "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, str(contender.folder), str(batches)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    try:
        yield _Worker(contender, process, log)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
