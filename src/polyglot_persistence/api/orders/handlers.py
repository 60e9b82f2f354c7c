"""Handlers that accept and read single orders, bulks and pages of orders."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from starlette.requests import Request

from polyglot_persistence.api.orders.replies import Stage, accepted_reply, read_reply
from polyglot_persistence.api.orders.requests import parse_bulk, parse_order, parse_order_id
from polyglot_persistence.api.orders.schemas import (
    BulkAcceptedOut,
    OrderOut,
    OrderPageOut,
    OrderPageParameters,
    OrderStatusOut,
    cursor_of,
)
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import client_of, next_page, prefix_of
from polyglot_persistence.api.web.replies import Headers, Reply, json_reply, next_link
from polyglot_persistence.api.web.request_headers import (
    Preference,
    check_json,
    parse_idempotency_key,
    parse_prefer,
)
from polyglot_persistence.config.limits import ApiLimits
from polyglot_persistence.errors import NotFoundError, UnavailableError
from polyglot_persistence.flows.intake.accept import Acceptance, AcceptFlow
from polyglot_persistence.flows.reading.read import OrderStatus, ReadFlow
from polyglot_persistence.runtime.until import until
from polyglot_persistence.telemetry import logger

_log = logger("api")


@dataclass
class OrderRoutes:
    """The routes of orders."""

    accept: AcceptFlow
    reads: ReadFlow
    limits: ApiLimits
    stopping: asyncio.Event

    async def create(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/orders: accept one order."""
        check_json(request.headers.get("content-type"))
        key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        content = parse_order(await body.read(self.limits.order_body_bytes_max))
        if key is None:
            order_id, accepted = self.accept.accept_new(content)
            await asyncio.shield(accepted)
            acceptance = Acceptance([order_id], replayed=False)
        else:
            acceptance = await self.accept.accept_keyed(client_of(request), key, content)
        stage, headers = await self._prefer(request, acceptance)
        return accepted_reply(acceptance.ids[0], stage, headers, prefix_of(request))

    async def create_bulk(self, request: Request, body: BodyReader) -> Reply:
        """POST /api/bulk-orders: accept several orders as one unit."""
        check_json(request.headers.get("content-type"))
        key = parse_idempotency_key(request.headers.getlist("idempotency-key"))
        orders = parse_bulk(await body.read(self.limits.body_bytes_max))
        acceptance = await self.accept.accept_bulk(client_of(request), key, orders)
        stage, headers = await self._prefer(request, acceptance)
        out = BulkAcceptedOut(list(acceptance.ids), stage)
        return json_reply(201 if stage == "persisted" else 202, out, headers)

    async def read(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/orders/{id}: the order."""
        return read_reply(await self.reads.get(parse_order_id(request.path_params["id"])))

    async def status(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/orders/{id}/status: the stages that the order has reached."""
        out = _status_out(await self.reads.status(parse_order_id(request.path_params["id"])))
        unfinished = out.status in ("processing", "persisted")
        return json_reply(200, out, ((b"retry-after", b"1"),) if unfinished else ())

    async def page(self, request: Request, _body: BodyReader) -> Reply:
        """GET /api/orders: persisted orders, newest first."""
        query = OrderPageParameters(request)
        limit = query.limit
        rows = await self.reads.page(query.cursor, limit + 1)
        orders = [OrderOut.of(row.order) for row in rows[:limit]]
        if len(rows) <= limit:
            return json_reply(200, OrderPageOut(orders))
        cursor = cursor_of(rows[limit - 1].order)
        path = next_page(request, cursor)
        return json_reply(200, OrderPageOut(orders, path, cursor), next_link(path))

    async def _prefer(self, request: Request, acceptance: Acceptance) -> tuple[Stage, Headers]:
        """Wait as `Prefer` asks, and return the stage reached and the headers that say so."""
        headers: list[tuple[bytes, bytes]] = []
        if acceptance.replayed:
            headers.append((b"idempotent-replayed", b"true"))
        preference = parse_prefer(request.headers.getlist("prefer"))
        if applied := self._applied(preference):
            headers.append((b"preference-applied", applied))
        if preference.wait_seconds is None:
            return "processing", headers
        seconds = min(float(preference.wait_seconds), self.limits.prefer_wait_seconds_max)
        return await self._wait(acceptance.ids, seconds), headers

    def _applied(self, preference: Preference) -> bytes:
        if preference.wait_seconds is not None:
            return b"wait=%d" % min(
                preference.wait_seconds, int(self.limits.prefer_wait_seconds_max)
            )
        return b"respond-async" if preference.respond_async else b""

    async def _wait(self, ids: Sequence[UUID], seconds: float) -> Stage:
        """Return the stage reached within `seconds`, or when the server stops.

        Never raises: an accepted order must not be answered with an error.
        """
        try:
            persisted = await until(self.reads.wait_persisted(ids, seconds), self.stopping)
            if persisted is None:
                return "processing"
            if persisted:
                return "persisted"
            # A unit is dead-lettered as a whole, so the status of one member is that of all.
            status = await self.reads.status(ids[0])
        except (UnavailableError, NotFoundError):
            return "processing"
        except Exception as error:  # noqa: BLE001  the orders are durable, whatever looking met
            _log.error("wait_failed", exc_info=error)
            return "processing"
        return "processing" if status.dead is None else "dead-lettered"


def _status_out(status: OrderStatus) -> OrderStatusOut:
    stage: Literal["processing", "persisted", "searchable", "dead-lettered"] = "processing"
    if status.dead is not None:
        stage = "dead-lettered"
    elif status.searchable_at is not None:
        stage = "searchable"
    elif status.persisted:
        stage = "persisted"
    return OrderStatusOut(
        status.order_id,
        stage,
        status.accepted_at,
        status.persisted_at,
        status.searchable_at,
        None if status.dead is None else status.dead.last_at,
        None if status.dead is None else status.dead.letter.reason,
    )
