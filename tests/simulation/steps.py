"""The steps of the pipeline at which a fault can strike, and the call of a store that each is."""

from typing import Literal, NamedTuple

StoreName = Literal["cache", "queue", "record", "search"]


class Step(NamedTuple):
    """A kind of step: one call of one store, or a moment of an HTTP request."""

    name: str
    store: StoreName | None
    writes: bool = False
    may_end_lost: bool = True
    """Whether its request and its reply can be lost: each call's can, a moment's cannot."""


DEADLINE_SECONDS: dict[StoreName, float] = {
    "cache": 0.4,
    "queue": 0.5,
    "record": 0.8,
    "search": 0.5,
}
"""Longest wait for a reply, as the adapters have it by settings."""


def _calls(store: StoreName, reads: dict[str, str], writes: dict[str, str]) -> dict[str, Step]:
    return {method: Step(name, store) for method, name in reads.items()} | {
        method: Step(name, store, writes=True) for method, name in writes.items()
    }


CACHE = _calls(
    "cache",
    {
        "read": "MGET",
        "dirty_before": "sweep look",
        "backlog": "backlog look",
        "reigns": "reign look",
        "survives_failover": "WAIT",
        "ping": "ping",
        "scan": "audit",
        "compared_to": "audit",
    },
    {
        "accept": "accept script",
        "backfill": "backfill",
        "settle": "settle",
        "forget_dead": "letters",
        "begin_warming": "warm token",
        "offer_token": "warm token",
        "end_warming": "end warming",
        "copy_epoch": "warm copy",
        "set_epoch": "warm copy",
        "keep_compared_to": "audit",
    },
)

QUEUE = _calls(
    "queue",
    {"ready": "queue count", "ping": "ping"},
    {"publish": "publish"},
)

CONSUME = Step("consume", "queue")
DELIVER = Step("deliver", "queue", may_end_lost=False)
ACK = Step("ack", "queue", writes=True)
HAND_BACK = Step("hand back", "queue", writes=True)

RECORD = _calls(
    "record",
    {
        "find": "SELECT",
        "page": "reports",
        "attempted": "suspect row",
        "progress": "reports",
        "epoch": "epoch look",
        "position": "audit",
        "ping": "ping",
    },
    {
        "persist": "persist transaction",
        "bury": "bury",
        "begin_attempts": "suspect row",
        "take_back_attempts": "suspect row",
        "end_attempts": "suspect row",
        "outbox_done": "outbox delete",
        "found_epoch": "epoch look",
        "new_epoch": "epoch raise",
    },
)
LEAD = Step("lead", "record")
CONFIRM = Step("lead", "record")
CLAIM = Step("outbox claim", "record")
CLAIM_END = Step("outbox claim", "record", writes=True)

LETTERS = _calls(
    "record",
    {
        "page": "letters",
        "count": "letters",
        "read": "letters",
        "of_units": "letters",
    },
    {"discard": "letters", "reindex": "letters"},
)
TURN = Step("letters", "record")

SALES = _calls(
    "record",
    {"latest_days": "reports", "refreshed_at": "reports", "live_days": "reports"},
    {"refresh": "reports"},
)

AUDIT = _calls(
    "record",
    {
        "range_from": "audit",
        "checksums_between": "audit",
        "standing": "audit",
        "count_orders": "audit",
        "next_day": "audit",
        "sales_totals": "audit",
        "freshness": "reports",
    },
    {
        "index_again": "audit",
        "compare_day": "audit",
        "count_freshness": "reports",
    },
)

REBUILD = _calls(
    "record",
    {
        "current": "rebuild",
        "orders_after": "rebuild",
        "orders_between": "rebuild",
        "outbox_end": "rebuild",
        "outbox_between": "rebuild",
    },
    {"begin": "rebuild", "advance": "rebuild", "end": "rebuild"},
)
ARRIVALS = Step("rebuild", "record", writes=True)

SEARCH = _calls(
    "search",
    {
        "search": "reports",
        "names": "reports",
        "indexed_at": "reports",
        "ping": "ping",
        "sum_between": "audit",
        "checksums_between": "audit",
        "checksums_of": "audit",
    },
    {"index": "index", "remove": "index"},
)

TARGET = _calls(
    "search",
    {"current_name": "rebuild", "building_name": "rebuild"},
    {
        "begin": "rebuild",
        "show": "rebuild",
        "swap": "rebuild",
        "release": "rebuild",
        "clean_up": "rebuild",
    },
)
FREEZE = Step("rebuild", "search", writes=True)

REQUEST = Step("request", None, may_end_lost=False)
ANSWER = Step("answer", None, may_end_lost=False)
IMPORT_CHUNK = Step("import chunk", None, may_end_lost=False)
