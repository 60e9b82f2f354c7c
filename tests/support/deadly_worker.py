"""A worker that dies of one order; run by path, with the order's product name as its argument.

It stands for whatever a real one may die of: a fault in a driver, a machine out of memory.
"""

import os
import signal
import sys
from collections.abc import Sequence

from polyglot_persistence.adapters.postgres.record import PostgresRecord
from polyglot_persistence.cli import main
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.orders import Persisted

_persist = PostgresRecord.persist


async def _persist_or_die(self: PostgresRecord, batch: Sequence[AcceptedOrder]) -> Persisted:
    if any(one.order.product_name == DEADLY for one in batch):
        os.kill(os.getpid(), signal.SIGKILL)
    return await _persist(self, batch)


if __name__ == "__main__":
    DEADLY = sys.argv[1]
    PostgresRecord.persist = _persist_or_die  # type: ignore[method-assign]
    sys.argv[1:] = ["worker"]
    main()
