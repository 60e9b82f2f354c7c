"""The whole table of routes, with what is published about each.

The fast lane (`hot.py`) answers plain requests for the two routes marked hot; their handlers here
answer all other requests for them, with the same functions.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from starlette.requests import Request

from polyglot_persistence.api.dead_letters import descriptions as letters
from polyglot_persistence.api.dead_letters.handlers import DeadLetterRoutes
from polyglot_persistence.api.orders import descriptions as orders
from polyglot_persistence.api.orders.handlers import OrderRoutes
from polyglot_persistence.api.orders.importing import ImportRoute
from polyglot_persistence.api.sales import descriptions as sales
from polyglot_persistence.api.sales.handlers import SalesRoutes
from polyglot_persistence.api.search import descriptions as search
from polyglot_persistence.api.search.handlers import SearchRoutes
from polyglot_persistence.api.service import descriptions as service
from polyglot_persistence.api.service.handlers import ServiceRoutes
from polyglot_persistence.api.service.live import LiveRoute
from polyglot_persistence.api.service.pages import PageRoutes
from polyglot_persistence.api.web.bodies import BodyReader
from polyglot_persistence.api.web.descriptions import Operation
from polyglot_persistence.api.web.endpoint import Handler
from polyglot_persistence.api.web.replies import Reply
from polyglot_persistence.api.web.streams import Stream
from polyglot_persistence.domain.access import Scope

_LETTERS = "/api/admin/dead-letters"

_PUBLIC, _READ, _WRITE, _ADMIN = Scope


class Route(NamedTuple):
    """A method on a path: the scope it needs, the method of a class that answers, and its texts."""

    method: str
    path: str
    scope: Scope
    handler: Callable[[Any, Request, BodyReader], Awaitable[Reply | Stream]]
    about: Operation

    def bound(self, owners: Iterable[object]) -> Handler:
        """Return the handler, bound to the object whose class defines it."""
        name = self.handler.__name__
        owner = next(one for one in owners if getattr(type(one), name, None) is self.handler)
        return partial(self.handler, owner)


ROUTES = (
    Route("POST", "/api/orders", _WRITE, OrderRoutes.create, orders.CREATE_ORDER),  # hot
    Route("GET", "/api/orders", _READ, OrderRoutes.page, orders.LIST_ORDERS),
    Route("POST", "/api/orders/import", _WRITE, ImportRoute.run, orders.IMPORT_ORDERS),
    Route("GET", "/api/orders/{id}", _READ, OrderRoutes.read, orders.READ_ORDER),  # hot
    Route("GET", "/api/orders/{id}/status", _READ, OrderRoutes.status, orders.ORDER_STATUS),
    Route("POST", "/api/bulk-orders", _WRITE, OrderRoutes.create_bulk, orders.CREATE_BULK),
    Route("GET", "/api/search", _READ, SearchRoutes.search, search.SEARCH),
    Route("GET", "/api/search/suggest", _READ, SearchRoutes.suggest, search.SUGGEST),
    Route("GET", "/api/dashboard/sales", _READ, SalesRoutes.dashboard, sales.DASHBOARD),
    Route("GET", "/api/sales", _READ, SalesRoutes.by_period, sales.BY_PERIOD),
    Route("GET", "/api/sales/products", _READ, SalesRoutes.products, sales.TOP_PRODUCTS),
    Route("GET", "/api/live", _READ, LiveRoute.stream, service.LIVE_FIGURES),
    Route("POST", "/api/admin/refresh", _ADMIN, SalesRoutes.refresh, sales.REFRESH),
    Route("GET", _LETTERS, _ADMIN, DeadLetterRoutes.page, letters.LIST),
    Route("POST", f"{_LETTERS}/replay", _ADMIN, DeadLetterRoutes.replay_some, letters.REPLAY_SOME),
    Route(
        "POST", f"{_LETTERS}/discard", _ADMIN, DeadLetterRoutes.discard_some, letters.DISCARD_SOME
    ),
    Route("GET", f"{_LETTERS}/{{id}}", _ADMIN, DeadLetterRoutes.read, letters.READ),
    Route("POST", f"{_LETTERS}/{{id}}/replay", _ADMIN, DeadLetterRoutes.replay, letters.REPLAY),
    Route("POST", f"{_LETTERS}/{{id}}/discard", _ADMIN, DeadLetterRoutes.discard, letters.DISCARD),
    Route("GET", "/metrics", _READ, ServiceRoutes.metrics, service.METRICS),
    Route("GET", "/health/live", _PUBLIC, ServiceRoutes.live, service.LIVE),
    Route("GET", "/health/ready", _PUBLIC, ServiceRoutes.ready, service.READY),
    Route("GET", "/openapi.json", _PUBLIC, ServiceRoutes.openapi, service.OPENAPI),
    Route("GET", "/docs", _PUBLIC, PageRoutes.docs, service.DOCS),
    Route("GET", "/docs/{asset}", _PUBLIC, PageRoutes.docs_asset, service.DOCS_ASSET),
    Route("GET", "/problems", _PUBLIC, PageRoutes.problems, service.PROBLEMS),
    Route("GET", "/", _PUBLIC, PageRoutes.page, service.PAGE),
    Route("GET", "/page/{part}", _PUBLIC, PageRoutes.part, service.PAGE_PART),
)
