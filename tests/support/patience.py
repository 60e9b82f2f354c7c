"""How long tests go on asking a store that is there and does not do what it is told.

A machine that does much else, or a store that has just been under fault, is slow and refuses for a
while; one try with a deadline of its own would make that a failure of the test. What is asked for
has to be harmless if it is done twice.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import hiredis
from elasticsearch import ApiError, TransportError

from polyglot_persistence.errors import PolyglotError
from tests.support.eventually import eventually

T = TypeVar("T")

BUSY_SECONDS = 180.0
"""More than a store was ever seen to need, also one that has to recover first."""

NOT_WELL = (
    OSError,  # TimeoutError is one
    EOFError,
    AssertionError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    hiredis.HiredisError,
    ApiError,
    TransportError,
    PolyglotError,
    ValueError,  # tantivy's, of an index that is being replaced
)
"""What a store answers that is not well, or how it fails to."""


async def patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat `attempt`, each time by connections of its own, until the store has done it."""
    return await eventually(attempt, within_seconds=BUSY_SECONDS, retried=NOT_WELL)
