"""The limits of the pipeline, a section of the settings for each part that owns them.

They are passed on as they are: a limit has one name, from its environment variable to its use.
"""

import dataclasses

from polyglot_persistence.config.fields import count, seconds
from polyglot_persistence.domain.codec import UNIT_SIZE_MAX

_KIB = 1024


@dataclasses.dataclass(frozen=True)
class CommitLimits:
    """Bounds of the write path, in orders and, while the cache is away, in messages."""

    commit_orders_max: int = count(
        2_000, (1, 20_000), "Maximum orders in one group commit; more gains nothing."
    )
    waiting_orders_max: int = count(
        20_000,
        (UNIT_SIZE_MAX, 1_000_000),
        "Maximum orders that wait for a group commit in one API process; above it: 503.",
    )
    dirty_orders_max: int = count(
        200_000,
        (UNIT_SIZE_MAX, 100_000_000),
        "High watermark: above this number of accepted orders that are not yet persisted, the API "
        "answers 503. Redis needs about 1 KB for each.",
    )
    queue_messages_max: int = count(
        20_000,
        (1, 100_000_000),
        "High watermark while Redis is away: above this number of messages waiting in the queue, "
        "the API answers 503. A message holds one order or, under load, hundreds.",
    )


@dataclasses.dataclass(frozen=True)
class ApiLimits:
    """Bounds of requests by their route."""

    order_body_bytes_max: int = count(
        16 * _KIB, (1_024, 1_048_576), "Maximum body size of one order; above it: 413."
    )
    body_bytes_max: int = count(
        1_024 * _KIB, (1_024, 64 * 1_024 * _KIB), "Maximum body size of a bulk; above it: 413."
    )
    import_line_bytes_max: int = count(
        16 * _KIB,
        (1_024, 1_048_576),
        "Maximum length of an import line; a longer line is rejected, the others are not.",
    )
    import_rejected_in_a_row_max: int = count(
        1_000,
        (1, 1_000_000),
        "Number of consecutive rejected lines that ends an import with 422. So many are a wrong "
        "kind of file rather than typing errors, and a rejected line costs more than an accepted "
        "one.",
    )
    import_chunk_orders: int = count(
        500, (1, 10_000), "Number of import lines that are accepted together."
    )
    import_wait_seconds: float = seconds(
        60, (0, 3_600), "Maximum time that an import waits while orders are refused; then it ends."
    )
    prefer_wait_seconds_max: float = seconds(
        30, (0, 300), "Maximum wait that `Prefer: wait=N` can request."
    )


@dataclasses.dataclass(frozen=True)
class PersisterLimits:
    """Bounds of the persister."""

    persist_batch_orders: int = count(
        2_000,
        (1, 20_000),
        "Approximate number of orders in one transaction; a bulk is never divided.",
    )
    consume_orders_max: int = count(
        10_000, (1, 1_000_000), "Approximate number of unacknowledged orders that one worker holds."
    )
    delivery_hold_seconds_max: float = seconds(
        30,
        (1, 900),
        "Maximum time that a worker holds a delivery; it hands back what is not persisted by then.",
    )


@dataclasses.dataclass(frozen=True)
class IndexerLimits:
    """Bounds of the indexer and of a rebuild of the search index."""

    index_batch_orders: int = count(5_000, (1, 50_000), "Maximum orders in one index batch.")
    index_waiting_orders_max: int = count(
        50_000,
        (1, 1_000_000),
        "Maximum persisted orders that wait for indexing in a worker's memory; further ones are "
        "indexed from the outbox.",
    )
    index_timeout_seconds: float = seconds(30, (0.1, 600), "Maximum time for one index batch.")
    outbox_age_seconds: float = seconds(
        10, (0.1, 3_600), "Age at which any worker takes an outbox row."
    )
    outbox_interval_seconds: float = seconds(2, (0.1, 600), "Time between two outbox scans.")
    search_rebuild_orders_per_second: int = count(
        20_000,
        (1, 1_000_000),
        "Maximum orders per second that a rebuild of the search index reads.",
    )
    search_lost_seconds: float = seconds(
        300,
        (1, 86_400),
        "Time that a part of the search index may have no node before a worker builds the index "
        "anew from PostgreSQL. A node that restarts should be back by then.",
    )
