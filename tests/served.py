"""Servers for tests: an export in small that needs no runtime, applications in this process."""

import asyncio
import types

import httpx
import numpy as np

LONGEST = 12


def small_logits(input_ids_BT, token_type_ids_BT, attention_mask_BT):
    """Two classes; what stands where, which text it is of, and how much there is, all count."""
    given = (input_ids_BT, token_type_ids_BT, attention_mask_BT)
    assert {x.dtype for x in given} == {np.dtype(np.int64)} and input_ids_BT.shape[1] <= LONGEST
    place_T = np.arange(1, input_ids_BT.shape[1] + 1)
    values_BT = np.sin(input_ids_BT * place_T[None] * 1.7 + 3 * token_type_ids_BT)
    sum_B = (values_BT * attention_mask_BT).sum(1)
    return np.stack([sum_B, -sum_B / attention_mask_BT.sum(1)], axis=1).astype(np.float32)


def small_export(tokenizer_file, logits=small_logits, **manifest):
    """What ``open_export`` gives, in memory; keywords replace what its manifest says."""
    about = {
        "format": "onnx",
        "label_names": ("neg", "pos"),
        "max_length": LONGEST,
        "pairs": False,
        "temperature": 2.0,
        "source": {"run": "0123456789abcdef"},
    }
    return types.SimpleNamespace(
        manifest=types.SimpleNamespace(**(about | manifest)),
        tokenizer_file=tokenizer_file,
        logits=logits,
    )


def talk(app, conversation, **options):
    """``await conversation(client)`` with an application that was started as servers start it."""

    async def run():
        transport = httpx.ASGITransport(app)
        address = {"base_url": "http://localhost"} | options
        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(transport=transport, **address) as client:
                return await conversation(client)

    return asyncio.run(run())


def ask(app, body, **options):
    """The response to one request to /predict."""
    return talk(app, lambda client: client.post("/predict", **as_body(body), **options))


def as_body(body):
    """Bytes and text as they are, said to be JSON; all else as JSON."""
    if isinstance(body, bytes | str):
        return {"content": body, "headers": {"content-type": "application/json"}}
    return {"json": body}
