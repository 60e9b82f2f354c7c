"""A process that indexes into a directory for ever; it prints each id once it is committed."""

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

from polyglot_persistence.adapters.tantivy.index import TantivyIndex
from polyglot_persistence.domain.order import Order, new_id
from polyglot_persistence.ports.orders import StoredOrder
from tests.support.orders import START


async def main(directory: Path) -> None:
    """Index batches of three."""
    index = TantivyIndex(directory, search_timeout_seconds=5, index_timeout_seconds=20)
    while True:
        orders = [Order(new_id(), "Milk", Decimal("1.00"), START) for _ in range(3)]
        await index.index([StoredOrder(order, START, START) for order in orders])
        print(*(order.id for order in orders), sep="\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
