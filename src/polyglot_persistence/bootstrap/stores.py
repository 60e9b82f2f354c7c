"""Which adapter stands behind which port, by the schemes of the addresses in the settings."""

import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from polyglot_persistence.config import Settings
from polyglot_persistence.errors import ConfigurationError
from polyglot_persistence.flows.watch.health import Pingable
from polyglot_persistence.ports.audit import AuditedRecord, CacheContents, SearchContents
from polyglot_persistence.ports.cache import Cache
from polyglot_persistence.ports.dead_letters import DeadLetters
from polyglot_persistence.ports.queue import Queue
from polyglot_persistence.ports.rebuild import RebuildRecord, RebuildTarget
from polyglot_persistence.ports.record import Record
from polyglot_persistence.ports.sales import SalesView
from polyglot_persistence.ports.search import SearchIndex

if TYPE_CHECKING:
    from polyglot_persistence.adapters.redis.client import RedisClient


SEARCH_ALIAS = "orders"
"""As the Go peer calls its index, so that its Kibana views go on working."""


class AuditStores(NamedTuple):
    """What an audit asks of the same stores."""

    record: AuditedRecord
    contents: SearchContents
    entries: CacheContents


class Stores(NamedTuple):
    """The adapters of one process; `close` ends them all, in order."""

    cache: Cache
    queue: Queue
    record: Record
    letters: DeadLetters
    sales: SalesView
    search: SearchIndex
    audit: AuditStores
    rebuild_record: RebuildRecord
    rebuild_target: RebuildTarget
    migrate: Callable[[], Awaitable[Sequence[str]]]
    close: Callable[[], Awaitable[None]]

    def pingable(self) -> Mapping[str, Pingable]:
        """Return the four stores by the role that they play."""
        return {
            "cache": self.cache,
            "queue": self.queue,
            "record": self.record,
            "search": self.search,
        }


def connect(settings: Settings) -> Stores:
    """Return the adapters that the settings name; nothing is connected before its first use."""
    from polyglot_persistence.adapters.postgres.audit import PostgresAudit
    from polyglot_persistence.adapters.postgres.dead_letters import PostgresDeadLetters
    from polyglot_persistence.adapters.postgres.migrate import migrate as apply_migrations
    from polyglot_persistence.adapters.postgres.pool import PostgresPool
    from polyglot_persistence.adapters.postgres.rebuild import PostgresRebuildRecord
    from polyglot_persistence.adapters.postgres.record import PostgresRecord
    from polyglot_persistence.adapters.postgres.sales import PostgresSalesView
    from polyglot_persistence.adapters.redis.cache import RedisCache
    from polyglot_persistence.adapters.redis.contents import RedisContents

    resources = AsyncExitStack()
    pool = PostgresPool(
        settings.postgres_dsn,
        size_max=settings.postgres_pool_size,
        connect_timeout_seconds=settings.postgres_connect_timeout_seconds,
        statement_timeout_seconds=settings.postgres_statement_timeout_seconds,
    )
    resources.push_async_callback(pool.close)
    client = _redis_client(settings, settings.redis_addr, settings.redis_ca_file)
    resources.push_async_callback(client.close)
    search, target, contents = _search(settings, resources)
    return Stores(
        RedisCache(
            client,
            clean_ttl_seconds=settings.clean_ttl_seconds,
            durable=settings.cache_durable,
        ),
        _queue(settings, resources),
        PostgresRecord(pool),
        PostgresDeadLetters(pool),
        PostgresSalesView(pool),
        search,
        AuditStores(PostgresAudit(pool), contents, RedisContents(client)),
        PostgresRebuildRecord(pool),
        target,
        lambda: apply_migrations(settings.postgres_dsn),
        resources.aclose,
    )


def _authority(ca_file: Path | None) -> ssl.SSLContext | None:
    """Return what verifies a server, and its name; None: what verifies by the machine's own.

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"{ca_file} is no PEM file of certificates: {error}") from error


def _redis_client(settings: Settings, address: str, ca_file: Path | None) -> "RedisClient":
    from polyglot_persistence.adapters.redis.client import RedisClient

    return RedisClient(
        address,
        authority=_authority(ca_file),
        connect_timeout_seconds=settings.redis_connect_timeout_seconds,
        command_timeout_seconds=settings.redis_command_timeout_seconds,
    )


def _queue(settings: Settings, resources: AsyncExitStack) -> Queue:
    if settings.queue_adapter == "rabbitmq":
        return _rabbitmq(settings, resources)
    from polyglot_persistence.adapters.valkey_streams.queue import ValkeyStreamsQueue

    def connected() -> "RedisClient":
        return _redis_client(settings, settings.rabbitmq_url, settings.rabbitmq_ca_file)

    client = connected()
    resources.push_async_callback(client.close)
    return ValkeyStreamsQueue(
        client,
        connected,
        claim_idle_seconds=settings.persist.delivery_hold_seconds_max,
    )


def _rabbitmq(settings: Settings, resources: AsyncExitStack) -> Queue:
    with _extra("servers"):
        from polyglot_persistence.adapters.rabbitmq.queue import RabbitMQQueue

    queue = RabbitMQQueue(
        settings.rabbitmq_url,
        management_url=settings.rabbitmq_management_url,
        authority=_authority(settings.rabbitmq_ca_file),
        connect_timeout_seconds=settings.queue_connect_timeout_seconds,
        publish_timeout_seconds=settings.queue_publish_timeout_seconds,
    )
    resources.push_async_callback(queue.close)
    return queue


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra is missing if a driver cannot be imported.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the driver {error.name} is not installed: pip install 'polyglot-persistence[{name}]'"
        ) from error


def _search(
    settings: Settings, resources: AsyncExitStack
) -> tuple[SearchIndex, RebuildTarget, SearchContents]:
    if settings.search_directory is None:
        return _elasticsearch(settings, resources)
    from polyglot_persistence.adapters.tantivy.contents import TantivyContents
    from polyglot_persistence.adapters.tantivy.index import TantivyIndex
    from polyglot_persistence.adapters.tantivy.rebuild import TantivyTarget

    current, building = (
        TantivyIndex(
            settings.search_directory,
            role=role,
            search_timeout_seconds=settings.search_timeout_seconds,
            index_timeout_seconds=settings.index.index_timeout_seconds,
        )
        for role in ("current", "building")
    )
    resources.push_async_callback(current.close)
    resources.push_async_callback(building.close)
    return current, TantivyTarget(current, building), TantivyContents(current)


def _elasticsearch(
    settings: Settings, resources: AsyncExitStack
) -> tuple[SearchIndex, RebuildTarget, SearchContents]:
    with _extra("servers"):
        from polyglot_persistence.adapters.elasticsearch.connection import Credentials
        from polyglot_persistence.adapters.elasticsearch.contents import ElasticsearchContents
        from polyglot_persistence.adapters.elasticsearch.index import ElasticsearchIndex
        from polyglot_persistence.adapters.elasticsearch.rebuild import ElasticsearchTarget

    authority = _authority(settings.elasticsearch_ca_file)
    current, building = (
        ElasticsearchIndex(
            settings.elasticsearch_url,
            alias=alias,
            credentials=Credentials(
                api_key=settings.elasticsearch_api_key,
                certificate_authority=authority,
            ),
            search_timeout_seconds=settings.search_timeout_seconds,
            index_timeout_seconds=settings.index.index_timeout_seconds,
        )
        for alias in (SEARCH_ALIAS, f"{SEARCH_ALIAS}-building")
    )
    resources.push_async_callback(current.close)
    resources.push_async_callback(building.close)
    target = ElasticsearchTarget(current, building, shards=settings.elasticsearch_shards)
    return current, target, ElasticsearchContents(current)
