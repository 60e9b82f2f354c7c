"""Where the real servers are: a variable names each, `scripts/servers test-env` prints them all.

The variables are for tests alone, so that no test meets a server that something else uses. A test
says by `needs` what it cannot do without; `tests/conftest.py` skips it if that is not there.
"""

import os
from collections.abc import Mapping
from typing import Any

import pytest

REDIS = "TEST_REDIS_ADDR"
RABBITMQ = "TEST_RABBITMQ_URL"
RABBITMQ4 = "TEST_RABBITMQ4_URL"
POSTGRES = "TEST_POSTGRES_DSN"
ELASTICSEARCH = "TEST_ELASTICSEARCH_URL"

VARIABLES: Mapping[str, str] = {
    "redis": REDIS,
    "rabbitmq": RABBITMQ,
    "rabbitmq4": RABBITMQ4,
    "postgres": POSTGRES,
    "elasticsearch": ELASTICSEARCH,
}
"""By the name that `scripts/servers` has for the server."""

REDIS_DATABASE = 1
"""Others than tests of this project are more likely to use the first one, 0."""


def needs(*variables: str) -> pytest.MarkDecorator:
    """Mark a test, or a parameter, that these real servers must be there for."""
    return pytest.mark.servers(*variables)


SIMULATED = "simulated"
"""The address of a store that is simulated in this process, a new one for each test."""


def bundled_or_real(variable: str) -> list[Any]:
    """Return the parameters of a fixture that comes once from either."""
    return ["bundled", pytest.param("real", marks=needs(variable))]


SENTINELS = "sentinels"
"""The address of a Valkey with a replica and three Sentinels."""

EVERY_CACHE = pytest.mark.parametrize(
    "redis_address", [*bundled_or_real(REDIS), SENTINELS, SIMULATED], indirect=True
)
"""For tests of what every cache promises."""

SIMULATED_POSTGRES_TOO = pytest.mark.parametrize(
    "postgres_address", [*bundled_or_real(POSTGRES), SIMULATED], indirect=True
)
"""The same of the record."""


BUNDLED_POSTGRES = pytest.mark.parametrize("postgres_address", ["bundled"], indirect=True)
"""For tests of that server."""

BUNDLED = pytest.mark.parametrize(
    ("postgres_address", "redis_address"), [("bundled", "bundled")], indirect=True
)
"""For tests of what lies above the stores: they need not run on each pair of them."""


def missing(item: pytest.Item) -> list[str]:
    """Return the variables that a test needs and that name no server."""
    needed = [name for mark in item.iter_markers("servers") for name in mark.args]
    return [name for name in needed if not os.environ.get(name)]


def address_of(variable: str) -> str:
    """Return the address of a real server, which must be there."""
    address = os.environ.get(variable, "")
    if not address:
        pytest.fail(f"{variable} names no server")
    return address


def redis_url() -> str:
    """Return the URL of the real Redis, with a database for tests alone."""
    return f"redis://{address_of(REDIS)}/{REDIS_DATABASE}"
