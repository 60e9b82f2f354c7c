"""The whole table of routes, with what is published about each.

Plain requests for the two hot ones (marked) are answered before the framework, see `hot.py`; here
stand the same functions for every other request.
"""

from collections.abc import Sequence
from typing import NamedTuple

from polyglot_persistence.api.dead_letters import descriptions as about_letters
from polyglot_persistence.api.dead_letters.handlers import DeadLetterRoutes
from polyglot_persistence.api.orders import descriptions as about_orders
from polyglot_persistence.api.orders.handlers import OrderRoutes
from polyglot_persistence.api.orders.importing import ImportRoute
from polyglot_persistence.api.sales import descriptions as about_sales
from polyglot_persistence.api.sales.handlers import SalesRoutes
from polyglot_persistence.api.search import descriptions as about_search
from polyglot_persistence.api.search.handlers import SearchRoutes
from polyglot_persistence.api.service import descriptions as about_service
from polyglot_persistence.api.service.dashboard.page import PageRoutes
from polyglot_persistence.api.service.handlers import ServiceRoutes
from polyglot_persistence.api.service.live import LiveRoute
from polyglot_persistence.api.web.descriptions import Operation
from polyglot_persistence.api.web.endpoint import Handler
from polyglot_persistence.domain.access import Scope

_LETTERS = "/api/admin/dead-letters"

_PUBLIC, _READ, _WRITE, _ADMIN = Scope


class Route(NamedTuple):
    """A method on a path: who may ask, what answers, and its description."""

    method: str
    path: str
    scope: Scope
    handler: Handler
    about: Operation


class Handlers(NamedTuple):
    """What holds the handlers."""

    orders: OrderRoutes
    imports: ImportRoute
    searches: SearchRoutes
    sales: SalesRoutes
    letters: DeadLetterRoutes
    live: LiveRoute
    service: ServiceRoutes
    page: PageRoutes


def route_table(handlers: Handlers) -> Sequence[Route]:
    """Return every route."""
    orders, imports, searches, sales, letters, live, service, page = handlers
    return (
        Route("POST", "/api/orders", _WRITE, orders.create, about_orders.CREATE_ORDER),  # hot
        Route("GET", "/api/orders", _READ, orders.page, about_orders.LIST_ORDERS),
        Route("POST", "/api/orders/import", _WRITE, imports.run, about_orders.IMPORT_ORDERS),
        Route("GET", "/api/orders/{id}", _READ, orders.read, about_orders.READ_ORDER),  # hot
        Route("GET", "/api/orders/{id}/status", _READ, orders.status, about_orders.ORDER_STATUS),
        Route("POST", "/api/bulk-orders", _WRITE, orders.create_bulk, about_orders.CREATE_BULK),
        Route("GET", "/api/search", _READ, searches.search, about_search.SEARCH),
        Route("GET", "/api/search/suggest", _READ, searches.suggest, about_search.SUGGEST),
        Route("GET", "/api/dashboard/sales", _READ, sales.dashboard, about_sales.DASHBOARD),
        Route("GET", "/api/sales", _READ, sales.by_period, about_sales.BY_PERIOD),
        Route("GET", "/api/sales/products", _READ, sales.products, about_sales.TOP_PRODUCTS),
        Route("GET", "/api/live", _READ, live.stream, about_service.LIVE_FIGURES),
        Route("POST", "/api/admin/refresh", _ADMIN, sales.refresh, about_sales.REFRESH),
        Route("GET", _LETTERS, _ADMIN, letters.page, about_letters.LIST),
        Route("POST", f"{_LETTERS}/replay", _ADMIN, letters.replay_some, about_letters.REPLAY_SOME),
        Route(
            "POST", f"{_LETTERS}/discard", _ADMIN, letters.discard_some, about_letters.DISCARD_SOME
        ),
        Route("GET", f"{_LETTERS}/{{id}}", _ADMIN, letters.read, about_letters.READ),
        Route("POST", f"{_LETTERS}/{{id}}/replay", _ADMIN, letters.replay, about_letters.REPLAY),
        Route("POST", f"{_LETTERS}/{{id}}/discard", _ADMIN, letters.discard, about_letters.DISCARD),
        Route("GET", "/metrics", _READ, service.metrics, about_service.METRICS),
        Route("GET", "/health/live", _PUBLIC, service.live, about_service.LIVE),
        Route("GET", "/health/ready", _PUBLIC, service.ready, about_service.READY),
        Route("GET", "/openapi.json", _PUBLIC, service.openapi, about_service.OPENAPI),
        Route("GET", "/docs", _PUBLIC, service.docs, about_service.DOCS),
        Route("GET", "/docs/{asset}", _PUBLIC, service.docs_asset, about_service.DOCS_ASSET),
        Route("GET", "/problems", _PUBLIC, service.problems, about_service.PROBLEMS),
        Route("GET", "/", _PUBLIC, page.page, about_service.PAGE),
        Route("GET", "/page/{part}", _PUBLIC, page.part, about_service.PAGE_PART),
    )
