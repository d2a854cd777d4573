"""Connections end when a client dribbles the head of a request, or does not take the answer (needs the extra serve)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytestmark = pytest.mark.serving

LARGE = b"x" * 2**24


async def answer(scope: Any, receive: Any, send: Any) -> None:
    body = LARGE if scope["path"] == "/large" else b"small"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def served(ask: Callable[[int], Awaitable[Any]], **seconds: float) -> Any:
    """Return what `ask` returns of a server at a port whose connections wait so long."""
    import uvicorn

    from cfmvc_scvi.serve._connection import PatientConnection

    connection = type("Connection", (PatientConnection,), seconds)
    config = uvicorn.Config(answer, port=0, http=connection, ws="none", lifespan="off", log_level="critical")

    async def run() -> Any:
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            return await asyncio.wait_for(ask(server.servers[0].sockets[0].getsockname()[1]), 20)
        finally:
            server.should_exit = True
            await task

    return asyncio.run(run())


async def got(port: int, *parts: bytes, wait: float = 0.0) -> tuple[bytes, float]:
    """Send parts with a pause after each; return what comes back until the connection ends, and the time to its end."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(wait)
        received = await reader.read()
    except ConnectionError:
        received = b""
    writer.close()
    return received, time.perf_counter() - start


def test_who_dribbles_a_head_is_cut_off_and_others_are_answered() -> None:
    async def ask(port: int) -> Any:
        slow = got(port, *[b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 40], wait=0.1)
        silent, usual = got(port), got(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return await asyncio.gather(slow, silent, usual)

    slow, silent, usual = served(ask, head_seconds=0.5)
    assert slow[0] == silent[0] == b"" and slow[1] < 3 and 0.4 < silent[1] < 3
    assert usual[0].startswith(b"HTTP/1.1 200") and b"small" in usual[0]


def test_a_second_head_on_the_same_connection_is_awaited_no_longer() -> None:
    async def ask(port: int) -> Any:
        return await got(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\n", wait=0.1)

    received, seconds = served(ask, head_seconds=0.5)
    assert received.count(b"200 OK") == 1 and seconds < 3


def test_who_does_not_take_the_answer_is_cut_off() -> None:
    async def ask(port: int) -> Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(1.5)
        try:
            taken = len(await reader.read(-1))
        except ConnectionError:
            taken = 0
        writer.close()
        whole, _ = await got(port, b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return taken, len(whole)

    taken, whole = served(ask, take_seconds=0.5)
    assert taken < len(LARGE) < whole
