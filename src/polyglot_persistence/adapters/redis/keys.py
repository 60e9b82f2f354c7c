"""Every Redis key of the cache, in one place, so that they can be sharded by hash tag later."""

from typing import Final
from uuid import UUID

from polyglot_persistence.domain.order import id_text

DIRTY: Final = b"polyglot:dirty"
"""Sorted set of dirty order ids, each with the microsecond of its acceptance."""

_EPOCH: Final = b"polyglot:epoch"

WARM_TOKEN: Final = b"polyglot:warm-token"
"""Stored by the worker that ends a cold time; gone if the cache is wiped meanwhile."""

FENCE: Final = b"polyglot:fence"
"""Written before WAIT: if it is replicated, so are all earlier writes."""

REPLICATED: Final = b"polyglot:replicated"
"""Number of replicas seen at once, kept for an hour: a server forgets one that leaves."""

COMPARED: Final = b"polyglot:compared"
"""Position of the record that all entries were last compared to; as durable as the entries."""

_ENTRY: Final = b"polyglot:order:"

ID_BEGIN: Final = len(_ENTRY) + 1
"""Where an order's id begins in the key of its entry, counted from 1 as in Lua."""

EVERY_ENTRY: Final = _ENTRY + b"*"
"""The pattern of all keys that `entry` returns."""


def epoch(reign: str) -> bytes:
    """Return the key of the copy of the cache epoch; the original is in PostgreSQL.

    Each reign of a server has its own copy. So there is none after a restart, which may have lost
    the end of the log, or after a failover, which may have lost unreplicated writes.
    """
    return b"%b:%b" % (_EPOCH, reign.encode())


def entry(order_id: UUID) -> bytes:
    """Return the key of an order's entry (`codec.encode_entry`)."""
    return _ENTRY + id_text(order_id)


def member(entry_key: bytes) -> bytes:
    """Return the order id as in the dirty set, from the key of its entry."""
    return entry_key[len(_ENTRY) :]
