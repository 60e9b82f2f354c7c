"""Heartbeats: a child's event loop writes a byte a second to a pipe that its parent reads.

Both a stopped process and a blocked event loop fall silent. The same pipe carries `READY`, once,
when the child is ready.

Invariant: neither side ever waits for the other.
"""

import asyncio
import contextlib
import os

BEAT_SECONDS = 1.0
BEAT = b"."
READY = b"\n"

_BYTES_MAX = 65_536
"""The capacity of a pipe (pipe(7)), so that one read empties it."""


class Parent:
    """The child's end of the pipe; without a descriptor no parent reads."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_blocking(descriptor, False)

    def write(self, sign: bytes) -> None:
        """Send the sign; drop it if the parent has ended or the pipe is full."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, sign)

    async def beat(self) -> None:
        """Beat from this event loop, until canceled."""
        while True:
            self.write(BEAT)
            await asyncio.sleep(BEAT_SECONDS)

    async def announce(self, event: asyncio.Event) -> None:
        """Send `READY` once the event is set."""
        await event.wait()
        self.write(READY)


class Heartbeats:
    """The parent's end of the pipe, for a child and its successors."""

    def __init__(self) -> None:
        self._source, self.descriptor = os.pipe()  # the child inherits `descriptor`
        os.set_blocking(self._source, False)

    def received(self) -> bytes:
        """Return the bytes written since the last call."""
        try:
            return os.read(self._source, _BYTES_MAX)
        except BlockingIOError:
            return b""
