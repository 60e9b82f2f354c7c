"""A key that is revoked while its requests go on: streams and imports end, over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from polyglot_persistence.adapters.clock import SystemClock
from polyglot_persistence.api.app import build_app
from polyglot_persistence.api.protocol import server
from polyglot_persistence.api.protocol.fast_lane import fast_lane
from polyglot_persistence.api.protocol.hot import HotRoutes
from polyglot_persistence.bootstrap import access as bootstrap_access
from polyglot_persistence.bootstrap.access import access_of, keep_keys_current
from polyglot_persistence.config import load
from polyglot_persistence.domain.access import ApiKey, Scope, new_api_key
from polyglot_persistence.domain.order import new_id
from polyglot_persistence.flows.intake.accept import ImportLine, LineOutcome
from tests.support.http_limits import HTTP_LIMITS
from tests.support.stub_flows import LIMITS, StubFlows

WITHIN_SECONDS = 10.0


class Watched(StubFlows):
    """Flows whose live stream has nothing to say, and whose imports accept everything."""

    health = None

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[ImportLine] = []
        self.imported = asyncio.Event()

    async def accept_lines(self, lines: Sequence[ImportLine]) -> Sequence[LineOutcome]:
        self.lines += lines
        self.imported.set()
        return [LineOutcome(new_id()) for _ in lines]

    def watch(self) -> asyncio.Event:
        return asyncio.Event()

    def unwatch(self, _news: asyncio.Event) -> None:
        """Nobody counts."""

    async def look(self) -> None:
        """Nothing is there."""

    def since(self, _moment: object) -> list[Any]:
        return []


class Serving:
    """An API that takes its keys from a file, as the real one does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secret, self.key = new_api_key("shop", [Scope.READ, Scope.WRITE])
        self.other_secret, self.other = new_api_key("other", [Scope.READ, Scope.WRITE])
        self.keep(self.key, self.other)
        self.flows = Watched()
        self.stop = asyncio.Event()
        self.port = 0

    def keep(self, *keys: ApiKey, more: str = "") -> None:
        """Let the file hold these keys."""
        self.path.write_text("\n".join([*(key.line for key in keys), more]))

    async def run(self, ready: asyncio.Event) -> None:
        """Serve until `stop`."""
        settings = load({"API_KEYS_FILE": str(self.path), "API_HOST": "127.0.0.1"})
        clock = SystemClock()
        access = access_of(settings, clock)
        listener = server.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        app = build_app(
            self.flows.as_flows(), LIMITS, clock=clock, stopping=self.stop, access=access
        )
        flows = cast("Any", self.flows)
        hot = HotRoutes(flows, flows, body_bytes_max=LIMITS.order_body_bytes_max, access=access)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_keys_current(settings, access, self.stop))
            await server.serve(
                app,
                listener,
                limits=HTTP_LIMITS,
                protocol=fast_lane(hot),
                shutdown=self.stop,
                graceful_seconds=5,
                on_ready=ready.set,
            )

    @contextlib.asynccontextmanager
    async def connection(
        self, head: str, secret: str, body: bytes = b""
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Send a request's head and the beginning of its body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{head}\r\nHost: localhost\r\nX-API-Key: {secret}\r\n\r\n".encode() + body)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@pytest_asyncio.fixture
async def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    """An API that looks at its keys all the time."""
    monkeypatch.setattr(bootstrap_access, "KEYS_INTERVAL_SECONDS", 0.01)
    serving, ready = Serving(tmp_path / "keys"), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serving.run(ready))
        await ready.wait()
        yield serving
        serving.stop.set()


IMPORT = (
    "POST /api/orders/import HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n"
    "Transfer-Encoding: chunked"
)
END = b"\r\n0\r\n\r\n"
LIVE = "GET /api/live HTTP/1.1"


def chunk(*names: str) -> bytes:
    """Return lines of an import as a chunk of a body."""
    lines = b"".join(b'{"product_name": "%b", "amount": 1}\n' % name.encode() for name in names)
    return b"%x\r\n%b\r\n" % (len(lines), lines)


async def head_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WITHIN_SECONDS):
        return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "how", ["removed", "emptied", "deleted", "lost its scope", "beside a typo"]
)
async def test_a_stream_ends_with_its_key(serving: Serving, how: str) -> None:
    """However the key went; the stream of a key that stays goes on."""
    async with (
        serving.connection(LIVE, serving.secret) as (reader, _),
        serving.connection(LIVE, serving.other_secret) as (kept, _),
    ):
        assert b" 200 " in await head_of(reader)
        assert b" 200 " in await head_of(kept)
        other_ends = asyncio.ensure_future(kept.readuntil(END))
        revoke(serving, how)
        async with asyncio.timeout(WITHIN_SECONDS):
            await reader.readuntil(END)
        async with serving.connection(LIVE, serving.secret) as (again, _):
            expected = b" 403 " if how == "lost its scope" else b" 401 "
            assert expected in await head_of(again)
        if how not in ("emptied", "deleted"):
            assert not other_ends.done()
            serving.keep()
        async with asyncio.timeout(WITHIN_SECONDS):
            await other_ends


def revoke(serving: Serving, how: str) -> None:
    match how:
        case "removed":
            serving.keep(serving.other)
        case "emptied":
            serving.keep()
        case "deleted":
            serving.path.unlink()
        case "lost its scope":
            serving.keep(serving.key._replace(scopes=frozenset({Scope.ADMIN})), serving.other)
        case "beside a typo":
            serving.keep(serving.other, more="shop:wrte:" + "a" * 64)


@pytest.mark.parametrize("how", ["removed", "deleted", "lost its scope", "beside a typo"])
async def test_an_import_ends_with_its_key(serving: Serving, how: str) -> None:
    """Also one that stands still: at once, with what was accepted, and nothing more is."""
    accepted = [f"before {number}" for number in range(LIMITS.import_chunk_orders)]
    async with serving.connection(IMPORT, serving.secret, chunk(*accepted, "pending")) as (
        reader,
        _,
    ):
        async with asyncio.timeout(WITHIN_SECONDS):
            await serving.flows.imported.wait()
        revoke(serving, how)
        head = await head_of(reader)
        assert b" 401 " in head
        assert b"www-authenticate" in head.lower()
        length = int(head.lower().split(b"content-length: ")[1].split()[0])
        problem = json.loads(await reader.readexactly(length))
    assert problem["accepted"] == len(accepted)
    assert problem["lines_not_accepted"] == [len(accepted) + 1]
    assert [line.content[0] for line in serving.flows.lines] == accepted


ORDER = b'{"product_name": "Coffee", "amount": 1}'


@pytest.mark.parametrize("lane", ["hot", "ordinary"])
@pytest.mark.parametrize("body", [ORDER, b'{"orders": [' + ORDER + b"]}"], ids=["order", "bulk"])
async def test_a_body_that_is_complete_after_its_key_is_refused(
    serving: Serving, body: bytes, lane: str
) -> None:
    """It was admitted at its head, and nothing of it is stored; one of another key is."""
    path = "/api/orders" if body is ORDER else "/api/bulk-orders"
    head = f"POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    if lane == "ordinary":
        head += "\r\nConnection: keep-alive"
    async with (
        serving.connection(head, serving.secret, body[:5]) as (reader, writer),
        serving.connection(head, serving.other_secret, body[:5]) as (kept, others),
    ):
        async with serving.connection(LIVE, serving.secret) as (live, _):
            assert b" 200 " in await head_of(live)  # so the heads have been read, too
            serving.keep(serving.other)
            async with asyncio.timeout(WITHIN_SECONDS):
                await live.readuntil(END)
        writer.write(body[5:])
        assert b" 401 " in await head_of(reader)
        assert serving.flows.accepted == []
        others.write(body[5:])
        assert b" 202 " in await head_of(kept)
    assert len(serving.flows.accepted) == 1
