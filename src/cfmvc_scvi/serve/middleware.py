"""What stands before every route: who asks, how much is sent, how slowly, how many at once; and what is noted."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any

from cfmvc_scvi.serve.config import Limits, is_loopback
from cfmvc_scvi.serve.telemetry import Metrics, logger

__all__ = ["Authentication", "BodyGuard", "LocalNames", "RequestLog", "Slots", "problem"]

Scope = MutableMapping[str, Any]
App = Callable[..., Any]

OPEN_PATH = "/healthz"
_DISCARD_BYTES, _DISCARD_SECONDS = 2**23, 2.0  # of a body that was refused
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request an id, notes it in log and metrics, and hides what went wrong inside."""

    def __init__(self, app: App, metrics: Metrics, routes: frozenset[str]) -> None:
        self.app, self.metrics, self.routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        route = scope["path"] if scope["path"] in self.routes else "other"
        start, status, whole = time.perf_counter(), 0, False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.body":
                whole = not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            with self.metrics.in_work.track_inprogress():
                await self.app(scope, receive, noted)
        except Exception:
            logger.exception("the request failed", extra={"fields": {"request_id": request_id, "route": route}})
            if status and not whole:  # the connection is cut, so that nobody takes a part of an answer for the whole
                raise
            if not status:
                await problem(scope, noted, 500, "something went wrong; the log of the service says what")
        finally:
            seconds = time.perf_counter() - start
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            fields = {"request_id": request_id, "method": scope["method"], "route": route, "status": status}
            client = (scope.get("client") or ("",))[0]
            logger.info("request", extra={"fields": {**fields, "seconds": round(seconds, 4), "client": client}})


class Authentication:
    """Answers 401 to who has not the token, whatever is asked but the health check, and reads nothing of a body."""

    def __init__(self, app: App, token: str | None) -> None:
        self.app = app
        self.expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan" or self.expected is None or _is_health_check(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http" and hmac.compare_digest(_header(scope, b"authorization"), self.expected):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await problem(scope, send, 401, "a token is needed: Authorization: Bearer ...", close=True)
        else:
            await send({"type": "websocket.close", "code": 1008})


class LocalNames:
    """Answers 403 to who asks by another name than one of this machine.

    A page in a browser can make the name of its own site stand for 127.0.0.1 and then ask as if from there; the name
    is what gives it away.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan" or _is_health_check(scope) or _is_local(_header(scope, b"host")):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            words = "a service without a token answers to localhost, 127.0.0.1 and [::1] only; set a token for others"
            await problem(scope, send, 403, words, close=True)
        else:
            await send({"type": "websocket.close", "code": 1008})


class Slots:
    """Refuses more requests at a time than a worker can hold; the health check always has a place."""

    def __init__(self, app: App, most: int) -> None:
        self.app, self.most, self.taken = app, most, 0

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        """Handle one request."""
        if scope["type"] != "http" or _is_health_check(scope):
            await self.app(scope, receive, send)
            return
        if self.taken >= self.most:
            await problem(scope, send, 503, "too many requests at once; try again in a second", close=True)
            return
        self.taken += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.taken -= 1


class _TooLargeError(Exception):
    pass


class BodyGuard:
    """Reads a body, of stated length or chunked, no further than allowed and no longer than allowed."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: App, send: App) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        most = self.limits.body_bytes
        stated = _header(scope, b"content-length")
        if stated.isdigit() and int(stated) > most:
            words = f"the body has {int(stated)} bytes; at most {most} are accepted"
            await problem(scope, _heard(receive, send), 413, words, close=True)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self.limits.read_seconds)
        except _TooLargeError:
            await problem(scope, _heard(receive, send), 413, f"the body has more than {most} bytes", close=True)
            return
        except TimeoutError:
            await problem(scope, send, 408, f"the body took more than {self.limits.read_seconds} s", close=True)
            return
        if body is None:  # the client has gone
            return
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _read(self, receive: App) -> bytes | None:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise _TooLargeError
            if not message.get("more_body", False):
                return b"".join(parts)


async def problem(scope: Scope, send: App, status: int, text: str, *, close: bool = False) -> None:
    """Send an error in the form that all errors of the service have."""
    body = json.dumps({"error": text, "request_id": scope["state"]["request_id"]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close")] * close
    headers += [(b"www-authenticate", b"Bearer")] * (status == 401)
    headers += [(b"retry-after", b"1")] * (status == 503)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _is_health_check(scope: Scope) -> bool:
    return scope.get("path") == OPEN_PATH and scope.get("method") in ("GET", "HEAD")


def _is_local(host: bytes) -> bool:
    name = host.decode("latin-1")
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return is_loopback(name)


def _heard(receive: App, send: App) -> App:
    """Return `send` for an answer that closes the connection while a body is still on its way.

    A connection that is closed with bytes unread is reset, and the client may lose the answer. So a bounded rest of the
    body is thrown away between the answer and its end.
    """

    async def sent(message: MutableMapping[str, Any]) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        await send({**message, "more_body": True})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_discard(receive), _DISCARD_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return sent


async def _discard(receive: App) -> None:
    left = _DISCARD_BYTES
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))
