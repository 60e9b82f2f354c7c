"""The limits of the pipeline, a section of the settings for each part that owns them.

They are passed on as they are: a limit has one name, from its environment variable to its use.
"""

import dataclasses

from polyglot_persistence.config.fields import count as _count
from polyglot_persistence.config.fields import seconds as _seconds
from polyglot_persistence.domain.codec import UNIT_SIZE_MAX

_KIB = 1024


@dataclasses.dataclass(frozen=True)
class CommitLimits:
    """Bounds of the write path, in orders and, while the cache is away, in messages."""

    commit_orders_max: int = _count(
        2_000, 1, 20_000, "Most orders in one group commit (more gains nothing)."
    )
    waiting_orders_max: int = _count(
        20_000,
        UNIT_SIZE_MAX,
        1_000_000,
        "Most orders that wait in one API process for a group commit; above it: 503.",
    )
    dirty_orders_max: int = _count(
        200_000,
        UNIT_SIZE_MAX,
        100_000_000,
        "High watermark: with more accepted orders than this not yet persisted, the API says 503. "
        "Redis needs about 1 KB for each.",
    )
    queue_messages_max: int = _count(
        20_000,
        1,
        100_000_000,
        "High watermark while Redis is away: with more messages than this waiting in the queue, "
        "the API says 503. A message holds one order or, under load, hundreds.",
    )


@dataclasses.dataclass(frozen=True)
class ApiLimits:
    """Bounds of requests by their route."""

    order_body_bytes_max: int = _count(
        16 * _KIB, 1_024, 1_048_576, "Largest body of one order; above it: 413."
    )
    body_bytes_max: int = _count(
        1_024 * _KIB, 1_024, 64 * 1_024 * _KIB, "Largest body of a bulk; above it: 413."
    )
    import_line_bytes_max: int = _count(
        16 * _KIB, 1_024, 1_048_576, "Longest line of an import; a longer one is rejected alone."
    )
    import_rejected_in_a_row_max: int = _count(
        1_000,
        1,
        1_000_000,
        "Rejected lines in a row that end an import with 422. So many are no slips but another "
        "kind of file, and a rejected line costs more than a good one.",
    )
    import_chunk_orders: int = _count(
        500, 1, 10_000, "Lines of an import that are accepted together."
    )
    import_wait_seconds: float = _seconds(
        60, 0, 3_600, "How long an import waits while orders are refused before it gives up."
    )
    prefer_wait_seconds_max: float = _seconds(30, 0, 300, "Longest `Prefer: wait=N` honoured.")


@dataclasses.dataclass(frozen=True)
class PersisterLimits:
    """Bounds of the persister."""

    persist_batch_orders: int = _count(
        2_000, 1, 20_000, "About how many orders one transaction takes; a bulk is never divided."
    )
    consume_orders_max: int = _count(
        10_000, 1, 1_000_000, "About how many unacknowledged orders one worker holds."
    )
    delivery_hold_seconds_max: float = _seconds(
        30,
        1,
        900,
        "Longest a worker holds a delivery; what is not persisted by then is handed back.",
    )


@dataclasses.dataclass(frozen=True)
class IndexerLimits:
    """Bounds of the indexer and of a rebuild of the search index."""

    index_batch_orders: int = _count(5_000, 1, 50_000, "Most orders in one index batch.")
    index_waiting_orders_max: int = _count(
        50_000,
        1,
        1_000_000,
        "Most persisted orders that wait in a worker's memory to be indexed; the outbox has the "
        "rest.",
    )
    index_timeout_seconds: float = _seconds(30, 0.1, 600, "Longest one index batch takes.")
    outbox_age_seconds: float = _seconds(
        10, 0.1, 3_600, "Age at which an outbox row is worked off by any worker."
    )
    outbox_interval_seconds: float = _seconds(2, 0.1, 600, "Time between two looks at the outbox.")
    search_rebuild_orders_per_second: int = _count(
        20_000, 1, 1_000_000, "Most orders a second that a rebuild of the search index reads."
    )
