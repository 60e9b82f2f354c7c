"""Search, sales, audit and rebuilds with all real order lines, on both deployments.

```
  load --> ask --> audit --> rebuild search and sales --> plant drift --> audit --repair --> audit
                             `---- orders arrive -----'                   `-- orders arrive --'
```
"""

import time
from collections.abc import Mapping, Sequence

from bench import asking, drift
from bench.benches.drain import check
from bench.benches.embedded import deployment
from bench.beside import Watched, beside, orders_arrive, searches_stay_right, told
from bench.context import Context
from bench.figures import Figure
from bench.orders import words_of
from bench.stand import CommandError, Done, Stand
from bench.stock import settled

ORDERS_MAX: int | None = None
"""Fewer, while the bench itself is worked on."""

FASTEST = "1000000"
"""Orders a second at most: as fast as it goes."""

_BUSIEST_DAY = """
    SELECT day::text, (day + 1)::text, sum(orders)::bigint FROM sales_product_days
    GROUP BY day ORDER BY 3 DESC, 1 LIMIT 1
"""


async def run(context: Context) -> Sequence[Figure]:
    """Measure."""
    product = context.product
    await product.wipe()
    on_servers = await _figures(Stand(context, product, "servers", 500))
    await product.wipe()  # its orders are none that other benches count on
    async with deployment(context) as embedded:
        return on_servers + await _figures(Stand(context, embedded, "embedded", 200))


async def _figures(stand: Stand) -> list[Figure]:
    return [
        *await _load(stand),
        *await asking.figures(stand),
        *await _audit(stand),
        *await _rebuild(stand),
        *await _repair(stand),
    ]


async def _load(stand: Stand) -> list[Figure]:
    """Send the orders; the command itself compares every day to the cent."""
    side = stand.side
    limit = () if ORDERS_MAX is None else ("--limit", str(ORDERS_MAX))
    made = await stand.polyglot("api-keys", "new", "bench", "--scopes", "read,write,admin")
    await side.start_api(
        {"API_KEYS": made.told["line"]}
    )  # it refreshes the sales, as an operator may
    await side.worker.start()
    began = time.perf_counter()
    done = await stand.polyglot(
        *("load", "completejourney", "--url", side.url, *limit),
        more={"POLYGLOT_API_KEY": made.told["key"]},
    )
    orders, sent_seconds = done.told["orders"], done.told["seconds"]
    await settled(side)
    seconds = time.perf_counter() - began
    await check(side, orders)
    await side.api.stop()
    await side.start_api()  # without keys, as in every other bench
    return [
        stand.figure(f"load, {orders:,} accepted", "orders/s", orders / sent_seconds),
        stand.figure("load, until all is searchable", "orders/s", orders / seconds),
    ]


async def _audit(stand: Stand) -> list[Figure]:
    done = await stand.polyglot("audit")
    _clean(done, {}, repaired=False)
    return [stand.figure("audit", "s", done.seconds)]


async def _rebuild(stand: Stand) -> list[Figure]:
    """Rebuild search and sales while orders arrive; searches are right all the time."""
    side = stand.side
    watched = await _watched(stand)
    arrive = orders_arrive(side.url, stand.context.files.singles, stand.orders_per_second)
    async with beside(arrive, searches_stay_right(side.url, watched)):
        search = await stand.polyglot("search", "rebuild", "--rate", FASTEST)
    if "orders" not in search.told:
        raise CommandError(f"the index was not rebuilt by the command: {search.told}")
    stand.context.tell(f"searches while their index was rebuilt: {told(watched)}")
    async with beside(arrive):
        sales = await stand.polyglot("sales", "rebuild")
    if any(sales.told["repaired"].values()):
        raise CommandError(f"the sales were wrong before they were rebuilt: {sales.told}")
    await settled(side)
    await check(side, await side.orders())
    return [
        stand.figure("rebuild of search", "s", search.seconds),
        stand.figure(
            "rebuild of search, documents", "documents/s", search.told["orders"] / search.seconds
        ),
        stand.figure("rebuild of sales", "s", sales.seconds),
    ]


async def _watched(stand: Stand) -> list[Watched]:
    """Return a search for a day of the data set, and one for a word that is ordered all the time.

    How many orders there are says the record, not the index that is to be watched.
    """
    ((first, end, orders),) = await stand.side.record.fetch(_BUSIEST_DAY)
    bought = await stand.ordered()
    word = words_of(max(bought, key=lambda name: bought[name]))[0].lower()
    exactly = sum(times for name, times in bought.items() if word in words_of(name.lower()))
    question = "/api/search?limit=1&facets=true"  # with facets every order is counted
    return [
        Watched(f"{question}&from={first}T00:00:00Z&to={end}T00:00:00Z", orders),
        Watched(f"{question}&q={word}", exactly, may_grow=True),
    ]


async def _repair(stand: Stand) -> list[Figure]:
    """Plant drift of every kind; let it be found and repaired while orders arrive."""
    side = stand.side
    await side.worker.stop()
    planted = await drift.spoil(side)
    await side.worker.start()
    stand.context.tell(f"{sum(planted.values()):,} planted")
    arrive = orders_arrive(side.url, stand.context.files.singles, stand.orders_per_second)
    async with beside(arrive):
        done = await stand.polyglot("audit", "--repair")
        _clean(done, planted, repaired=True)
        _clean(await stand.polyglot("audit"), {}, repaired=False)
    return [stand.figure("1,000 of each drift repaired", "s", done.seconds)]


def _clean(done: Done, planted: Mapping[str, int], *, repaired: bool) -> None:
    """Compare an audit's report with what was planted.

    Raises:
        CommandError: naming what it found or repaired otherwise, or did not compare.
    """
    wrong = list(drift.unlike(planted, done.told["drift"], repaired=repaired))
    if wrong or done.told["not_compared"]:
        raise CommandError(f"the audit: {', '.join(wrong)} {done.told['not_compared']}")
