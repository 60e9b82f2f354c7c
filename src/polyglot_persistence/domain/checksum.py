"""What stands for the content of an order where stores are compared.

PostgreSQL computes the same number (`queries.sql`); a search document carries it. Sums of it do not
depend on an order of rows, and stay exact in a binary float for two million orders, which is how
engines add.

Invariant: a change of what `checksum` returns is a change of the form of both search indexes.
"""

import hashlib

from polyglot_persistence.domain.order import Order, id_text, to_micros


def checksum(order: Order) -> int:
    """Return 32 bits of the SHA-256 of id, cents, microsecond and name: all that an order is.

    Raises:
        ValueError: the name is no UTF-8.
    """
    cents = int(order.amount.scaleb(2))
    name = order.product_name.encode()
    text = b"%b %d %d %b" % (id_text(order.id), cents, to_micros(order.created_at), name)
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
