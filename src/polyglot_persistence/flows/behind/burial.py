"""Burial: writes, counts and logs dead letters, for every stage."""

from collections.abc import Sequence

from polyglot_persistence.domain import codec
from polyglot_persistence.domain.dead_letter import DeadLetter, Stage
from polyglot_persistence.domain.order import AcceptedOrder
from polyglot_persistence.ports.orders import Orders
from polyglot_persistence.telemetry import DEAD_LETTERED, logger

_log = logger("dead_letters")


def letter_of(accepted: AcceptedOrder, reason: str, stage: Stage) -> DeadLetter:
    """Return the dead letter of an order after one attempt."""
    return DeadLetter(
        accepted.order.id, accepted.unit_id, payload_of(accepted), reason, stage, attempts=1
    )


def payload_of(accepted: AcceptedOrder) -> bytes:
    """Return the payload of an order's dead letter: its item of a message."""
    return codec.encode_item(accepted, codec.encode_order(accepted.order))


async def bury(orders: Orders, letters: Sequence[DeadLetter]) -> None:
    """Write dead letters.

    Raises:
        UnavailableError: the record is away.
        UnknownOutcomeError: some may be written; write them again.
    """
    await orders.bury(letters)
    for letter in letters:
        stage = letter.stage.value
        DEAD_LETTERED.labels(stage).inc()
        _log.error("dead_lettered", stage=stage, order_id=letter.order_id, reason=letter.reason)
