"""A server that speaks as Elasticsearch does and says what a test tells it to.

For what a real cluster does not do on demand: refuse one item of a bulk, stall, answer nonsense.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from polyglot_persistence.adapters.elasticsearch.connection import Credentials
from polyglot_persistence.adapters.elasticsearch.documents import MAPPINGS
from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex

ALIAS = "orders"
DEADLINE_SECONDS = 0.5
MAPPING = {f"{ALIAS}-1": {"mappings": MAPPINGS}}


class Request(NamedTuple):
    """What the client sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    def ids(self) -> list[str]:
        """Return the ids in a bulk request."""
        return [json.loads(line)["index"]["_id"] for line in self.body.splitlines()[::2]]


class Answer(NamedTuple):
    """What it gets."""

    status: int
    body: Any
    headers: Mapping[str, str] = {"X-Elastic-Product": "Elasticsearch"}


NOTHING_FOUND = Answer(200, {"hits": {"total": {"value": 0}, "hits": []}})

Answerer = Callable[[Request], Answer]


def bulk_answer(
    request: Request, status: Callable[[str], int], kind: str = "document_parsing_exception"
) -> Answer:
    """Return what a bulk is answered if each id has the status, and errors are of the kind."""
    items: list[dict[str, Any]] = []
    for order_id in request.ids():
        item: dict[str, Any] = {"status": status(order_id)}
        if item["status"] >= 400:
            item["error"] = {
                "type": kind,
                "reason": "failed to parse",
                "caused_by": {"type": "illegal_argument_exception", "reason": "of 1"},
            }
        items.append({"index": item})
    return Answer(200, {"errors": any("error" in i["index"] for i in items), "items": items})


class Stub:
    """The server. `bulk` and `search` decide their answers; the index looks as it should."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight_most = 0
        self.bulk: Answerer = lambda request: bulk_answer(request, lambda _: 201)
        self.search: Answerer = lambda _: Answer(503, {"error": "not told what to say"})
        self.open = asyncio.Event()
        """No request is answered while it is clear."""
        self.open.set()
        self.hangs: Callable[[Request], bool] = lambda _: False
        """Requests that are never answered."""
        self.ended = asyncio.Event()
        self.port = 0
        self._in_flight = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def bulks(self) -> list[Request]:
        """The bulk requests so far."""
        return [request for request in self.requests if "/_bulk" in request.target]

    @property
    def searches(self) -> list[Request]:
        """The requests so far that search."""
        return [request for request in self.requests if "/_msearch" in request.target]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=tls, limit=2**24
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                self._in_flight += 1
                self.in_flight_most = max(self.in_flight_most, self._in_flight)
                try:
                    await asyncio.sleep(0.01)
                    await self.open.wait()
                    if self.hangs(request):
                        await self.ended.wait()
                    answer = self._answer(request)
                finally:
                    self._in_flight -= 1
                await _write(writer, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    def _answer(self, request: Request) -> Answer:
        if "/_bulk" in request.target:
            return self.bulk(request)
        if request.target.endswith("/_mapping"):
            return Answer(200, MAPPING)
        answer = self.search(request)
        if "/_msearch" in request.target and isinstance(answer.body, dict):
            return _each(request, answer)
        return answer


def _each(request: Request, answer: Answer) -> Answer:
    """Return the answer for each of several searches; a refusal by a node is one of the request."""
    if answer.status not in (200, 404, 503):
        return answer
    searches = len(request.body.splitlines()) // 2
    one = {**answer.body, "status": answer.status}
    return Answer(200, {"responses": [one] * searches}, answer.headers)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    text = isinstance(answer.body, str)
    body = answer.body.encode() if text else json.dumps(answer.body).encode()
    kind = "text/html" if text else "application/vnd.elasticsearch+json;compatible-with=8"
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), **answer.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode() + body)
    await writer.drain()


@asynccontextmanager
async def stubbed() -> AsyncIterator[Stub]:
    """Give a running stub."""
    stub = Stub()
    await stub.start()
    try:
        yield stub
    finally:
        stub.open.set()
        stub.ended.set()
        await stub.stop()


def index_at(url: str, credentials: Credentials = Credentials()) -> ElasticsearchIndex:  # noqa: B008
    return ElasticsearchIndex(
        url,
        alias=ALIAS,
        credentials=credentials,
        search_timeout_seconds=DEADLINE_SECONDS,
        index_timeout_seconds=4 * DEADLINE_SECONDS,
    )
