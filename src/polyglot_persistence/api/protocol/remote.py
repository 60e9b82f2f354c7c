"""The client of a connection, from its address or from a trusted proxy's headers."""

import asyncio

from polyglot_persistence.api.protocol.front import Front
from polyglot_persistence.api.protocol.head_reader import HeadReader
from polyglot_persistence.api.protocol.heads import Head, with_host, without_prefix
from polyglot_persistence.api.web.rate_limits import network_of


class Remote:
    """The client of a connection, with its scheme and path prefix as far as they are known."""

    client: tuple[str, int] | None = None
    prefix = ""
    scheme: str | None = None
    """The scheme that the client used; None: unknown."""
    network = ""
    """Network that the connection counts for; empty: not counted (a proxy serves many clients)."""
    is_fronted = False
    """Whether each request needs `look`."""
    _is_trusted = False
    _peer = ""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.own_address: tuple[str, int | None] = ("", None)

    def connected(self, transport: asyncio.Transport) -> None:
        """Set the addresses of both ends."""
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client = (str(peer[0]), int(peer[1]))
            self._peer = self.client[0]
            self._is_trusted = self._front.trusts(self._peer)
            self.network = "" if self._is_trusted else network_of(self._peer)
        self.is_fronted = self._is_trusted or bool(self._front.prefix)
        own = transport.get_extra_info("sockname")
        self.own_address = (str(own[0]), int(own[1])) if isinstance(own, tuple) else (own, None)

    def look(self, reader: HeadReader, head: Head) -> None:
        """Set client, scheme, host and path of a request from its proxy and the settings.

        Raises:
            BadHeadError: what the proxy says cannot be read, or contradicts itself.
        """
        self.prefix = self._front.prefix
        if self._is_trusted:
            seen = self._front.seen(self._peer, reader.headers)
            self.client, self.scheme = (seen.client, 0), seen.scheme
            if seen.prefix is not None:
                self.prefix = seen.prefix
            if seen.host is not None:
                reader.headers, head.host = with_host(reader.headers, seen.host), seen.host
        if self.prefix:
            reader.target = without_prefix(reader.target, self.prefix)
            head.is_plain = False  # its answer names the path, which the framework's handler does
