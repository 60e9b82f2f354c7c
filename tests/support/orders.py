"""Orders for tests: valid, distinct, and cheap to make."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.order import AcceptedOrder, Order, from_micros, new_id
from polyglot_persistence.ports.cache import PreparedOrder, Unit
from polyglot_persistence.ports.queue import Message

START = from_micros(1_763_863_562_123_456)


def accepted(
    second: float = 0.0,
    *,
    order_id: UUID | None = None,
    name: str = "Grüner Tee, 100 g",
    amount: str = "12.50",
    unit: tuple[UUID, int] | None = None,
) -> AcceptedOrder:
    """Return an order accepted so many seconds after START, in a unit of its own or a given one."""
    moment = START + timedelta(seconds=second)
    order = Order(order_id or new_id(), name, Decimal(amount), moment)
    unit_id, size = unit or (order.id, 1)
    return AcceptedOrder(order, moment, unit_id, size)


def prepared(order: AcceptedOrder) -> PreparedOrder:
    """Return the order with its bytes."""
    return PreparedOrder(order, codec.encode_order(order.order))


def single(order: AcceptedOrder) -> Unit:
    """Return the unit of one order."""
    return Unit([prepared(order)])


def bulk(size: int, second: float = 0.0) -> Unit:
    """Return a unit of several orders."""
    unit_id = new_id()
    return Unit([prepared(accepted(second, unit=(unit_id, size))) for _ in range(size)])


def message(orders: Sequence[AcceptedOrder], accepted_at: datetime | None = None) -> Message:
    """Return the message that carries the orders."""
    return Message(
        codec.encode_message([[(order, codec.encode_order(order.order))] for order in orders]),
        len(orders),
        accepted_at or min(order.accepted_at for order in orders),
        codec.SCHEMA_VERSION,
    )
