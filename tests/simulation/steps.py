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
        "ping": "cache ping",
        "scan": "audit scan",
    },
    {
        "accept": "accept script",
        "backfill": "backfill",
        "settle": "settle",
        "forget_dead": "forget dead",
        "begin_warming": "warm token",
        "offer_token": "warm token",
        "end_warming": "end warming",
        "copy_epoch": "warm copy",
        "set_epoch": "first copy",
    },
)

QUEUE = _calls(
    "queue",
    {"ready": "queue count", "ping": "queue ping"},
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
        "page": "page",
        "attempted": "suspect look",
        "progress": "progress look",
        "epoch": "epoch look",
        "ping": "record ping",
    },
    {
        "persist": "persist transaction",
        "bury": "bury",
        "begin_attempts": "suspect begin",
        "take_back_attempts": "suspect end",
        "end_attempts": "suspect end",
        "outbox_done": "outbox delete",
        "found_epoch": "first epoch",
        "new_epoch": "raise epoch",
    },
)
LEAD = Step("lead", "record")
CONFIRM = Step("lead confirm", "record")
CLAIM = Step("outbox claim", "record")
CLAIM_END = Step("outbox work-off", "record", writes=True)

LETTERS = _calls(
    "record",
    {
        "page": "letters look",
        "count": "letters look",
        "read": "letters look",
        "of_units": "letters look",
    },
    {"discard": "discard", "reindex": "reindex"},
)
TURN = Step("turn", "record")

SALES = _calls(
    "record",
    {"latest_days": "sales look", "refreshed_at": "sales look", "live_days": "sales look"},
    {"refresh": "refresh"},
)

AUDIT = _calls(
    "record",
    {
        "range_from": "audit look",
        "checksums_between": "audit look",
        "standing": "audit look",
        "count_orders": "audit look",
        "next_day": "audit look",
        "sales_totals": "audit look",
        "freshness": "freshness",
    },
    {
        "index_again": "audit repair",
        "compare_day": "audit day",
        "count_freshness": "freshness",
    },
)

REBUILD = _calls(
    "record",
    {
        "current": "rebuild look",
        "orders_after": "rebuild fill",
        "sum_from": "rebuild verify",
        "orders_between": "rebuild verify",
        "outbox_end": "rebuild swap",
        "outbox_between": "rebuild swap",
    },
    {"begin": "rebuild begin", "advance": "rebuild fill", "end": "rebuild end"},
)
ARRIVALS = Step("rebuild arrivals", "record", writes=True)

SEARCH = _calls(
    "search",
    {
        "search": "search",
        "names": "search",
        "indexed_at": "search",
        "count": "search",
        "exists": "search",
        "ping": "search ping",
        "sum_between": "audit sum",
        "checksums_between": "audit sum",
        "checksums_of": "audit sum",
    },
    {"index": "index", "remove": "index", "ensure": "index"},
)

TARGET = _calls(
    "search",
    {"current_name": "rebuild look", "building_name": "rebuild look"},
    {
        "begin": "rebuild begin",
        "show": "rebuild verify",
        "swap": "rebuild swap",
        "release": "rebuild end",
        "clean_up": "rebuild end",
    },
)
FREEZE = Step("rebuild swap", "search", writes=True)

REQUEST = Step("request", None, may_end_lost=False)
ANSWER = Step("answer", None, may_end_lost=False)
IMPORT_CHUNK = Step("import chunk", None, may_end_lost=False)
