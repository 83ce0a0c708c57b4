"""What is refused before it is read: too large, too slow, unknown callers, other names."""

import json

import pytest
from served import as_body, ask, talk

from distill_jax.core.errors import UserError
from distill_jax.serving.guard import LOOPBACK
from distill_jax.serving.tokens import read_tokens

TOKEN = "0123456789abcdef0123456789abcdef"
BODY = {"text": "good film"}


@pytest.fixture
def tokens(tmp_path):
    (tmp_path / "tokens").write_text(f"# who\n\n{TOKEN}\n  second-token-of-some-length==  \n")
    return read_tokens(tmp_path / "tokens")


def test_a_body_past_the_limit_is_refused_and_one_at_it_is_not(app_of):
    def padded(size):
        body = json.dumps(BODY)
        return body + " " * (size - len(body))

    assert ask(app_of(max_bytes=1000), padded(1000)).status_code == 200
    refused = ask(app_of(max_bytes=1000), padded(1001))
    assert refused.status_code == 413 and "1000 bytes" in refused.json()["detail"]
    assert refused.headers["connection"] == "close"


def test_a_body_without_a_length_is_read_no_further_than_the_limit(app_of):
    read = 0

    async def pieces():
        nonlocal read
        for _ in range(1000):
            read += 10_000
            yield 10_000 * b" "

    async def chunked(client):
        headers = {"content-type": "application/json"}
        return await client.post("/predict", content=pieces(), headers=headers)

    kept = []
    app = app_of(max_bytes=20_000)
    original = app.state.service.predict
    app.state.service.predict = lambda *a, **k: kept.append(a) or original(*a, **k)
    assert talk(app, chunked).status_code == 413
    assert 20_000 < read < 10_000_000 and not kept


def test_tokens(app_of, tokens):
    def status(path="/predict", **headers):
        async def post(client):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if path == "/predict":
                return await client.post(path, json=BODY, headers=named)
            return await client.get(path, headers=named)

        return talk(app_of(tokens=tokens), post)

    refused = status()
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert "Bearer TOKEN" in refused.json()["detail"]
    assert status(authorization=f"Bearer {TOKEN}").status_code == 200
    assert status(authorization=f"bearer {TOKEN}").status_code == 200
    assert status(authorization="Bearer second-token-of-some-length==").status_code == 200
    for wrong in (
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}0",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ",
        "",
    ):
        assert status(authorization=wrong).status_code == 401, wrong
    for path in ("/", "/docs", "/openapi.json", "/health", "/ready", "/page.css", "/page.js"):
        assert status(path).status_code == 200, path
    for path in ("/metrics", "/nothing", "/predict/"):
        assert status(path).status_code == 401, path
    assert status("/metrics", authorization=f"Bearer {TOKEN}").status_code == 200


def test_a_stranger_s_body_is_not_read(app_of, tokens):
    touched = []

    async def pieces():
        for _ in range(3):
            touched.append(1)
            yield b"{"

    async def post(client):
        return await client.post("/predict", content=pieces())

    app = app_of(tokens=tokens)
    assert talk(app, post).status_code == 401
    assert app.state.service.metrics.texts._value.get() == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no token"),
        ("# only words\n\n", "no token"),
        ("short\n", "line 1: a token has at least 16"),
        (f"{TOKEN}\nwith a space in the middle\n", "line 2"),
        ("zweitausendsiebenundzwanzig-für-alle\n", "cannot read"),
    ],
)
def test_a_file_without_tokens_is_told(tmp_path, content, told):
    (tmp_path / "tokens").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        read_tokens(tmp_path / "tokens")
    with pytest.raises(UserError, match="cannot read tokens"):
        read_tokens(tmp_path / "none")


def test_tokens_are_not_kept_as_they_are(tokens):
    assert TOKEN not in repr(tokens) and all(len(digest) == 32 for digest in tokens.digests)


def test_only_names_of_its_own_are_answered(app_of):
    """A page elsewhere whose name was made to point here (DNS rebinding) gets nothing."""

    def status(host, hosts=LOOPBACK):
        async def get(client):
            return await client.get("/ready", headers={"host": host})

        return talk(app_of(hosts=hosts), get).status_code

    for own in ("localhost", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:8000"):
        assert status(own) == 200, own
    for other in ("evil.example", "localhost.evil.example", "localhost:80@evil.example", ""):
        assert status(other) == 421, other
    assert status("evil.example", hosts=None) == 200
    assert status("models.example", hosts={"models.example"}) == 200


def test_every_answer_has_careful_headers(app_of):
    async def all_kinds(client):
        return [
            await client.get("/"),
            await client.get("/nothing"),
            await client.post("/predict", **as_body(b"{")),
            await client.post("/predict", content=3_000_000 * b" "),
        ]

    seen = talk(app_of(), all_kinds)
    assert [response.status_code for response in seen] == [200, 404, 422, 413]
    for response in seen:
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in response.headers
