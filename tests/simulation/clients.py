"""Clients: they send what the plan says, retry as they were told, and write down what they hear."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from polyglot_persistence.api.protocol.hot import Pending
from tests.simulation import steps
from tests.simulation.history import Attempt, History, Reading
from tests.simulation.plan import Operation
from tests.simulation.processes import ApiProcess
from tests.simulation.steps import Step
from tests.simulation.world import World
from tests.support.keys import key_headers

PATIENCE_SECONDS = 4.0
"""So long a client waits for an answer."""

RETRY_SECONDS = 0.25

NEVER = "00000000-0000-4000-8000-00000000dead"
"""An id that no order ever has."""

_HANG_UP = {"type": "http.disconnect"}


class Answer(NamedTuple):
    """What a client heard."""

    status: int | None
    """None: nothing."""
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body) if self.body else None


NOTHING = Answer(None)
REFUSED_CONNECTION = Answer(503)
"""Nobody listens: as good as a refusal, for nothing was sent."""


class Body(NamedTuple):
    """A body in its chunks."""

    chunks: Sequence[bytes]
    pause_seconds: float = 0.0
    cut_after: int = 0
    """Chunks after which the client hangs up; 0: it does not."""


class Clients:
    """All clients of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = world.loop
        self.history = History()
        self.waiting = 0
        """Operations that have not ended."""
        self._ids_of: dict[int, list[str]] = {}
        """By operation, the ids that its clients know."""

    def begin(self, operations: Sequence[Operation]) -> None:
        """Let each operation begin in its time."""
        self.waiting = len(operations)
        for operation in operations:
            self._loop.world_later(operation.at, self._start, operation)

    def _start(self, operation: Operation) -> None:
        act: Callable[[Operation], Awaitable[None]] = {
            "order": self._order,
            "bulk": self._bulk,
            "import": self._import,
            "read": self._read,
            "status": self._read,
            "page": self._look,
            "search": self._look,
            "letters": self._letters,
        }[operation.kind]

        async def run() -> None:
            try:
                await act(operation)
            except Exception as error:  # noqa: BLE001  an answer that a client cannot read
                self._loop.failures.append(f"client of operation {operation.number}: {error!r}")
            self.waiting -= 1

        self._loop.world_task(run())

    # --- writing -----------------------------------------------------------------------------

    async def _order(self, operation: Operation) -> None:
        (name,) = operation.names
        body = json.dumps({"product_name": name, "amount": amount_of(name)}).encode()
        await self._send(operation, "/api/orders", body, "order")

    async def _bulk(self, operation: Operation) -> None:
        orders = [{"product_name": n, "amount": amount_of(n)} for n in operation.names]
        await self._send(
            operation, "/api/bulk-orders", json.dumps({"orders": orders}).encode(), "bulk"
        )

    async def _send(self, operation: Operation, path: str, body: bytes, route: Any) -> None:
        headers = {"content-type": "application/json"}
        if operation.key is not None:
            headers["idempotency-key"] = operation.key
        if operation.wait:
            headers["prefer"] = "wait=1"
        for number in range(operation.tries):
            attempt = Attempt(
                operation.number, route, operation.names, operation.key, self._loop.now
            )
            self.history.attempts.append(attempt)
            answer = await self._ask(
                operation.api + number,
                "POST",
                path,
                headers,
                Body([body]),
                hot=operation.hot and len(headers) == 1,
            )
            self._heard(attempt, answer)
            again = attempt.told == "refused" and answer.status == 503
            again = again or (attempt.told == "unknown" and operation.key is not None)
            if not again:
                return
            await asyncio.sleep(RETRY_SECONDS * (number + 1))

    def _heard(self, attempt: Attempt, answer: Answer) -> None:
        attempt.status, attempt.heard_at = answer.status, self._loop.now
        if attempt.told != "acknowledged":
            return
        out = answer.json()
        ids = [out["order_id"]] if attempt.route == "order" else out["order_ids"]
        attempt.ids = tuple(ids)
        attempt.replayed = (b"idempotent-replayed", b"true") in tuple(answer.headers)
        if len(ids) != len(attempt.names):
            self.history.wrong.append(f"{len(ids)} ids for {len(attempt.names)} orders")
        self._acknowledge(attempt.operation, zip(ids, attempt.names, strict=False))

    def _acknowledge(self, operation: int, orders: Any) -> None:
        for order_id, name in orders:
            self.history.acknowledge(order_id, name, self._loop.now)
            self.history.answered.add(order_id)
            known = self._ids_of.setdefault(operation, [])
            if order_id not in known:
                known.append(order_id)

    # --- imports -----------------------------------------------------------------------------

    async def _import(self, operation: Operation) -> None:
        lines = [
            json.dumps(
                {"product_name": name, "amount": amount_of(name)} | ({"id": i} if i else {})
            ).encode()
            for name, i in zip(operation.names, operation.ids, strict=True)
        ]
        first = 1
        for number in range(operation.tries):
            attempt = Attempt(
                operation.number,
                "import",
                operation.names,
                operation.key,
                self._loop.now,
                first_line=first,
            )
            self.history.attempts.append(attempt)
            answer = await self._send_lines(operation, attempt, lines, number)
            self._heard_import(attempt, answer, operation)
            safe = operation.key is not None or all(operation.ids)
            if attempt.told == "acknowledged" or not (safe or attempt.status == 503):
                return
            if operation.by_line and safe and attempt.status in (503, 504):
                first = max(first, _first_not_accepted(answer, first))
            elif not safe:
                return  # what was refused is known; a client without identities ends here
            else:
                first = 1
            await asyncio.sleep(RETRY_SECONDS * (number + 1))

    async def _send_lines(
        self, operation: Operation, attempt: Attempt, lines: Sequence[bytes], number: int
    ) -> Answer:
        rest = lines[attempt.first_line - 1 :]
        step = operation.chunk_lines
        chunks = [
            b"".join(line + b"\n" for line in rest[n : n + step]) for n in range(0, len(rest), step)
        ]
        cut_after = operation.cut_after if number == 0 else 0
        attempt.sent_lines = min(len(rest), step * cut_after) if cut_after else len(rest)
        headers = {"content-type": "application/x-ndjson"}
        if operation.key is not None:
            headers["idempotency-key"] = operation.key
        query = "?on_rejected=report"  # this client reads the totals
        query += f"&first_line={attempt.first_line}" if attempt.first_line > 1 else ""
        return await self._ask(
            operation.api + number,
            "POST",
            f"/api/orders/import{query}",
            headers,
            Body(chunks or [b""], operation.pause_seconds, cut_after),
        )

    def _heard_import(self, attempt: Attempt, answer: Answer, operation: Operation) -> None:
        attempt.status = answer.status
        if answer.status is None or answer.status not in (200, 408, 503, 504):
            return
        out = answer.json() or {}  # what is zero is left out
        attempt.counts = (out.get("accepted", 0), out.get("unchanged", 0), out.get("rejected", 0))
        attempt.not_accepted = tuple(out.get("lines_not_accepted", ()))
        attempt.unknown = tuple(out.get("lines_unknown", ()))
        attempt.lines_read = out.get("lines_read", 0)
        rejected = out.get("errors" if answer.status == 200 else "lines_rejected", ())
        attempt.errors = tuple(one["line"] for one in rejected)
        if answer.status == 200:
            known = [
                (i, n)
                for line, (i, n) in enumerate(
                    zip(operation.ids, operation.names, strict=True), start=1
                )
                if i and line >= attempt.first_line and line not in attempt.errors
            ]
            attempt.ids = tuple(i for i, _ in known)
            self._acknowledge(attempt.operation, known)

    # --- reading -----------------------------------------------------------------------------

    async def _read(self, operation: Operation) -> None:
        known = self._ids_of.get(operation.target, ())
        for order_id in known[:2] or (NEVER,):
            await self.read(
                order_id, operation.api, status=operation.kind == "status", hot=operation.hot
            )

    async def read(self, order_id: str, api: int, *, status: bool = False, hot: bool = True) -> int:
        """Ask for an order and write down the answer; return its status, 0 for none."""
        asked_at = self._loop.now
        path = f"/api/orders/{order_id}" + ("/status" if status else "")
        answer = await self._ask(api, "GET", path, {}, Body([]), hot=hot and not status)
        reading = Reading(order_id, asked_at, answer.status)
        if answer.status == 200 and not status:
            reading.name = answer.json()["product_name"]
            self.history.acknowledge(order_id, reading.name, self._loop.now)
        self.history.readings.append(reading)
        return answer.status or 0

    async def _look(self, operation: Operation) -> None:
        path = "/api/orders?limit=20" if operation.kind == "page" else "/api/search?q=o"
        answer = await self._ask(operation.api, "GET", path, {}, Body([]))
        if answer.status == 200 and operation.kind == "page":
            for order in answer.json()["orders"]:
                self.history.acknowledge(order["id"], order["product_name"], self._loop.now)

    async def _letters(self, operation: Operation) -> None:
        listed = await self._ask(operation.api, "GET", "/api/admin/dead-letters", {}, Body([]))
        if listed.status != 200:
            return
        for letter in listed.json()["letters"][:2]:
            act = "discard" if operation.discard else "replay"
            if operation.discard:
                self._may_be_discarded(letter["unit_id"])
            path = f"/api/admin/dead-letters/{letter['id']}/{act}"
            await self._ask(operation.api, "POST", path, {}, Body([]))

    def _may_be_discarded(self, unit_id: str | None) -> None:
        """Note whose letters an operator is about to discard: a unit's go together."""
        for row in self._world.record.letters.values():
            if unit_id is not None and str(row.letter.unit_id) == unit_id:
                self.history.discarded.add(str(row.letter.order_id))

    # --- HTTP --------------------------------------------------------------------------------

    async def _ask(
        self,
        api: int,
        method: str,
        target: str,
        headers: dict[str, str],
        body: Body,
        *,
        hot: bool = False,
    ) -> Answer:
        process = self._world.apis[api % len(self._world.apis)]
        if not process.takes_requests:
            return REFUSED_CONNECTION
        key = {name.lower(): value for name, value in key_headers(target).items()}
        headers = {**headers, **key}
        request = Request(self._world, process, method, target, headers=headers, body=body)
        answer = await request.send(hot=hot)
        if answer.status == 500:
            self.history.wrong.append(f"500 for {method} {target}")
        return answer


def amount_of(name: str) -> str:
    """Return the amount that goes with a name: other content, other amount."""
    return f"{1 + sum(name.encode()) % 89}.{len(name):02d}"


def _first_not_accepted(answer: Answer, first: int) -> int:
    return int((answer.json() or {}).get("first_line_not_accepted", first))


class Request:
    """One HTTP request to one API process, over a connection that ends with either side."""

    def __init__(
        self,
        world: World,
        process: ApiProcess,
        method: str,
        target: str,
        *,
        headers: dict[str, str],
        body: Body,
    ) -> None:
        self._world = world
        self._loop = world.loop
        self._process = process
        self._method = method
        self._target = target
        self._headers = headers
        self._body = body
        self._answer: asyncio.Future[Answer] = world.loop.create_future()
        self._gone: asyncio.Event = asyncio.Event()
        self._chunk = 0
        self._status = 0
        self._reply_headers: Any = ()

    async def send(self, *, hot: bool) -> Answer:
        """Return what is heard within a client's patience."""
        process = self._process
        process.on_end.append(self._hang_up)
        process.opened(1)
        serve = self._serve_hot() if hot else self._serve()
        task = self._loop.start(process.execution, serve)
        task.add_done_callback(self._served)
        self._loop.world_later(PATIENCE_SECONDS, self._hang_up)
        answer = await self._answer
        self._world.network.note("client", f"{self._method} {self._target} {answer.status}")
        return answer

    def _hang_up(self) -> None:
        if not self._answer.done():
            self._gone.set()
            self._answer.set_result(NOTHING)

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._process.opened(-1)
        if self._hang_up in self._process.on_end:
            self._process.on_end.remove(self._hang_up)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.failures.append(f"{self._method} {self._target}: {error!r}")
        self._loop.world_later(0.05, self._hang_up)

    def _heard(self, answer: Answer) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    async def _reach(self, step: Step) -> None:
        """Let a fault strike at a moment of this request."""
        network = self._world.network
        fault = network.meet(step)
        if fault is not None:
            network.strike(fault, self._process)
            await asyncio.sleep(0)

    async def _reply(self, answer: Answer) -> None:
        await self._reach(steps.ANSWER)
        self._loop.world_later(0.0005, self._heard, answer)

    # --- by the lane for plain requests ------------------------------------------------------

    async def _serve_hot(self) -> None:
        await self._reach(steps.REQUEST)
        found = self._process.hot.match(self._method.encode(), self._target.encode())
        if found is None:
            await self._serve()
            return
        reply = found.answer(b"".join(self._body.chunks))
        while isinstance(reply, Pending):
            await asyncio.wait([reply.done])
            reply = reply.render(reply.done)
        status, headers, body = reply
        await self._reply(Answer(status, body, headers))

    # --- through the framework ---------------------------------------------------------------

    async def _serve(self) -> None:
        await self._reach(steps.REQUEST)
        url = urlsplit(self._target)
        headers = [(b"host", b"localhost")]
        headers += [(name.encode(), value.encode()) for name, value in self._headers.items()]
        if self._body.chunks:
            headers.append((b"transfer-encoding", b"chunked"))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
        }
        await self._process.app(scope, self._receive, self._emit)

    async def _receive(self) -> Any:
        body = self._body
        if self._chunk and "import" in self._target:
            await self._reach(steps.IMPORT_CHUNK)
            if body.pause_seconds:
                await asyncio.sleep(body.pause_seconds)
        if self._gone.is_set():
            return _HANG_UP
        if body.cut_after and self._chunk >= body.cut_after:
            self._loop.world_later(0.0, self._hang_up)
            return _HANG_UP
        if self._chunk >= len(body.chunks):
            await self._gone.wait()
            return _HANG_UP
        chunk = body.chunks[self._chunk]
        self._chunk += 1
        more = self._chunk < len(body.chunks) or bool(body.cut_after)
        return {"type": "http.request", "body": chunk, "more_body": more}

    async def _emit(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._reply_headers = message["headers"]
        elif not message.get("more_body", False):
            await self._reply(Answer(self._status, message.get("body", b""), self._reply_headers))
