"""What all connections of one server have in common."""

from polyglot_persistence.api.front import ANY_FRONT, Front
from polyglot_persistence.api.held_writes import Turn
from polyglot_persistence.api.in_flight import Crowd, InFlight
from polyglot_persistence.api.limits import HttpLimits


class Shared:
    """The bounds, what counts against them, and what stands in front."""

    def __init__(self, limits: HttpLimits, front: Front = ANY_FRONT) -> None:
        self.limits = limits
        self.front = front
        self.turn = Turn()
        self.in_flight = InFlight(limits.in_flight_bytes_max)
        self.crowd = Crowd(limits.connections_max, limits.address_connections_max)
