"""``glue_published``: the published recipes on SST-2, and what they would cost here."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.tasks.classification.recipes import (
    BERT_BASE,
    RECIPES,
    Recipe,
    RecipeStage,
    Size,
    find_recipe,
)

if TYPE_CHECKING:
    from rich.table import Table

WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class GluePublished:
    """The published recipes (DistilBERT, PKD, TinyBERT, MiniLM, Turc) on SST-2.

    With --plan: their cells, steps, estimated cost on the device at hand, and the files that are
    missing. Nothing is trained or downloaded.
    """

    plan: bool = False
    """Say what would be run, and what is missing for it."""
    recipes: tuple[str, ...] = ()
    """Names of recipes; all by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One cell each, for every recipe."""
    data: str = "tfds:glue/sst2"
    """Where SST-2 is: tfds:glue/sst2 or files:FOLDER."""
    weights: Path | None = None
    """A folder of checkpoints, each in a folder named as the last part of its hub id. What is not
    there is looked for in the Hugging Face cache."""
    measure: bool = True
    """Estimate costs from the operations of each recipe's shapes and one short measurement."""
    tokens: int = 32
    """Length of the sentences that costs are estimated for. Batches here are padded to the few
    lengths that suit the data, not to the 128 tokens after which the papers cut."""


@dataclass(frozen=True)
class PlanLine:
    """A stage of training in the plan.

    Attributes:
      recipe: its name, or ``teacher``.
      model: the size of what is trained.
      stage: its name.
      cells: how often it is run.
      steps: of one cell.
      seconds_per_step: None where nothing was measured.
    """

    recipe: str
    model: str
    stage: str
    cells: int
    steps: int
    seconds_per_step: float | None

    @property
    def seconds(self) -> float | None:
        """Of all cells together."""
        if self.seconds_per_step is None:
            return None
        return self.cells * self.steps * self.seconds_per_step


def main(arguments: Sequence[str], prog: str = "experiments/glue_published.py") -> None:
    """Parse and print the plan."""
    args = parse_flags(GluePublished, arguments, prog)
    if not args.plan:
        raise UserError("say --plan: what these recipes need, without running them")
    if not 4 <= args.tokens <= 512:
        raise UserError(f"--tokens must be from 4 to 512, not {args.tokens}")
    if not args.seeds:
        raise UserError("no seeds given")
    recipes = [find_recipe(name) for name in dict.fromkeys(args.recipes)] or list(RECIPES)

    from rich.console import Console

    lines = plan_lines(recipes, len(args.seeds), args.tokens if args.measure else None)
    console = Console()
    console.print(plan_table(lines))
    told = [line for recipe in recipes for line in describe(recipe)]
    for note in (*_notes(lines, args), "", *told, "", *_missing(recipes, args)):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def plan_lines(recipes: Sequence[Recipe], cells: int, tokens: int | None) -> list[PlanLine]:
    """Every stage of the recipes, after the fine-tuning of the teacher they share.

    Args:
      cells: of each recipe.
      tokens: length of the sentences; None for no measurement.
    """
    seconds_per_step = _estimator(tokens)

    def line(name: str, size: Size, stage: RecipeStage, cells: int) -> PlanLine:
        seconds = seconds_per_step(stage, size)
        return PlanLine(name, str(size), stage.name, cells, stage.steps(), seconds)

    return [
        line("teacher", BERT_BASE.size, BERT_BASE.stage, 1),
        *(
            line(recipe.name, recipe.student, stage, cells)
            for recipe in recipes
            for stage in recipe.stages
        ),
    ]


def plan_table(lines: Sequence[PlanLine]) -> "Table":
    """The plan for a terminal; where it is narrow names are folded, numbers never cut."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("recipe", "model", "stage"):
        table.add_column(title, overflow="fold")
    for title in ("cells", "steps", "a step", "in all"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.recipe,
            line.model,
            line.stage,
            str(line.cells),
            f"{line.steps:,}",
            duration(line.seconds_per_step),
            duration(line.seconds),
        )
    return table


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them: ``12 ms``, ``3.4 s``, ``15 h``, ``4.0 d``."""
    if seconds is None:
        return "–"
    units = (("ms", 1e-3, 1), ("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800))
    unit, size = next(((u, size) for u, size, below in units if seconds < below), ("d", 86400))
    value = seconds / size
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def describe(recipe: Recipe) -> list[str]:
    """What a recipe is and how sure its settings are, a line each."""
    lines = [f"{recipe.name}: {recipe.paper}", f"  starts from {recipe.start}"]
    for stage in recipe.stages:
        lines.append(
            f"  {stage.name}: {stage.objective}; {stage.epochs:g} epochs, batch "
            f"{stage.batch_size}, learning rate {stage.learning_rate:g}"
        )
    if recipe.published:
        lines.append(f"  published: {published_scores(recipe.published)}")
    lines += [f"  not verified: {words}" for words in recipe.unverified]
    lines += [f"  differs: {words}" for words in recipe.departures]
    return lines


def published_scores(row: str) -> str:
    """A row of the published numbers of SST-2 in words."""
    from distill_jax.tables.published import load_published

    scores = load_published("glue_sst2").rows[row]
    return f"{row}, " + ", ".join(f"{score:g}% on {split}" for split, score in scores.items())


def have_weights(hub_id: str, folder: Path | None) -> bool:
    """Whether a checkpoint lies in the folder or in the Hugging Face cache."""
    if folder is not None:
        own = folder.expanduser() / hub_id.rpartition("/")[2]
        if (own / "config.json").is_file() and any(
            (own / file).is_file() for file in WEIGHTS_FILES
        ):
            return True
    import huggingface_hub

    return any(
        isinstance(huggingface_hub.try_to_load_from_cache(hub_id, file), str)
        for file in WEIGHTS_FILES
    )


def have_data(spec: str) -> bool:
    """Whether a data set is at hand, without preparing or downloading anything.

    Raises:
      UserError: for what is neither ``tfds:NAME`` nor ``files:FOLDER``.
    """
    kind, _, rest = spec.partition(":")
    if kind == "files" and rest:
        from distill_jax.data.split_files import find_split_files

        try:
            return "validation" in find_split_files(Path(rest).expanduser()).paths
        except UserError:
            return False
    if kind == "tfds" and rest:
        named = os.environ.get("TFDS_DATA_DIR")
        theirs = Path(named).expanduser() if named else Path.home() / "tensorflow_datasets"
        return any(
            any((root / rest).glob("*/dataset_info.json")) for root in (home() / "tfds", theirs)
        )
    raise UserError(f"--data is tfds:glue/sst2 or files:FOLDER, not {spec!r}")


def _estimator(tokens: int | None) -> Callable[[RecipeStage, Size], float | None]:
    """(stage, size of the student) -> seconds of a step; the device is timed once."""
    if tokens is None:
        return lambda stage, student: None
    from distill_jax.tasks.classification.recipe_costs import operations_per_second, step_operations

    speed = operations_per_second(tokens)
    return lambda stage, student: step_operations(stage, student, BERT_BASE.size, tokens) / speed


def _notes(lines: Sequence[PlanLine], args: GluePublished) -> list[str]:
    if not args.measure:
        return ["Cost: not measured."]
    from distill_jax.tasks.classification.recipe_costs import MEASURED, device_name

    total = sum(line.seconds or 0.0 for line in lines)
    return [
        f"Cost: a rough estimate, {duration(total)} in all on {device_name()}: the operations of "
        f"these shapes, {args.tokens} tokens a sentence and the teacher heard live, at the speed "
        f"at which a model of {MEASURED} was trained just now; without compilation and evaluation."
    ]


def _missing(recipes: Sequence[Recipe], args: GluePublished) -> list[str]:
    """A line for each file that is missing, with the recipes that need it."""
    lines = []
    for weights in dict.fromkeys(name for recipe in recipes for name in recipe.weights):
        if not have_weights(weights, args.weights):
            users = [recipe.name for recipe in recipes if weights in recipe.weights]
            who = "all recipes" if len(users) == len(recipes) else ", ".join(users)
            lines.append(f"missing: weights {weights} as safetensors ({who})")
    if not have_data(args.data):
        lines.append(f"missing: data {args.data}")
    return lines or ["Nothing is missing."]
