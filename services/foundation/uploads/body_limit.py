"""Bounds on every request body: size, silence and slowness, in pure ASGI because nothing may buffer a stream.

The announced length is refused before a byte is read; a body without one is counted. Whoever is refused for another reason
(not signed in, no such upload) while its body is on the way gets the answer after the rest of the body was read and thrown
away, because a server that closes early takes the answer away from most clients.
"""

import asyncio
import re
import time

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rexis.protocol.uploads import PART_SIZE
from services.foundation.problems import Problem, problem_response
from services.foundation.settings import ServiceSettings

PART_PATH = re.compile(r"/v1/uploads/[^/]+/parts/[^/]+")
# Below this average rate a client is not slow but holding a connection; a part of 8 MiB has half an hour.
MIN_BYTES_PER_S = 4096


class _RefusedError(HTTPException):
    """Ends the application's reading; the middleware answers in its place, whatever the application makes of it."""


class BodyLimit:
    """Refuses bodies over the limit with 413 and clients that stop or trickle with 408, as problem documents."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self.app = app
        self._max_body_bytes = settings.max_body_bytes
        self._read_timeout_s = settings.read_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(scope, receive, self._limit(scope), self._read_timeout_s)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and body.refusal is None:
                await body.drain()
                started = True
                if not body.finished:
                    MutableHeaders(scope=message)["Connection"] = "close"
            if started:
                await send(message)

        body.refuse_announced_length()
        if body.refusal is None:
            await self.app(scope, body.receive, watched_send)
        if body.refusal is not None and not started:
            await problem_response(Request(scope), body.refusal)(scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        return PART_SIZE if scope["method"] == "PUT" and PART_PATH.fullmatch(scope["path"]) else self._max_body_bytes


class _Body:
    """The body of one request: passes messages on, counts, and remembers why it stopped."""

    def __init__(self, scope: Scope, receive: Receive, limit: int, read_timeout_s: float) -> None:
        headers = Headers(scope=scope)
        self._receive, self._limit, self._read_timeout_s = receive, limit, read_timeout_s
        self._announced = int(headers.get("content-length") or 0)
        self._waits_for_permission = "expect" in headers
        self._received = 0
        self._began = time.monotonic()
        self.finished = self._announced == 0 and "transfer-encoding" not in headers
        self.refusal: Problem | None = None

    def refuse_announced_length(self) -> None:
        if self._announced > self._limit:
            self._refuse_size(f"{self._announced} bytes are announced")

    async def receive(self) -> Message:
        if self.finished:
            return await self._receive()
        if self.refusal is not None:
            raise _RefusedError(self.refusal.status)
        deadline = self._began + self._read_timeout_s + self._received / MIN_BYTES_PER_S
        try:
            async with asyncio.timeout(min(self._read_timeout_s, deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            detail = (
                f"the body stopped after {self._received} bytes: at most {self._read_timeout_s:g} s of silence "
                f"and at least {MIN_BYTES_PER_S} bytes a second on average are expected"
            )
            self.refusal = Problem(408, "body-timeout", "The body came too slowly", detail, headers={"Connection": "close"})
            raise _RefusedError(408) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
            if self._received > self._limit:
                self._refuse_size("more came")
                raise _RefusedError(413)
        return message

    async def drain(self) -> None:
        """Read the rest and throw it away; stops where `receive` would refuse. A client that waits for permission to send gets none."""
        try:
            while not self.finished and not self._waits_for_permission:
                if (await self.receive())["type"] == "http.disconnect":
                    return
        except _RefusedError:
            self.refusal = None

    def _refuse_size(self, found: str) -> None:
        detail = f"at most {self._limit} bytes are accepted here, {found}"
        self.refusal = Problem(413, "body-too-large", "The body is too large", detail, headers={"Connection": "close"})
