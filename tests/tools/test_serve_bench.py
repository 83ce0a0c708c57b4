"""The load test of a server runs, in small, and its page says what it found."""

import asyncio
import json

import pytest
from benches import bench_module
from haste import HASTE
from served import listening, small_export

from distill_jax.serving.app import create_app
from distill_jax.serving.settings import Settings


@pytest.mark.long
@pytest.mark.slow
def test_the_whole_of_it_in_small(tmp_path, monkeypatch):
    """Slow: six servers in processes of their own."""
    monkeypatch.setenv("XLA_FLAGS", HASTE)  # one device
    bench = bench_module("serve")
    bench.main(bench.Arguments(formats=("onnx",), tiny=True, threads=1, output=tmp_path))
    told = json.loads((tmp_path / "serve.json").read_text())
    assert [(rate["connections"], rate["texts"]) for rate in told["rates"]] == [
        (1, 1),
        (8, 1),
        (64, 1),
        (8, 3),
    ]
    for rate in told["rates"]:
        assert rate["statuses"].keys() == {"200"} and 0 < rate["p50"] <= rate["p99"]
    for way, restart in told["restarts"].items():
        own = restart["answered by their own count"]
        assert sum(own.values()) == restart["answered"] and min(own.values()) > 0
        assert restart["lost"] == 0
        assert (restart["refused"] == 0) == (way == "the socket is handed on")
    came = {row["kind"]: row["came of it"] for row in told["bad manners"]}
    assert came.pop("nothing bad") == {}
    assert {kind: "".join(found) for kind, found in came.items()} == {
        "no JSON": "422",
        "wrong type": "422",
        "nested 100,000 deep": "422",
        "half a surrogate pair": "422",
        "1 byte too large": "413",
        "too large, no length": "413",
        "said to be 10 GB": "413",
        "two lengths": "400",
        "body does not come": "408",
        "headers do not come": "closed",
    }
    assert all(row["good refused"] == 0 < row["good requests"] for row in told["bad manners"])
    said = (tmp_path / "serve.md").read_text()
    assert "1x8x2, onnx" in said and f"| {own['old']} + {own['new']} = " in said


def test_callers_count_what_is_refused_and_what_ends_without_an_answer(toy_teacher):
    load = bench_module("serve_load")
    settings = Settings(max_texts=2, idle_seconds=0.3)
    app = create_app(small_export(toy_teacher / "tokenizer.json"), settings)
    requests = [load.request_of(["good"]), load.request_of(["good", "bad", "film"])]
    with listening(app, settings) as (_, place):
        host, port = place.removeprefix("http://").split(":")
        address = load.Address(host, int(port))
        seen = asyncio.run(load.load(address, requests, connections=2, seconds=0.2))
        assert seen.statuses.keys() == {200, 422} and len(seen.latencies) == seen.statuses[200]

        async def too_late():
            connection = load.Connection(address)
            assert await connection.ask(requests[0]) == 200
            await asyncio.sleep(0.8)
            with pytest.raises(OSError):
                await connection.ask(requests[0])
            return await connection.ask(requests[0])

        assert asyncio.run(too_late()) == 200

    async def nobody():
        await load.Connection(address).ask(requests[0])

    with pytest.raises(OSError):
        asyncio.run(nobody())
