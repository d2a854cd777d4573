"""Connections of HTTP/1.1 that do not wait for ever: not for the head of a request, nor for an answer to be taken."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from h11 import IDLE
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PatientConnection"]


class PatientConnection(H11Protocol):
    """uvicorn's connection, which closes on a client that takes too long.

    Attributes
    ----------
    head_seconds
        From the first byte, or the connection, to the end of the head of a request. (That of the body is limited by
        the application, which answers 408.)
    take_seconds
        Without a part of the answer being taken while more waits to be sent.
    """

    head_seconds: ClassVar[float] = 15.0
    take_seconds: ClassVar[float] = 60.0
    _head: asyncio.TimerHandle | None = None
    _taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._head = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Wait on while the head of a request is incomplete."""
        super().data_received(data)
        if self.conn.their_state is not IDLE:
            self._cancel("_head")
        elif self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.abort)

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what was sent."""
        super().pause_writing()
        self._cancel("_taken")
        self._taken = self.loop.call_later(self.take_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop to wait: it did."""
        super().resume_writing()
        self._cancel("_taken")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait: nobody is there."""
        super().connection_lost(exc)
        self._cancel("_head", "_taken")

    def _cancel(self, *timers: str) -> None:
        for name in timers:
            if (timer := getattr(self, name)) is not None:
                timer.cancel()
                setattr(self, name, None)
