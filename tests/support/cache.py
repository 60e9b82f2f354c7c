"""What the tests of the cache share: its fixtures' parts and its expectations."""

from datetime import timedelta
from uuid import UUID

from polyglot_persistence.adapters.redis.client import RedisClient
from polyglot_persistence.domain import codec
from polyglot_persistence.domain.entry import EntryState
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.errors import UnavailableError, UnknownOutcomeError
from polyglot_persistence.ports.cache import Cache, Unit
from polyglot_persistence.ports.record import Record
from tests.support.orders import START

TTL_SECONDS = 3_600
AWAY = (UnavailableError, UnknownOutcomeError)
LATER = START + timedelta(hours=1)


def new_client(url: str, *, timeout_seconds: float = 5.0) -> RedisClient:
    return RedisClient(
        url, connect_timeout_seconds=timeout_seconds, command_timeout_seconds=timeout_seconds
    )


def ids_of(*units: Unit) -> list[UUID]:
    return [member.accepted.order.id for unit in units for member in unit.members]


def entry_of(order: AcceptedOrder, state: EntryState = EntryState.DIRTY) -> bytes:
    return codec.encode_entry(state, order, codec.encode_order(order.order))


async def dirty_ids(cache: Cache) -> list[UUID]:
    entries = await cache.dirty_before(LATER, 100_000)
    return [entry.accepted.order.id for entry in entries]


async def make_warm(store: Record, cache: Cache) -> None:
    """Give the cache the epoch's copy, as if nothing could be missing from it."""
    epoch, _ = await store.found_epoch()
    await cache.begin_warming("test")
    assert await cache.copy_epoch(epoch, "test", (await cache.read([])).reign)
