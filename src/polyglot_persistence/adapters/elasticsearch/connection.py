"""One client with its deadlines and the translation of its errors.

Invariant: a cluster of which no node answers is tried at most about every second; calls in between
are refused at once. So a recovery is noticed within a second, and no caller waits during an outage.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from elastic_transport import ApiResponse, ConnectionTimeout
from elastic_transport import ConnectionError as NoConnectionError
from elastic_transport.client_utils import url_to_node_config

from polyglot_persistence.adapters.elasticsearch.client import (
    ApiError,
    AsyncElasticsearch,
    CompatibilityModeJsonSerializer,
    TransportError,
    UnsupportedProductError,
)
from polyglot_persistence.adapters.elasticsearch.nodes import (
    CALL,
    LEFT_OUT_SECONDS_MAX,
    Call,
    NodesTransport,
)
from polyglot_persistence.config.addresses.elasticsearch import node_urls
from polyglot_persistence.errors import UnavailableError
from polyglot_persistence.runtime.pauses import Pauses

T = TypeVar("T")

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 1.0

CONNECTIONS_MAX = 32
"""Concurrent requests; further ones wait, within their deadlines."""


OTHER_PRODUCT_REMEDY = "point ELASTICSEARCH_URL at Elasticsearch 8, or at a directory for tantivy: tantivy:///directory"


class Credentials(NamedTuple):
    """API key and CA of a connection; a user and password are in the URL."""

    api_key: str | None = None
    certificate_authority: ssl.SSLContext | None = None
    """For https; None: the system's own. A certificate is always verified."""


class MissingIndexError(UnavailableError):
    """There is no index that this version can use."""


class BusyError(UnavailableError):
    """The cluster is overloaded (429)."""


class _AsSent(CompatibilityModeJsonSerializer):
    """Leaves responses undecoded: each is decoded once, into the type that is read."""

    def loads(self, data: bytes) -> bytes:
        return data


class Connection:
    """The connection to the cluster; connects when first used."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        # It would log each request, and each failed one as a timeout of its own.
        logging.getLogger("elastic_transport").setLevel(logging.ERROR)
        nodes = [
            url_to_node_config(node, use_default_ports_for_scheme=True)
            for node in dict.fromkeys(node_urls(url))
        ]
        options: dict[str, Any] = {}
        if credentials.api_key is not None:
            options["api_key"] = credentials.api_key
        if credentials.certificate_authority is not None:
            options["ssl_context"] = credentials.certificate_authority
        self._client = AsyncElasticsearch(
            nodes,
            transport_class=NodesTransport,
            max_dead_node_backoff=LEFT_OUT_SECONDS_MAX,
            connections_per_node=CONNECTIONS_MAX,
            max_retries=0,  # retries are up to the caller, and to the code below
            request_timeout=None,  # each call has its own
            serializers=dict.fromkeys((_AsSent.mimetype, "application/json"), _AsSent()),
            **options,
        )
        self._is_alone = len(nodes) == 1
        self._pauses = Pauses(PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX)
        self._paused_until = 0.0
        self._answered_at = 0.0
        self._closed = False

    async def call(
        self,
        request: Callable[[AsyncElasticsearch], Awaitable[ApiResponse[Any]]],
        answer: type[T],
        deadline: float,
        *,
        is_repeatable: bool = True,
    ) -> T:
        """Return the response to one request, by a deadline on the event loop's clock.

        A node that does not answer is passed over for another, unless a second execution of the
        request would fail or do harm (`is_repeatable`).

        Raises:
            MissingIndexError, BusyError: the cluster's answer.
            UnavailableError: no response, or one that is not Elasticsearch's.
        """
        if self._closed:
            raise UnavailableError("Elasticsearch: the connection is closed")
        if time.monotonic() < self._paused_until:
            raise UnavailableError("Elasticsearch: cannot be reached")
        response = await self._answered(request, Call(deadline, is_repeatable))
        try:
            return msgspec.json.decode(response.body, type=answer)
        except (ValueError, TypeError) as error:  # invalid JSON, type, UTF-8 or bytes
            raise UnavailableError(f"Elasticsearch: not its answer: {error}") from error

    async def _answered(
        self, request: Callable[[AsyncElasticsearch], Awaitable[ApiResponse[Any]]], call: Call
    ) -> ApiResponse[Any]:
        """Return the cluster's answer if it is no refusal; note whether the cluster is there."""
        CALL.set(call)
        began = time.monotonic()
        try:
            async with asyncio.timeout_at(call.deadline):
                response = await request(self._client)
        except (TimeoutError, ConnectionTimeout) as error:
            if self._answered_at < began:  # else it was this request that took too long
                self._pause_after(call)
            raise UnavailableError("Elasticsearch: no answer in time") from error
        except NoConnectionError as error:
            self._pause_after(call)
            raise UnavailableError(f"Elasticsearch: {error.message}") from error
        except UnsupportedProductError as error:
            raise UnavailableError(
                f"Elasticsearch: {_product(_decoded(error.body))}", remedy=OTHER_PRODUCT_REMEDY
            ) from error
        except ApiError as error:
            self._has_answered()
            raise meaning(error.status_code, _decoded(error.body)) from error
        except TransportError as error:
            raise UnavailableError(f"Elasticsearch: {error.message}") from error
        self._has_answered()
        return response

    async def close(self) -> None:
        """Close every connection, for good."""
        self._closed = True  # the client would open new ones
        await self._client.close()

    def _has_answered(self) -> None:
        self._pauses.begin_again()
        self._answered_at = time.monotonic()

    def _pause_after(self, call: Call) -> None:
        if call.is_repeatable or self._is_alone:  # else only one of several nodes was tried
            self._paused_until = time.monotonic() + self._pauses.next()


def _decoded(body: Any) -> Any:
    """Return the body of a refusal, by the cluster or by a proxy before it."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, TypeError):
        return body


def _product(body: Any) -> str:
    """Return a sentence that names the other server that has answered."""
    version = body.get("version") if isinstance(body, Mapping) else None
    product = version.get("distribution") if isinstance(version, Mapping) else None
    named = {"opensearch": "OpenSearch"}.get(str(product), "another server")
    return f"this is {named}, not Elasticsearch"


_BUSY = 429
_MISSING = {"index_not_found_exception", "alias_not_found_exception", "aliases_not_found_exception"}


def meaning(status: int, body: Any) -> UnavailableError:
    """Return the error that a refusal means, of a request or of a search among several."""
    kind, reason = error_of(body)
    message = f"Elasticsearch: {status} {kind}: {reason}"
    if status == _BUSY:
        return BusyError(message)
    if kind in _MISSING:
        return MissingIndexError(message)
    return UnavailableError(message)


def error_of(body: Any) -> tuple[str, str]:
    """Return type and reason from the body of a refusal, or of an item of a bulk."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "error", str(error)
    reason = str(error.get("reason"))
    cause = error.get("caused_by")
    if isinstance(cause, Mapping):
        reason = f"{reason}: {cause.get('reason')}"
    return str(error.get("type")), reason
