"""The live figures as server-sent events (WHATWG HTML, 9.2).

Events: `figures` (a JSON array, oldest first; the first event contains the recent past) and
`health` (whenever it changes). The id of a `figures` event is the moment of its last figures in
microseconds; any API process can resume after it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime

from starlette.requests import Request

from polyglot_persistence.api.service.handlers import stores_out
from polyglot_persistence.api.service.schemas import FiguresOut
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import may_look_inside, until_revoked
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Headers, encode_json
from polyglot_persistence.api.web.streams import Stream
from polyglot_persistence.domain.order import from_micros, to_micros
from polyglot_persistence.errors import MalformedError
from polyglot_persistence.flows.watch.live import LiveFlow
from polyglot_persistence.runtime.until import until

PING_SECONDS = 15.0
"""Interval of comments on an idle stream, for proxies that close idle connections."""
RETRY_MILLISECONDS = 2_000

_ID = re.compile(r"[0-9]{1,16}", re.ASCII)
_HEADERS: Headers = (
    (b"content-type", b"text/event-stream"),
    *COMMON_HEADERS,
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
)


@dataclass
class LiveRoute:
    """GET /api/live."""

    flow: LiveFlow
    _: KW_ONLY
    stopping: asyncio.Event

    async def stream(self, request: Request, _body: BodyReader) -> Stream:
        """Stream until the client hangs up, its key is revoked or the server stops."""
        after = _parse_id(request.headers.get("last-event-id", ""))
        ends = self.stopping, until_revoked(request)
        news = self.flow.watch()
        return Stream(
            _HEADERS,
            lambda gone: self._events(after, news, may_look_inside(request), (gone, *ends)),
            lambda: self.flow.unwatch(news),
        )

    async def _events(
        self,
        after: datetime | None,
        news: asyncio.Event,
        is_operator: bool,
        ends: Sequence[asyncio.Event],
    ) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MILLISECONDS
        health = b""
        await self.flow.look()
        while not any(end.is_set() for end in ends):
            news.clear()
            if self.flow.health is not None:
                told, health = health, encode_json(stores_out(self.flow.health, is_operator))
                if health != told:
                    yield b"event: health\ndata: %b\n\n" % health
            if figures := self.flow.since(after):
                after = figures[-1].at
                data = encode_json([FiguresOut(*one) for one in figures])
                yield b"id: %d\nevent: figures\ndata: %b\n\n" % (to_micros(after), data)
            if await until(asyncio.sleep(PING_SECONDS, result=True), news, *ends):
                yield b": still here\n\n"


def _parse_id(text: str) -> datetime | None:
    if not text:
        return None
    if not _ID.fullmatch(text):
        raise MalformedError("Last-Event-ID must be the id of an event of this stream")
    return from_micros(int(text))
