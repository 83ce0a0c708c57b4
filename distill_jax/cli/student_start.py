"""``--student-start`` in words."""


def told_start(text: str) -> list[str]:
    """What is said below a table whose students do not start as their names say."""
    from distill_jax.models.starts import USUAL, Blend, parse_start

    start = parse_start(text)
    if start == USUAL:
        return []
    told = f"Students start from `{text}` (docs/students.md)"
    if isinstance(start, Blend) and start.trained and start.share:
        told += (
            ": every row, `ce` too, has something of the fine-tuned teacher before its first step"
        )
    return [f"{told}."]
