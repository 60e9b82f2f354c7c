"""The real servers that tests may use: a variable for tests alone names each (`TEST_...`).

So no test meets a server that is in use by something else.

Invariant: a test has a database, a queue and keys of its own; what it makes, it removes.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from elasticsearch import AsyncElasticsearch

from polyglot_persistence.adapters.rabbitmq.queue import QUEUE_DEFAULT
from polyglot_persistence.bootstrap.stores import SEARCH_ALIAS
from tests.support.queues import delete_queue
from tests.support.servers import flush, fresh_database

REDIS_DATABASE = 1
"""Others than tests of this project are more likely to use the first one, 0."""


def address_of(variable: str) -> str:
    """Return the address of a real server.

    Without one the test is skipped, or fails where it has to run.
    """
    address = os.environ.get(variable, "")
    if not address and os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"{variable} names no server, and REQUIRE_SERVERS is 1")
    if not address:
        pytest.skip(f"{variable} names no server")
    return address


def redis_address() -> str:
    """Return the URL of the real Redis, with a database for tests alone."""
    return f"redis://{address_of('TEST_REDIS_ADDR')}/{REDIS_DATABASE}"


@asynccontextmanager
async def empty_stores() -> AsyncIterator[dict[str, str]]:
    """Give the settings of a deployment on the real servers, which have nothing of it."""
    redis = redis_address()
    rabbitmq = address_of("TEST_RABBITMQ_URL")
    elasticsearch = address_of("TEST_ELASTICSEARCH_URL")
    await _wipe(redis, rabbitmq, elasticsearch)
    async with fresh_database(address_of("TEST_POSTGRES_DSN")) as postgres:
        yield {
            "POSTGRES_DSN": postgres,
            "REDIS_ADDR": redis,
            "RABBITMQ_URL": rabbitmq,
            "ELASTICSEARCH_URL": elasticsearch,
        }
        await _wipe(redis, rabbitmq, elasticsearch)


async def _wipe(redis: str, rabbitmq: str, elasticsearch: str) -> None:
    await flush(redis)
    await delete_queue(rabbitmq, QUEUE_DEFAULT)
    async with AsyncElasticsearch(elasticsearch, request_timeout=30) as client:
        for name in await client.indices.get(index=f"{SEARCH_ALIAS}-*"):
            await client.indices.delete(index=name)
