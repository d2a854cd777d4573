"""What stands before the routes: nobody gets past it, and nothing of a body is read too soon, too far or too slowly."""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.serve.config import TOKEN_VARIABLE, Limits, ServeConfig
from cfmvc_scvi.serve.middleware import Authentication, BodyGuard, LocalNames, Slots

TOKEN = "s3cret-s3cret-s3cret"


def called(app: Callable[..., Any], *, path: str = "/v1/encode", method: str = "POST", headers=(), chunks=(), wait=0.0):
    """Call an ASGI application; return the status, the body, and how many chunks of the request were read."""
    sent: list[dict[str, Any]] = []
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        await asyncio.sleep(wait)
        read += 1
        return {"type": "http.request", "body": chunks[read - 1], "more_body": read < len(chunks)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "headers": list(headers), "state": {"request_id": "r"}}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1].get("body", b""), read


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("a request without the token reached the routes")


PATHS = ("/v1/encode", "/v1/model", "/metrics", "/docs", "/openapi.json", "/nowhere", "/healthz/")
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
NOT_THE_TOKEN = [b"", TOKEN.encode(), b"Bearer", b"bearer " + TOKEN.encode(), b"Bearer " + TOKEN[:-1].encode()]
NOT_THE_TOKEN += [b"Bearer " + TOKEN.encode() + b" ", "Bearer s3cret-s3cret-s3cr\xe9t".encode("latin-1")]


@pytest.mark.parametrize("given", [None, *NOT_THE_TOKEN])
def test_without_the_token_nobody_reaches_a_route(given: bytes | None) -> None:
    headers = [] if given is None else [(b"authorization", given)]
    app = Authentication(unreachable, TOKEN)
    for path, method in itertools.product(PATHS, METHODS):
        status, body, read = called(app, path=path, method=method, headers=headers, chunks=[b"x"])
        assert status == 401 and read == 0
        assert json.loads(body) == {"error": "a token is needed: Authorization: Bearer ...", "request_id": "r"}


def test_with_the_token_and_for_the_health_check_the_way_is_free() -> None:
    app = Authentication(echo, TOKEN)
    header = (b"authorization", f"Bearer {TOKEN}".encode())
    assert called(app, headers=[header], chunks=[b"x"])[0] == 200
    assert called(app, path="/healthz", method="GET", chunks=[b"x"])[0] == 200
    assert called(app, path="/healthz", chunks=[b"x"])[0] == 401  # with a body, it is not that check
    assert called(Authentication(echo, None), chunks=[b"x"])[0] == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "127.3.2.1"])
def test_without_a_token_this_machine_is_asked_by_its_own_names(host: str) -> None:
    assert called(LocalNames(echo), headers=[(b"host", host.encode())], chunks=[b"x"])[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil", "10.0.0.7", "", "[", "[::2]"]
)
def test_without_a_token_a_page_that_calls_itself_this_machine_gets_nowhere(host: str) -> None:
    status, body, read = called(LocalNames(unreachable), headers=[(b"host", host.encode())], chunks=[b"x"])
    assert status == 403 and read == 0 and b"localhost" in body
    assert called(LocalNames(unreachable), chunks=[b"x"])[0] == 403
    assert (
        called(LocalNames(echo), path="/healthz", method="GET", headers=[(b"host", host.encode())], chunks=[b""])[0]
        == 200
    )


def test_a_body_is_read_no_further_than_allowed() -> None:
    app = BodyGuard(echo, Limits(body_bytes=10))
    assert called(app, chunks=[b"12345", b"67890"]) == (200, b"1234567890", 2)
    rest = [b"x" * 2**20] * 50  # of which a bounded part is thrown away, so that the client hears the answer
    status, _, read = called(app, chunks=[b"12345", b"678901", *rest])
    assert status == 413 and 2 < read <= 2 + 8
    status, body, read = called(app, headers=[(b"content-length", b"11")], chunks=rest)
    assert status == 413 and 0 < read <= 8 and b"11 bytes; at most 10" in body
    assert called(app, method="GET", chunks=[b"x" * 11])[0] == 200


def test_a_body_that_comes_too_slowly_is_given_up() -> None:
    app = BodyGuard(echo, Limits(read_seconds=0.05))
    status, body, _ = called(app, chunks=[b"x"] * 50, wait=0.02)
    assert status == 408 and b"0.05 s" in body


def test_more_than_a_worker_can_hold_is_refused_but_for_the_health_check() -> None:
    async def many() -> list[int]:
        go, statuses = asyncio.Event(), []

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await echo(scope, receive, send)

        app = Slots(slow, 2)

        async def one(path: str) -> None:
            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b""}

            await app({"type": "http", "path": path, "method": "GET", "state": {"request_id": "r"}}, receive, send)

        tasks = [asyncio.create_task(one(path)) for path in ("/a", "/a", "/a", "/healthz")]
        await asyncio.sleep(0.01)
        assert statuses == [503]
        go.set()
        await asyncio.gather(*tasks)
        await one("/a")
        return statuses

    assert sorted(asyncio.run(many())) == [200, 200, 200, 200, 503]


LOCAL, OTHERS = ("127.0.0.1", "::1", "localhost", "127.9.9.9"), ("0.0.0.0", "::", "10.0.0.7", "example.org", "")


@pytest.mark.parametrize(("host", "local"), [*((host, True) for host in LOCAL), *((host, False) for host in OTHERS)])
def test_others_than_this_machine_need_a_token(host: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    config = ServeConfig("bundle", host=host)
    if local:
        assert config.token() is None
    else:
        with pytest.raises(DataError, match="no token is set"):
            config.token()
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert config.token() == TOKEN
    monkeypatch.setenv(TOKEN_VARIABLE, "short")
    with pytest.raises(DataError, match="at least 16") as error:
        config.token()
    assert "short" not in str(error.value)


def test_workers_find_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFMVC_SCVI_SERVE", "")
    config = ServeConfig("b", port=1, workers=3, batching=False, limits=Limits(cells=7))
    config.to_environment()
    assert ServeConfig.from_environment() == config
    with pytest.raises(DataError, match="workers is 0"):
        ServeConfig("b", workers=0)
