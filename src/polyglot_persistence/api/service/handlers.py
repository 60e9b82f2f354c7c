"""Metrics, health and the OpenAPI document."""

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request

from polyglot_persistence.api.service.schemas import LiveOut, ReadyOut, StoreOut
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.endpoint import may_look_inside
from polyglot_persistence.api.web.replies import COMMON_HEADERS, Reply, json_reply
from polyglot_persistence.flows.watch.health import Health, HealthFlow, SharedHealth
from polyglot_persistence.telemetry import REGISTRY


class ServiceRoutes:
    """The routes around the API itself."""

    def __init__(self, health: HealthFlow, description: bytes = b"") -> None:
        self._health = SharedHealth(health)
        self._description = description

    async def metrics(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /metrics: everything in Prometheus's text form."""
        headers = ((b"content-type", CONTENT_TYPE_LATEST.encode()), *COMMON_HEADERS)
        return 200, headers, generate_latest(REGISTRY)

    async def live(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /health/live: 200 while the process runs; it asks no store."""
        return json_reply(200, LiveOut())

    async def ready(self, request: Request, _body: BodyReader) -> Reply:
        """GET /health/ready: 200 while orders can be accepted; for operators, each store's state.

        The stores are asked at most about once a second, however many requests come.
        """
        health = await self._health.check()
        is_operator = may_look_inside(request)
        out = stores_out(health, True) if is_operator else mode_out(health)
        return json_reply(200 if health.accepting else 503, out)

    async def openapi(self, _request: Request, _body: BodyReader) -> Reply:
        """GET /openapi.json: the description of this API."""
        return 200, ((b"content-type", b"application/json"), *COMMON_HEADERS), self._description


def mode_out(health: Health) -> ReadyOut:
    """Return the part of health that is public."""
    return ReadyOut("ready" if health.accepting else "not ready", health.mode)


def stores_out(health: Health, is_operator: bool) -> ReadyOut:
    """Return which stores are up and, for an operator, their versions and warnings."""
    stores = {
        name: StoreOut(up=store.state is not None)
        if not is_operator
        else StoreOut(up=False, error="does not answer; see the log")
        if store.state is None
        else StoreOut(
            up=True,
            version=store.state.version,
            warnings=[str(warning) for warning in store.state.warnings],
        )
        for name, store in health.stores.items()
    }
    return msgspec.structs.replace(mode_out(health), stores=stores)
