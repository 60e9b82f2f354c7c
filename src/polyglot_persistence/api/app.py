"""The ASGI application: handlers wired to flows, paths to handlers."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from starlette.routing import Route as FrameworkRoute
from starlette.routing import Router
from starlette.types import ASGIApp

from polyglot_persistence import __version__, tracing
from polyglot_persistence.api import descriptions as about
from polyglot_persistence.api.dead_letters.handlers import DeadLetterRoutes
from polyglot_persistence.api.openapi import describe
from polyglot_persistence.api.orders.handlers import OrderRoutes
from polyglot_persistence.api.orders.importing import ImportRoute
from polyglot_persistence.api.protocol.entrance import Entrance
from polyglot_persistence.api.protocol.front import ANY_FRONT, Front
from polyglot_persistence.api.routes import Handlers, Route, route_table
from polyglot_persistence.api.sales.handlers import SalesRoutes
from polyglot_persistence.api.search.handlers import SearchRoutes
from polyglot_persistence.api.service.dashboard.page import PageRoutes
from polyglot_persistence.api.service.handlers import ServiceRoutes
from polyglot_persistence.api.service.live import LiveRoute
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.endpoint import Endpoint, Method, no_route
from polyglot_persistence.api.web.replies import encode_json
from polyglot_persistence.api.web.server_spans import Traced
from polyglot_persistence.config.limits import ApiLimits
from polyglot_persistence.domain.access import Scope
from polyglot_persistence.flows.behind.dead_letters import DeadLetterFlow
from polyglot_persistence.flows.intake.accept import AcceptFlow
from polyglot_persistence.flows.projections.sales import SalesFlow
from polyglot_persistence.flows.projections.search import SearchFlow
from polyglot_persistence.flows.reading.read import ReadFlow
from polyglot_persistence.flows.watch.health import HealthFlow
from polyglot_persistence.flows.watch.live import LiveFlow
from polyglot_persistence.ports.clock import Clock


class Flows(NamedTuple):
    """What the routes call."""

    accept: AcceptFlow
    reads: ReadFlow
    search: SearchFlow
    sales: SalesFlow
    letters: DeadLetterFlow
    health: HealthFlow
    live: LiveFlow


def build_app(
    flows: Flows,
    limits: ApiLimits,
    *,
    clock: Clock,
    stopping: asyncio.Event,
    access: Access,
    front: Front = ANY_FRONT,
) -> ASGIApp:
    """Return the application with every route.

    Once `stopping` is set, imports and bulk actions end at their next chunk, clients that wait for
    persistence are answered with what is reached, and live streams end; everything else runs to its
    end.
    """
    orders = OrderRoutes(
        flows.accept,
        flows.reads,
        order_body_bytes_max=limits.order_body_bytes_max,
        bulk_body_bytes_max=limits.body_bytes_max,
        wait_seconds_max=limits.prefer_wait_seconds_max,
        stopping=stopping,
    )
    imports = ImportRoute(
        flows.accept,
        clock,
        line_bytes_max=limits.import_line_bytes_max,
        rejected_in_a_row_max=limits.import_rejected_in_a_row_max,
        chunk_orders=limits.import_chunk_orders,
        wait_seconds=limits.import_wait_seconds,
        stopping=stopping,
    )
    letters = DeadLetterRoutes(
        flows.letters, clock, body_bytes_max=limits.order_body_bytes_max, stopping=stopping
    )
    service = ServiceRoutes(flows.health)
    searches = SearchRoutes(flows.search)
    sales = SalesRoutes(flows.sales, clock)
    live = LiveRoute(flows.live, stopping=stopping)
    handlers = Handlers(orders, imports, searches, sales, letters, live, service, PageRoutes())
    table = route_table(handlers)
    service.describe(encode_json(describe(table, __version__)))
    return _router(table, access, front)


def build_process_app(health: HealthFlow, access: Access, front: Front = ANY_FRONT) -> ASGIApp:
    """Return what a process tells of itself, on a port of its own: its metrics and its health."""
    service = ServiceRoutes(health)
    return _router(
        [
            Route("GET", "/metrics", Scope.READ, service.metrics, about.METRICS),
            Route("GET", "/health/live", Scope.PUBLIC, service.live, about.LIVE),
            Route("GET", "/health/ready", Scope.PUBLIC, service.ready, about.READY),
        ],
        access,
        front,
    )


def _router(table: Iterable[Route], access: Access, front: Front) -> ASGIApp:
    # One endpoint a path, so that it knows every method that the path takes; in the table's
    # order, in which fixed steps of a path stand before variable ones.
    paths: dict[str, dict[str, Method]] = {}
    for route in table:
        parameters = [one.name for one in route.about.parameters if one.place == "query"]
        paths.setdefault(route.path, {})[route.method] = Method(
            route.scope, route.handler, None if route.scope is Scope.PUBLIC else parameters
        )
    endpoints: dict[str, ASGIApp] = {
        path: Endpoint(path, handlers, access) for path, handlers in paths.items()
    }
    if tracing.is_on():
        endpoints = {path: Traced(path, endpoint) for path, endpoint in endpoints.items()}
    router = Router(
        [FrameworkRoute(path, endpoint) for path, endpoint in endpoints.items()],
        redirect_slashes=False,
        default=no_route,
    )
    return Entrance(router, front)
