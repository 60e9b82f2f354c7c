"""The ASGI application: paths to handlers, handlers to flows."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from starlette.routing import Route as FrameworkRoute
from starlette.routing import Router
from starlette.types import ASGIApp

from polyglot_persistence import __version__, tracing
from polyglot_persistence.api.dead_letters.handlers import DeadLetterRoutes
from polyglot_persistence.api.openapi import describe
from polyglot_persistence.api.orders.handlers import OrderRoutes
from polyglot_persistence.api.orders.importing import ImportRoute
from polyglot_persistence.api.protocol.entrance import Entrance
from polyglot_persistence.api.protocol.front import ANY_FRONT, Front
from polyglot_persistence.api.routes import ROUTES, Route
from polyglot_persistence.api.sales.handlers import SalesRoutes
from polyglot_persistence.api.search.handlers import SearchRoutes
from polyglot_persistence.api.service.handlers import ServiceRoutes
from polyglot_persistence.api.service.live import LiveRoute
from polyglot_persistence.api.service.pages import PageRoutes
from polyglot_persistence.api.web.access import Access
from polyglot_persistence.api.web.endpoint import Endpoint, Method, no_route
from polyglot_persistence.api.web.measuring import Traced
from polyglot_persistence.api.web.replies import encode_json
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
    """The flows that handlers call."""

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

    Once `stopping` is set, imports and bulk actions end at their next chunk, waits for persistence
    end with the stage reached so far, and live streams end; other requests run to completion.
    """
    description = encode_json(describe(ROUTES, __version__))
    owners = (
        OrderRoutes(flows.accept, flows.reads, limits, stopping),
        ImportRoute(flows.accept, clock, limits, stopping),
        DeadLetterRoutes(flows.letters, clock, limits, stopping),
        SearchRoutes(flows.search),
        SalesRoutes(flows.sales, clock),
        LiveRoute(flows.live, stopping=stopping),
        ServiceRoutes(flows.health, description),
        PageRoutes(),
    )
    return _router(ROUTES, owners, access, front)


def build_process_app(health: HealthFlow, access: Access, front: Front = ANY_FRONT) -> ASGIApp:
    """Return the application that serves one process's metrics and health."""
    handlers = (ServiceRoutes.metrics, ServiceRoutes.live, ServiceRoutes.ready)
    served = [route for route in ROUTES if route.handler in handlers]
    return _router(served, [ServiceRoutes(health)], access, front)


def _router(
    table: Iterable[Route], owners: Sequence[object], access: Access, front: Front
) -> ASGIApp:
    # One endpoint per path, so that it knows all methods of the path; in the order of the table,
    # where fixed paths come before those with variables.
    paths: dict[str, dict[str, Method]] = {}
    for route in table:
        parameters = [one.name for one in route.about.parameters if one.place == "query"]
        paths.setdefault(route.path, {})[route.method] = Method(
            route.scope, route.bound(owners), None if route.scope is Scope.PUBLIC else parameters
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
