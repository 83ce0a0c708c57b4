"""Two ways of choosing a teacher's layers evenly; they agree where one depth divides the other.

A student that is copied and then taught by layer maps should have both by one rule.
"""


def uniform(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """``i * L_t / L_s`` for i = 1..L_s, to the nearest, halves up: 2, 5, 7, 10, 12 for 5 of 12.

    At least 1. Jiao et al. 2020, "TinyBERT", section 4.1, has it where L_s divides L_t.
    """
    numbers = range(1, student_layers + 1)
    twice = 2 * student_layers
    return tuple(max(1, (2 * i * teacher_layers + student_layers) // twice) for i in numbers)


def spread(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """``i * L_t / L_s`` for i = 1..L_s, rounded down: 2, 4, 7, 9, 12 for 5 of 12. At least 1."""
    numbers = range(1, student_layers + 1)
    return tuple(max(1, i * teacher_layers // student_layers) for i in numbers)
