"""A few texts to ask a model about where no data of its own is at hand.

They are ours, so an export may carry what its model says of them: the texts of a data set may not
be for everybody.
"""

from __future__ import annotations

PROBES = (
    "a gripping, clever film",
    "bad",
    "The waiter was friendly, but the soup was cold and far too salty.",
    "Never again!!!",
    "What time does the last train to the airport leave on Sundays?",
    "It stopped working after two days, and nobody answers my letters.",
    "An honest, quiet story about three sisters who inherit a bakery and cannot agree on anything.",
    "5 out of 5",
    "I would buy this again without thinking twice; it does exactly what it says on the box.",
    "The plot makes no sense, the music is too loud, and yet I did not want it to end.",
    "Play something slow.",
    "Le café était très bon, merci.",
    "物流很快，包装完好。",
    "Please cancel my order #48213 and refund the amount to my card: I ordered the wrong size, and "
    "the delivery has been put off three times already without any explanation.",
    "meh",
    "The second half drags. The first, though, is as good as anything that this director has "
    "made in the past ten years, and the two leads, who hardly speak a word to each other, carry "
    "it with nothing but glances. I left the cinema wishing that it had been an hour shorter, or "
    "two hours longer; I still do not know which, and perhaps that is the best that can be said "
    "of a film about people who never make up their minds.",
)


def probe_columns(pairs: bool) -> tuple[tuple[str, ...], ...]:
    """One column of texts, or for a model of pairs two: each text with the next one."""
    return (PROBES, (*PROBES[1:], PROBES[0])) if pairs else (PROBES,)
