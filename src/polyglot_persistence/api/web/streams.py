"""Streamed answers: the head at once, then chunks until either side ends the stream.

Invariant: a stream ends soon after its client hung up, and `close` is called exactly once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from polyglot_persistence.api.web.replies import Headers


class Stream(NamedTuple):
    """A 200 whose body is sent in chunks."""

    headers: Headers
    chunks: Callable[[asyncio.Event], AsyncIterator[bytes]]
    """Yields the body; ends soon after the event is set, which means that the client is gone."""
    close: Callable[[], None]
    """Releases the resources of the stream."""


async def send_stream(scope: Scope, receive: Receive, send: Send, stream: Stream) -> None:
    """Send until the stream ends or the client is gone; for HEAD only the head."""
    gone = asyncio.Event()
    watching = asyncio.ensure_future(_wait_until_gone(receive, gone))
    try:
        await send({"type": "http.response.start", "status": 200, "headers": stream.headers})
        if scope["method"] != "HEAD":
            async for chunk in stream.chunks(gone):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        stream.close()


async def _wait_until_gone(receive: Receive, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
