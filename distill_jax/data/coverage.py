"""How much of the texts a model gets to see: what is cut, and what its vocabulary does not know."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

WARNED = 0.05
"""Share of either from which on it is a warning."""
FITTING = 0.95


@dataclass(frozen=True)
class Coverage:
    """Of one split.

    Attributes:
      cut: share of the texts that were cut.
      unknown: share of the tokens, special ones apart, that the vocabulary does not know.
      fitting: tokens that 95% of the texts would need.
    """

    cut: float
    unknown: float
    fitting: int


def in_words(
    coverage: Mapping[str, Coverage], max_length: int, *, flag: str = "--max-length"
) -> list[str]:
    """A line on all splits, and one more for each share that is a warning.

    Args:
      flag: which sets ``max_length``.
    """
    if not coverage:
        return []
    cut = ", ".join(f"{split} {100 * each.cut:.1f}%" for split, each in coverage.items())
    unknown = ", ".join(f"{split} {100 * each.unknown:.1f}%" for split, each in coverage.items())
    lines = [f"texts cut at {max_length} tokens: {cut}; tokens that are [UNK]: {unknown}"]
    split, most = max(coverage.items(), key=lambda item: item[1].cut)
    if most.cut >= WARNED:
        lines.append(
            f"warning: {100 * most.cut:.0f}% of the {split} texts are cut at {max_length} tokens; "
            f"95% of them would fit in {most.fitting} ({flag})"
        )
    split, most = max(coverage.items(), key=lambda item: item[1].unknown)
    if most.unknown >= WARNED:
        lines.append(
            f"warning: {100 * most.unknown:.0f}% of the {split} tokens are [UNK]: teacher and "
            "students cannot tell these words apart. Take a teacher whose vocabulary has them "
            "(--teacher)"
        )
    return lines


def as_metrics(coverage: Mapping[str, Coverage]) -> dict[str, float]:
    """For the ledger: ``train/cut``, ``train/unknown``, and the same for the other splits."""
    return {
        f"{split}/{name}": value
        for split, each in coverage.items()
        for name, value in asdict(each).items()
        if name != "fitting"
    }
