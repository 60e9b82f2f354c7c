"""Checksum of an order's content, for comparing stores.

PostgreSQL computes the same number (its function `order_checksum`); a search document carries it.
Sums of it do not depend on the order of rows, and stay exact for two million orders in a binary
float, which engines add in.

Invariant: a change of what `checksum` returns is a change of the form of both search indexes.
"""

import hashlib

from polyglot_persistence.domain.order import Order, id_text, to_micros


def checksum(order: Order) -> int:
    """Return 32 bits of the SHA-256 of id, cents, microsecond and name: the whole order.

    Raises:
        ValueError: the name cannot be encoded in UTF-8.
    """
    cents = int(order.amount.scaleb(2))
    micros = to_micros(order.created_at)
    return checksum_of(id_text(order.id), cents, micros, order.product_name.encode())


def checksum_of(order_id: bytes, cents: int, micros: int, name: bytes) -> int:
    """Same as `checksum`, from encoded parts: the id's text and the name in UTF-8."""
    digest = hashlib.sha256(b"%b %d %d %b" % (order_id, cents, micros, name)).digest()
    return int.from_bytes(digest[:4], "big")
