"""Bounds the bytes of all unanswered requests together.

A limit per body does not bound their sum: a hundred unfinished bulks of 1 MB are 100 MB. At the
bound, the connection that has held bytes for the longest must drop them. It sends slowest, so fast
clients are not refused because of slow ones.

Invariant: at most `bytes_max` are held, plus one read of a connection.
"""

from typing import Protocol

from polyglot_persistence.api.protocol.front import ANY_FRONT, Front
from polyglot_persistence.api.protocol.held_writes import Turn
from polyglot_persistence.config.http import HttpLimits


class Holder(Protocol):
    """A connection that holds bytes."""

    held_bytes: int

    def crowded_out(self) -> None:
        """Drop bytes that need not be kept, and release them."""


class InFlight:
    """The bytes that connections hold; those that can be dropped, oldest first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: dict[Holder, None] = {}
        self.bytes = 0

    def hold(self, holder: Holder, size: int) -> None:
        """Count bytes that a connection holds; drop others' bytes if there are too many."""
        holder.held_bytes += size
        self.bytes += size
        self._waiting[holder] = None
        while self.bytes > self._bytes_max and self._waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.crowded_out()

    def settle(self, holder: Holder) -> None:
        """Protect a connection's bytes: its request is complete and being answered."""
        self._waiting.pop(holder, None)

    def release(self, holder: Holder, size: int) -> None:
        """Stop counting bytes."""
        holder.held_bytes -= size
        self.bytes -= size
        if not holder.held_bytes:
            self._waiting.pop(holder, None)


class Crowd:
    """The open connections of a server, by client network."""

    def __init__(self, connections_max: int, address_connections_max: int) -> None:
        self._connections_max = connections_max
        self._address_connections_max = address_connections_max
        self._by_network: dict[str, int] = {}
        self.open = 0
        self.refused = 0
        """Connections refused since the last `take_refused`."""

    def enter(self, network: str) -> str:
        """Count a connection, or return why it is refused."""
        self.open += 1
        here = self._by_network[network] = self._by_network.get(network, 0) + 1
        if self.open > self._connections_max:
            self.refused += 1
            return "too many connections are open"
        if network and here > self._address_connections_max:
            self.refused += 1
            return "too many connections are open from this address"
        return ""

    def leave(self, network: str) -> None:
        """Stop counting a connection."""
        self.open -= 1
        here = self._by_network[network] - 1
        if here:
            self._by_network[network] = here
        else:
            del self._by_network[network]

    def take_refused(self) -> int:
        """Return the number refused since the last call."""
        refused, self.refused = self.refused, 0
        return refused


class Shared:
    """State shared by all connections of one server."""

    def __init__(self, limits: HttpLimits, front: Front = ANY_FRONT) -> None:
        self.limits = limits
        self.front = front
        self.turn = Turn()
        self.in_flight = InFlight(limits.in_flight_bytes_max)
        self.crowd = Crowd(limits.connections_max, limits.address_connections_max)
